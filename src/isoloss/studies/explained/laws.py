"""The laws asked about one ability: one curve of the loss, a threshold, noise, later stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from isoloss.errors import BadData, BadRequest
from isoloss.laws.correlated import Interval
from isoloss.laws.emergence_result import Emergence
from isoloss.laws.noise import SignalNoise, signal_to_noise
from isoloss.laws.shared_curve import Collapse, collapse
from isoloss.laws.shared_curve_axis import fit_curve
from isoloss.laws.shared_curve_points import read_points
from isoloss.laws.threshold import emergence
from isoloss.laws.threshold_metrics import Answer, brier_baseline, tipping_points
from isoloss.studies.explained.points import (
    BRIER_MEAN,
    BRIER_SUM,
    FALLING,
    Ability,
    Floats,
    Scores,
)

DRAWS = 1999
MARGIN = 0.02
_LEAST_RUNS = 2
_CURVE_POINTS = 61
_FEW = 19  # draws where only offsets are asked for, which need none
_EXACT = "exact_match"  # a guess at an open answer scores nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The shared curve of an ability, lowest loss first.

    Attributes:
        loss: where it is drawn, (n,); empty where there is none.
        score: on it, (n,).
    """

    loss: Floats
    score: Floats

    def slope(self, loss: Floats) -> Floats:
        """Change of the score per unit of the loss, (points,); 0 without a curve."""
        if len(self.loss) < 2:
            return np.zeros_like(loss)
        return np.interp(loss, self.loss, np.gradient(self.score, self.loss))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A later stage of a run against the curve of the pre-trained checkpoints.

    Attributes:
        run: the run.
        stage: posttrain, midtrain or anneal.
        points: checkpoints of it.
        shift: mean distance at equal loss with its 90% interval, in the score's unit; NaN where
            the losses lie outside those of pre-training.
    """

    run: str
    stage: str
    points: int
    shift: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What the laws say about one ability.

    Attributes:
        ability: its points.
        spearman: rank correlation of loss and score.
        pearson: correlation of the same.
        collapse: whether runs share one curve; None where the law could not be asked.
        no_collapse: why not.
        controls_left_out: budgets that are unknown for some checkpoint or do not vary.
        curve: shared by the runs.
        emergence: by score.
        no_emergence: why a score has none, by score.
        tipping: whether all scores put the threshold at the same loss; None with one score.
        noise: by score.
        shifts: of later stages.
    """

    ability: Ability
    spearman: float
    pearson: float
    collapse: Collapse | None
    no_collapse: str
    controls_left_out: tuple[str, ...]
    curve: Curve
    emergence: Mapping[str, Emergence]
    no_emergence: Mapping[str, str]
    tipping: Answer | None
    noise: Mapping[str, SignalNoise]
    shifts: tuple[Shift, ...]

    @property
    def verdict(self) -> str:
        """Of the shared curve."""
        return self.collapse.verdict if self.collapse else "undetermined"

    @property
    def main(self) -> Emergence | None:
        """Emergence under the score that speaks for the ability."""
        return self.emergence.get(self.ability.main.metric)


def ask(ability: Ability, *, thresholds: int, seed: int) -> Explained:
    """Ask every law about one ability; post-trained checkpoints enter no fit.

    Args:
        ability: at least one point.
        thresholds: scores under which a threshold is looked for, the main one first.
        seed: of all draws.

    Returns:
        The laws' results; a law that cannot be asked has its reason instead.
    """
    scores = {name: s.where(~s.is_later) for name, s in ability.scores.items()}
    main = scores[ability.main.metric]
    curve = _curve(main)
    controls = _controls(main)
    found, why = _collapse(main, curve, controls, seed)
    judged = dict(list(scores.items())[:thresholds])
    found_kinks, refused, tipping = _thresholds(ability, judged, seed)
    is_level = len(main.loss) < 3 or not np.ptp(main.score) or not np.ptp(main.loss)
    return Explained(
        ability=ability,
        spearman=float("nan") if is_level else float(spearmanr(main.loss, main.score).statistic),
        pearson=float("nan") if is_level else float(pearsonr(main.loss, main.score).statistic),
        collapse=found,
        no_collapse=why,
        controls_left_out=tuple(name for name in main.budgets if name not in controls),
        curve=curve,
        emergence=found_kinks,
        no_emergence=refused,
        tipping=tipping,
        noise={name: signal_to_noise(s.score, s.run) for name, s in scores.items()},
        shifts=_shifts(ability.main, seed),
    )


def score_errors(scores: Scores, curve: Curve) -> Floats:
    """Error of each score with that of its loss, carried through the curve's slope, (n,).

    An error of the loss moves a point along x as far as an error of the score of ``slope`` times
    its size would move it along y (the effective variance, to first order).
    """
    carried = curve.slope(scores.loss) * scores.loss_stderr
    own = np.nan_to_num(scores.stderr) if scores.is_read else scores.stderr
    return np.asarray(np.hypot(own, carried), dtype=np.float64)


def weight_items(scores: Scores, curve: Curve) -> Floats | None:
    """Documents behind each score, fewer where it was read off with an error, (n,).

    A score read off with error s tells as much as ``p (1 - p) / s^2`` documents would. None where
    neither documents nor errors are known of every point.
    """
    if not (scores.is_read or scores.loss_stderr.any()):
        return None if np.isnan(scores.items).any() else scores.items
    p = np.clip(scores.score, 0.01, 0.99)
    errors = score_errors(scores, curve)
    if not scores.is_read:
        # the counted documents' own luck, whatever standard error the table gives
        drawn = p * (1 - p) / scores.items
        errors = np.sqrt(drawn + (curve.slope(scores.loss) * scores.loss_stderr) ** 2)
    is_known = np.isfinite(errors).all() and (errors > 0).all()
    return np.asarray(p * (1 - p) / errors**2, dtype=np.float64) if is_known else None


