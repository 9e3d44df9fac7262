"""A block for the model card of each run's last checkpoint: metadata and a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from isoloss.steps import steps
from isoloss.store.exports.written import Written, nothing_to_write
from isoloss.store.files import slug, write_text
from isoloss.store.schema import LOSS_PROBE, TASK_PROBE
from isoloss.store.store import Store

# what readers of a card know; every other number is in the other formats
_RESULTS = ("accuracy", "accuracy_per_char", "accuracy_macro", "accuracy_micro", "exact_match",
            "exact_match_macro", "exact_match_micro", "multiple_choice_grade", "perplexity",
            "bits_per_byte", "loss_nats_per_token")  # fmt: skip
_RUN = ["family", "model", "run"]
_KINDS = {TASK_PROBE: ("text-generation", "Text Generation"),
          LOSS_PROBE: ("text-generation", "Language Modeling")}  # fmt: skip


def export_model_card(store: Store, out: Path) -> Written:
    """Write ``OUT/FAMILY__RUN.md`` for each run: its last checkpoint's scores and losses.

    The block begins with ``model-index`` metadata between lines of ``---``, as the model hub
    reads it, and a Markdown table follows: put the file at the top of the repository's
    ``README.md``, or merge the two parts into one that is there.

    Args:
        store: what to write.
        out: a folder; made where it is not there.

    Raises:
        BadRequest: the store holds neither scores nor held-out losses.
        DiskFull: there was no room.
    """
    rows = (
        store.measurements()
        .filter(
            pl.col("probe").is_in(list(_KINDS)),
            pl.col("metric").is_in(_RESULTS),
            pl.col("value").is_finite(),
        )
        .collect()
    )
    if not rows.height:
        raise nothing_to_write(store, "score and no held-out loss")
    numbers = files = 0
    for _, run in steps("writing cards", list(rows.group_by(_RUN, maintain_order=True))):
        last = run.filter(pl.col("step").fill_null(-1) == run["step"].fill_null(-1).max())
        last = last.sort("probe", "subject", "num_fewshot", "metric", nulls_last=True)
        first = last.row(0, named=True)
        text = f"---\n{_metadata(last)}---\n\n{_table(last)}"
        write_text(out / f"{slug(first['family'] + '__' + first['run'])}.md", text)
        numbers, files = numbers + last.height, files + 1
    return Written(out=str(out), files=files, checkpoints=files, numbers=numbers)


def _metadata(rows: pl.DataFrame) -> str:
    # a second to import: only here
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    for row in rows.iter_rows(named=True):
        kind, task = _KINDS[row["probe"]]
        results.append(
            EvalResult(
                task_type=kind,
                task_name=task,
                dataset_type=_line(row["subject"]),
                dataset_name=_line(row["subject"]),
                metric_type=_line(row["metric"]),
                metric_name=_metric_name(row),
                metric_value=row["value"],
            )
        )
    name = _line(rows.row(0, named=True)["run"])
    return str(ModelCardData(model_name=name, eval_results=results).to_yaml()) + "\n"


def _table(rows: pl.DataFrame) -> str:
    first = rows.row(0, named=True)
    at = "" if first["step"] is None else f" at step {first['step']:,}"
    seen = "" if first["tokens_seen"] is None else f", {first['tokens_seen']:,} tokens"
    lines = [
        f"## Evaluation of {_cell(first['run'])}{at}{seen}",
        "",
        "| task or text | metric | value | standard error | n |",
        "|---|---|---:|---:|---:|",
    ]
    for row in rows.iter_rows(named=True):
        error = "" if row["stderr"] is None else f"{row['stderr']:.2g}"
        count = "" if row["n"] is None else f"{row['n']:,}"
        lines.append(
            f"| {_cell(row['subject'])} | {_cell(_metric_name(row))} | {row['value']:.4f} | "
            f"{error} | {count} |"
        )
    return "\n".join([*lines, ""])


def _metric_name(row: Mapping[str, Any]) -> str:
    shots = "" if row["num_fewshot"] is None else f" ({row['num_fewshot']}-shot)"
    return _line(f"{row['metric']}{shots}")


def _line(text: str) -> str:
    return " ".join(re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text).split())


def _cell(text: str) -> str:
    return re.sub(r"([\\|`*_<>\[\]])", r"\\\1", _line(text))
