"""How sure a sentence is: one list of words, and the word for every verdict of a law or a claim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from isoloss.studies.findings import Verdict

Sureness = Literal[
    "confirmed", "contradicted", "no effect of this size", "undetermined", "measured",
    "estimate \u00b1 se", "not asked",
]  # fmt: skip

RULES: Mapping[Sureness, str] = {
    "confirmed": "What is asked or claimed holds: its interval lies on the claimed side, at "
    "least as far out as was written down before the run, or the test of a law says so.",
    "contradicted": "What is asked or claimed does not hold: by the same rule or the same "
    "test the data speak for the opposite.",
    "no effect of this size": "All the data allow lies within the smallest effect that matters.",
    "undetermined": "The data decide neither for nor against: nothing follows.",
    "measured": "Counted or read off the store; no law decides it.",
    "estimate \u00b1 se": "An estimate with its standard error or its interval.",
    "not asked": "Not measured, or no law was asked.",
}
"""What each word says."""

CURVE: Mapping[str, Sureness] = {
    "collapses": "confirmed",
    "differs": "contradicted",
    # less than three standard errors is no proof that there is nothing
    "no signal": "undetermined",
    "undetermined": "undetermined",
}
"""That ability follows the loss, by verdict of :func:`isoloss.laws.collapse`."""

THRESHOLD: Mapping[str, Sureness] = {
    "threshold": "confirmed",
    "smooth": "contradicted",
    "absent": "no effect of this size",
    "below baseline": "undetermined",
    "answers constant": "undetermined",
    "undetermined": "undetermined",
    "not asked": "not asked",
}
"""That there is a threshold, by verdict of :func:`isoloss.laws.emergence`."""

TIPPING: Mapping[str, Sureness] = {
    "same": "confirmed",
    "different": "contradicted",
    "some metrics only": "undetermined",
    "undetermined": "undetermined",
}
"""That all scores put a threshold at one loss."""

SATURATION: Mapping[str, Sureness] = {
    "saturated": "confirmed",
    "still improving": "contradicted",
    "flat": "no effect of this size",
    "undetermined": "undetermined",
}
"""That the loss has turned, by verdict of :func:`isoloss.laws.saturation`."""

CLAIM: Mapping[Verdict, Sureness] = {
    "confirmed": "confirmed",
    "contradicted": "contradicted",
    "no effect of this size": "no effect of this size",
    "undetermined": "undetermined",
    "not run": "not asked",
}
"""A claim of claims.toml, by its verdict."""