def _curve(scores: Scores) -> Curve:
    empty = Curve(loss=np.array([]), score=np.array([]))
    if scores.runs < _LEAST_RUNS or not len(scores.loss) or np.ptp(scores.loss) == 0:
        return empty
    points = read_points(scores.loss, scores.score, scores.run, None, {}, None, None)
    shared = fit_curve(points.x, points.score, points.runs)
    loss, first = np.unique(points.x, return_index=True)
    # as close as the points lie: early losses fall far, late ones hardly
    places = np.unique(np.quantile(loss, np.linspace(0.0, 1.0, _CURVE_POINTS)))
    return Curve(loss=places, score=np.interp(places, loss, shared.fitted[first]))


def _controls(scores: Scores) -> dict[str, Floats]:
    return {
        name: values
        for name, values in scores.budgets.items()
        if np.isfinite(values).all() and len(np.unique(values)) > 1
    }


def _collapse(
    scores: Scores, curve: Curve, controls: Mapping[str, Floats], seed: int
) -> tuple[Collapse | None, str]:
    if scores.runs < _LEAST_RUNS:
        return None, f"{scores.runs} run: a shared curve needs two"
    errors = score_errors(scores, curve)
    sizes = scores.budgets["parameters"] if "parameters" in controls else None
    is_one_size = sizes is not None and all(
        len(np.unique(sizes[scores.run == run])) == 1 for run in np.unique(scores.run)
    )
    try:
        return collapse(
            scores.loss, scores.score, scores.run, sizes if is_one_size else None,
            controls=controls, stderr=errors if np.isfinite(errors).all() else None,
            margin=MARGIN, draws=DRAWS, seed=seed,
        ), ""  # fmt: skip
    except (BadRequest, BadData) as error:
        return None, error.what


def _thresholds(
    ability: Ability, scores: Mapping[str, Scores], seed: int
) -> tuple[dict[str, Emergence], dict[str, str], Answer | None]:
    """Emergence under each score; together where all scores stand at the same points."""
    if not scores:
        return {}, {ability.main.metric: "this page has too many abilities to ask about each"}, None
    first = next(iter(scores.values()))
    chance = 0.0 if ability.chance is None and first.metric == _EXACT else ability.chance
    if chance is None:
        return (
            {},
            dict.fromkeys(
                scores, "the score of a guess is unknown: import it as the metric chance"
            ),
            None,
        )
    options = round(1 / chance) if chance > 0 else 0
    is_even = options > 1 and abs(options * chance - 1) < 1e-9
    are_same = all(
        np.array_equal(s.loss, first.loss) and np.array_equal(s.run, first.run)
        for s in scores.values()
    )
    if len(scores) > 1 and is_even and are_same and not np.isnan(first.score).any():
        try:
            told = tipping_points(
                first.loss, {name: s.score for name, s in scores.items()}, first.run,
                options=options, n_items=weight_items(first, _curve(first)),
                answer_shares=_shares(ability, options), seed=seed,
            )  # fmt: skip
        except (BadRequest, BadData) as error:
            return {}, dict.fromkeys(scores, error.what), None
        return told.by_metric, {}, told.answer
    found, why = {}, {}
    for name, one in scores.items():
        try:
            found[name] = emergence(
                one.loss, one.score, _baseline(name, chance), one.run, seed=seed,
                n_items=None if name in FALLING else weight_items(one, _curve(one)),
                constant_answers=_constants(ability, chance) if one is first else None,
                lower_is_better=name in FALLING,
            )  # fmt: skip
        except (BadRequest, BadData) as error:
            why[name] = error.what
    return found, why, None


def _baseline(metric: str, chance: float) -> float:
    if metric == BRIER_SUM:
        return 1 - chance
    return brier_baseline(1 / chance, averaged=True) if metric == BRIER_MEAN and chance else chance


def _constants(ability: Ability, chance: float) -> list[float] | None:
    """The best constant answer, and the most that the worst one can score."""
    if ability.constant is None or not 0 < chance < 1:
        return None
    return [ability.constant, (1 - ability.constant) / (1 / chance - 1)]


def _shares(ability: Ability, options: int) -> list[float] | None:
    """Shares of the right options: the most frequent is known, the others share the rest."""
    if ability.constant is None:
        return None
    return [ability.constant, *[(1 - ability.constant) / (options - 1)] * (options - 1)]


def _shifts(scores: Scores, seed: int) -> tuple[Shift, ...]:
    """Every later stage of a run held against the curve of pre-training alone."""
    later = scores.is_later
    if not later.any():
        return ()
    label: NDArray[np.object_] = np.array(
        [
            run if not late else f"{run}\n{stage}"
            for run, stage, late in zip(scores.run, scores.stage, later, strict=True)
        ],
        dtype=object,
    )
    names = dict.fromkeys(label[later].tolist())
    held: dict[str, Interval] = {}
    if len(np.unique(scores.run[~later])) >= _LEAST_RUNS:
        try:
            found = collapse(
                scores.loss, scores.score, label.astype(np.str_),
                reference=~later, draws=_FEW, seed=seed,
            )  # fmt: skip
            held = {str(one.run): one.offset for one in found.offsets}
        except (BadRequest, BadData):
            held = {}  # no curve to hold them against: the shift is unknown
    nan = float("nan")
    return tuple(
        Shift(
            run=name.partition("\n")[0], stage=name.partition("\n")[2],
            points=int((label == name).sum()), shift=held.get(name, Interval(nan, nan, nan)),
        )
        for name in names
    )  # fmt: skip
