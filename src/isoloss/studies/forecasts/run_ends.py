"""The ends of a family's runs: which of them a loss law may use, and which form they allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from isoloss.errors import Refused
from isoloss.laws.loss_forms import Form
from isoloss.laws.saturated_family import saturated_runs

START = 0.1
"""Share of a run's tokens before which its checkpoints tell nothing of its end."""

FEWEST_RUNS, FEWEST_SIZES = 4, 3
SAME_TOKENS = 0.05
"""Budgets whose logs differ by less are one budget."""

ON_A_LINE = 0.1
"""Runs whose log tokens lie so near a line in log size have one budget a size: N and D cannot be
told apart, and the law is one of compute."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """The last checkpoint of a run, and whether the laws may use it.

    Attributes:
        run: its name, unique in the family.
        params: total parameters; None where unknown.
        params_non_embedding: without embeddings; None where unknown.
        tokens: seen; None where unknown.
        loss: on the axis.
        left_out: why no law is fitted to it; None where one is.
    """

    run: str
    params: float | None
    params_non_embedding: float | None
    tokens: float | None
    loss: float
    left_out: str | None

    @property
    def compute(self) -> float:
        """6 N D of a run whose size and tokens are known."""
        assert self.params is not None and self.tokens is not None
        return 6 * self.params * self.tokens


def with_names(frame: pl.DataFrame) -> pl.DataFrame:
    """The points with ``name``, unique to each run: the run's, and its model's where needed."""
    runs = frame.select("model", "run").unique()
    repeated = set(runs["run"].filter(runs["run"].is_duplicated()))
    plain = pl.col("run").fill_null(pl.col("model"))
    return frame.with_columns(
        name=pl.when(pl.col("run").is_in(list(repeated)))
        .then(pl.format("{} {}", pl.col("model").fill_null(""), plain))
        .otherwise(plain)
    )


def after_start(frame: pl.DataFrame) -> pl.DataFrame:
    """Checkpoints after the first tenth of their run's tokens."""
    return frame.filter(pl.col("tokens") >= START * pl.col("tokens").max().over("name"))


def run_ends(
    frame: pl.DataFrame, *, keep_saturated: bool
) -> tuple[tuple[RunEnd, ...], tuple[str, ...]]:
    """Every run's last checkpoint with why it is left out, and what was assumed of schedules."""
    worse = {
        one.run: one.reason
        for one in saturated_runs(frame["name"].to_numpy(), _floats(frame, "tokens"),
                                  _floats(frame, "loss"))
        if one.verdict == "saturated"
    }  # fmt: skip
    ends, unknown = [], 0
    sizes = ("params", "params_non_embedding", "tokens")
    # float64: 6 N D of a large run is beyond int64
    frame = frame.with_columns(pl.col(name).cast(pl.Float64) for name in sizes)
    for (name,), rows in frame.group_by("name", maintain_order=True):
        last = rows.sort("tokens", nulls_last=False).row(-1, named=True)
        progress = last["schedule_progress"]
        unknown += progress is None
        left_out = None
        if last["params"] is None or last["tokens"] is None:
            left_out = "its size or its tokens are unknown"
        elif progress is not None and progress < 1 - 1e-6:
            left_out = f"its schedule is unfinished ({progress:.0%} done at its last checkpoint)"
        elif name in worse and not keep_saturated:
            left_out = f"saturated: {worse[str(name)]}"
        ends.append(
            RunEnd(
                run=str(name),
                loss=last["loss"],
                left_out=left_out,
                **{column: last[column] for column in sizes},
            )
        )
    told = (
        f"the schedule of {unknown} of {len(ends)} runs is unknown: their last checkpoints are "
        "taken as its end"
    )
    return tuple(ends), ((told,) if unknown else ())


class Shape(NamedTuple):
    """What the sizes and budgets of the finished runs allow."""

    form: Form
    budget: float | None
    line: tuple[float, float] | None
    notes: tuple[str, ...]


def shape_of(fitted: list[RunEnd], ends: tuple[RunEnd, ...]) -> Shape:
    """The form of the loss law that finished runs allow.

    Args:
        fitted: runs that a law may use.
        ends: all runs, to say why there are not more.

    Returns:
        L(N) where all saw the same tokens, a law of compute where every size has one budget,
        the full law from six runs on, with equal exponents at five.

    Raises:
        Refused: too few runs or sizes.
    """
    size = np.log(np.array([end.params for end in fitted], dtype=np.float64))
    seen = np.log(np.array([end.tokens for end in fitted], dtype=np.float64))
    runs, sizes = len(fitted), len(np.unique(size))
    one_budget = runs > 0 and np.ptp(seen) < SAME_TOKENS
    needed = FEWEST_RUNS
    line = None
    if runs >= FEWEST_RUNS and sizes >= FEWEST_SIZES and not one_budget:
        slope, start = np.polyfit(size, seen, 1)
        if (seen - start - slope * size).std() < ON_A_LINE:
            line = (float(start), float(slope))
        else:
            needed += 1
    if runs < needed or sizes < FEWEST_SIZES:
        out = "; ".join(f"{end.run}: {end.left_out}" for end in ends if end.left_out)
        raise Refused(
            f"a loss law needs {needed} finished runs of {FEWEST_SIZES} sizes.",
            asked=f"{runs} runs of {sizes} sizes" + (f" ({out})" if out else ""),
            remedy=("add models of other sizes" if sizes < FEWEST_SIZES else "add finished runs")
            + (", or fit the saturated ones too: --keep-saturated" if "saturated" in out else ""),
        )
    if one_budget:
        budget = float(np.median([end.tokens for end in fitted if end.tokens is not None]))
        note = f"all runs fitted saw {budget:.4g} tokens: the law is L(N) at that budget"
        return Shape("params", budget, None, (note,))
    if line is not None:
        note = "every size has one budget: the law is one of compute, along the line of the runs"
        return Shape("compute", None, line, (note,))
    return Shape("chinchilla" if runs > needed else "overtraining", None, None, ())


def _floats(frame: pl.DataFrame, column: str) -> Floats:
    return frame[column].cast(pl.Float64).fill_null(float("nan")).to_numpy()
