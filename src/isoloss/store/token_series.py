"""The losses of every token along one run, read a stretch of tokens at a time.

A corpus of many tokens at many checkpoints does not fit in memory. Each checkpoint's losses lie in
a file of their own, in the same order: a stretch of tokens is one slice of every file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import BadStore, Refused, nearest_name
from isoloss.store.files import slug
from isoloss.store.schema import LOSS_PROBE
from isoloss.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSeries:
    """Losses of one corpus along one run.

    Attributes:
        corpus: its name in the study.
        layout: how it was cut into windows.
        family: of the run.
        model: of the run.
        run: its name.
        steps: of the checkpoints, rising.
        files: of the checkpoints, in that order.
        tokens_file: what each token is: id, document, position, bytes.
        tokens: in the layout.
        missing_steps: checkpoints of the run without losses of this corpus.
    """

    corpus: str
    layout: str
    family: str
    model: str
    run: str
    steps: tuple[int, ...]
    files: tuple[Path, ...]
    tokens_file: Path
    tokens: int
    missing_steps: tuple[int, ...]

    def losses(self, low: int, high: int) -> NDArray[np.float32]:
        """Losses in nats of tokens ``low`` to ``high``, (checkpoints, tokens).

        Raises:
            BadStore: a file is shorter than the layout.
        """
        table = np.empty((len(self.files), high - low), dtype=np.float32)
        for row, file in zip(table, self.files, strict=True):
            part = pl.scan_parquet(file, glob=False).slice(low, high - low).collect()
            if part.height != high - low:
                raise BadStore(
                    f"{file.name} has fewer losses than the corpus has tokens.",
                    asked=str(file),
                    nearest=f"{self.tokens:,} tokens in {self.layout}",
                    remedy="delete this file and its measurement, and run the study again",
                )
            row[:] = part["loss_nats"].to_numpy()
        return table


def token_series(
    store: Store, corpus: str, *, run: str, model: str | None = None, tokenizer: str | None = None
) -> TokenSeries:
    """The losses of a corpus along a run.

    Args:
        store: the results.
        corpus: its name in the study.
        run: the training run.
        model: of the run, where two models have a run of that name.
        tokenizer: hash, where the corpus was read under several.

    Raises:
        BadStore: the store holds no token losses of this corpus along this run.
        Refused: the run's checkpoints were scored under several layouts of the corpus.
    """
    points = (
        store.checkpoints().collect().filter(pl.col("stage").fill_null("pretrain") == "pretrain")
    )
    chosen = points.filter(pl.col("run") == run)
    if model is not None:
        chosen = chosen.filter(pl.col("model") == model)
    cells = (
        store.cells().collect().filter(pl.col("probe") == LOSS_PROBE, pl.col("subject") == corpus)
    )
    if tokenizer is not None:
        cells = cells.filter(pl.col("tokenizer_hash") == tokenizer)
    folder = store.place.part("token_losses", slug(corpus))
    found = {
        file.stem: file for file in folder.glob("*/*.parquet") if file.name != "tokens.parquet"
    }
    rows = (
        chosen.join(cells.select("cell", "weights_hash"), on="weights_hash")
        .filter(pl.col("cell").is_in(list(found)), pl.col("step").is_not_null())
        .sort("step")
    )
    if rows.is_empty():
        runs = points["run"].unique().drop_nulls().to_list()
        raise BadStore(
            f"no losses of single tokens of {corpus} are kept along this run.",
            asked=f"run {run}",
            nearest=nearest_name(run, runs) or ", ".join(sorted(runs)[:5]) or None,
            remedy="measure them: [probe.token_loss] on this corpus, then isoloss run",
        )
    layouts = sorted({found[cell].parent.name for cell in rows["cell"]})
    if len(layouts) > 1:
        raise Refused(
            f"the checkpoints of {run} were scored on different cuts of {corpus}.",
            asked=f"layouts {layouts[0]} and {layouts[1]}",
            remedy="name the tokenizer, or measure the corpus again with one context and stride",
        )
    rows = rows.unique("step", keep="first", maintain_order=True)
    tokens_file = folder / layouts[0] / "tokens.parquet"
    missing = set(chosen["step"].drop_nulls()) - set(rows["step"])
    return TokenSeries(
        corpus=corpus,
        layout=layouts[0],
        family=rows["family"][0],
        model=rows["model"][0],
        run=run,
        steps=tuple(rows["step"]),
        files=tuple(found[cell] for cell in rows["cell"]),
        tokens_file=tokens_file,
        tokens=pl.scan_parquet(tokens_file, glob=False).select(pl.len()).collect().item(),
        missing_steps=tuple(sorted(missing)),
    )
