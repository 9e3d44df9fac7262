"""Which runs of any store have stopped improving: the verdict on every loss curve of one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import BadData, BadRequest
from isoloss.laws.run_saturation import Saturation, saturation
from isoloss.store.axis import CHECKPOINT, Axis, losses
from isoloss.store.store import Store
from isoloss.studies.explained.points import LATER, run_label
from isoloss.studies.findings import Figure, FigureAxis, FindingsTable, Value

MOST_RUNS = 60
"""Runs that are asked about; a verdict takes a tenth of a second."""

TABLE = "loss-turns"
COLUMNS = (
    "run", "checkpoints", "verdict", "onset (tokens)", "95% interval", "lowest loss", "final loss",
    "rise", "95% interval ", "why",
)  # fmt: skip

Floats = NDArray[np.float64]


class LossTurn(NamedTuple):
    """The loss of one run and what it does in the end.

    Attributes:
        run: as it is named on the page.
        tokens: (n,) seen.
        loss: (n,) in the unit of the axis.
        law: the verdict; None where the law could not be asked.
        why: the verdict in words, or why there is none.
    """

    run: str
    tokens: Floats
    loss: Floats
    law: Saturation | None
    why: str

    @property
    def verdict(self) -> str:
        """Saturated, still improving, flat or undetermined."""
        return self.law.verdict if self.law else "undetermined"


def loss_turns(store: Store, axis: Axis, *, seed: int) -> tuple[LossTurn, ...]:
    """The verdict on every run; flagged checkpoints and later stages are left out.

    Args:
        store: measured or imported.
        axis: the loss.
        seed: of the law's simulations.

    Returns:
        The runs that have losses at known numbers of tokens, at most :data:`MOST_RUNS`.
    """
    frame = _frame(store, axis)
    found: list[LossTurn] = []
    for (label,), rows in frame.group_by("label", maintain_order=True):
        if len(found) == MOST_RUNS:
            break
        tokens, loss = (rows[name].to_numpy() for name in ("tokens", "loss"))
        try:
            law = saturation(tokens, loss, seed=seed)
            one = LossTurn(str(label), tokens, loss, law, law.reason)
        except (BadData, BadRequest) as error:
            one = LossTurn(str(label), tokens, loss, None, error.what)
        found.append(one)
    return tuple(found)


def turn_table(found: Sequence[LossTurn], axis: Axis) -> FindingsTable:
    """A row a run."""
    rows: list[tuple[Value, ...]] = []
    for one in found:
        law = one.law
        rows.append(
            (
                one.run,
                len(one.loss),
                one.verdict,
                law.onset_tokens if law else None,
                _between(law.onset_low, law.onset_high) if law else None,
                law.lowest_loss if law else None,
                law.final_loss if law else None,
                law.rise.value if law else None,
                _between(law.rise.low, law.rise.high) if law else None,
                one.why,
            )
        )
    return FindingsTable(
        id=TABLE,
        title="Has each run stopped improving?",
        columns=COLUMNS,
        rows=tuple(rows),
        note=f"Losses in {axis.unit}. The first tenth of a run's tokens is left out; ten "
        "checkpoints after it are the fewest that are judged. The interval of the onset is the "
        "95% confidence set of the turning point. See laws/run_saturation.py.",
    )


def turn_figure(found: Sequence[LossTurn], axis: Axis) -> Figure | None:
    """Loss along training with the onset of saturation; None where no run is saturated."""
    turned = [one for one in found if one.verdict == "saturated"]
    if not turned:
        return None
    rows: list[dict[str, Value]] = []
    for one in turned:
        assert one.law is not None and one.law.onset_tokens is not None
        early = min(one.law.onset_tokens, float(one.tokens.max())) / 10
        rows.append(
            {"panel": one.run, "layer": "rule", "tokens": one.law.onset_tokens,
             "x_low": one.law.onset_low, "x_high": one.law.onset_high, "label": "onset"}
        )  # fmt: skip
        rows += [
            {"panel": one.run, "who": one.run, "tokens": float(x), "loss": float(y)}
            for x, y in zip(one.tokens, one.loss, strict=True)
            if x >= early
        ]
    return Figure(
        id="loss-turns-figure",
        title="Runs that have stopped improving",
        note="Upright line: where the loss turned, with its 95% confidence set.",
        mark="lines",
        x=FigureAxis(column="tokens", title="training tokens", log=True),
        y=FigureAxis(column="loss", title=axis.label),
        by="who",
        panel="panel",
        rows=tuple(rows),
    )


def _frame(store: Store, axis: Axis) -> pl.DataFrame:
    """``label``, ``tokens``, ``loss`` of every usable checkpoint, runs in order of size."""
    points = store.checkpoints().collect()
    keys = ["family", "model", "run", "stage", "step"]
    flags = store.flags().select(keys).unique().collect()
    several = points["family"].n_unique() > 1
    good = (
        points.join(flags, on=keys, how="anti", nulls_equal=True)
        .filter(~pl.col("stage").fill_null("pretrain").is_in(list(LATER)))
        .join(losses(store, axis), on=list(CHECKPOINT), how="inner", nulls_equal=True)
        .filter(pl.col("loss").is_finite(), pl.col("tokens_seen") > 0)
    )
    labels = [
        run_label(row[0] if several else None, row[1], row[2])
        for row in good.select("family", "model", "run").rows()
    ]
    return (
        good.with_columns(label=pl.Series(labels, dtype=pl.String))
        .unique(["label", "tokens_seen"], keep="last", maintain_order=True)
        .sort("params_total", "label", "tokens_seen", nulls_last=True)
        .select("label", pl.col("tokens_seen").cast(pl.Float64).alias("tokens"), "loss")
    )


def _between(low: float | None, high: float | None) -> str | None:
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return f"{low:.4g} to {high:.4g}"
