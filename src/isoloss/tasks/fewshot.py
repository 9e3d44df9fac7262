"""Examples for a prompt, drawn by seed, never the document that is asked.

A document's examples depend on the seed, its place and the pool alone: a smaller ``limit``
leaves every prompt as it was.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from isoloss.errors import BadRequest


class Examples:
    """A pool of examples and the rule that draws from it."""

    def __init__(self, inputs: Sequence[str], *, shots: int, seed: int) -> None:
        """Index the pool.

        Args:
            inputs: the question of every document that may serve as an example; one whose
                question equals the asked document's is never drawn, since it may tell the answer.
            shots: examples a prompt.
            seed: of the draw.
        """
        self._codes: dict[str, int] = {}
        for text in inputs:
            self._codes.setdefault(text, len(self._codes))
        self._pool = np.array([self._codes[text] for text in inputs], dtype=np.int64)
        self._shots, self._seed = shots, seed

    def draw(self, asked: str, place: int) -> list[int]:
        """Places in the pool of the examples for one document.

        Args:
            asked: the document's own question.
            place: the document's place in its file, which varies the draw.

        Raises:
            BadRequest: the pool holds too few other documents.
        """
        if self._shots == 0:
            return []
        others = np.flatnonzero(self._pool != self._codes.get(asked, -1))
        if len(others) < self._shots:
            raise BadRequest(
                f"There are too few other documents for {self._shots} examples.",
                asked=f"num_fewshot = {self._shots}",
                nearest=f"num_fewshot = {len(others)}",
                remedy="lower num_fewshot, or name a larger file in fewshot_path",
            )
        rng = random.Random(f"{self._seed}/{place}")
        return [int(others[i]) for i in draw_distinct(len(others), self._shots, rng)]


def draw_distinct(n: int, k: int, rng: random.Random) -> list[int]:
    """``k`` distinct numbers below ``n`` in random order (Fisher-Yates, the first k steps).

    Only ``rng.random()`` is called: it is the one method whose stream Python promises to keep.
    """
    moved: dict[int, int] = {}
    drawn = []
    for i in range(k):
        j = i + int(rng.random() * (n - i))
        drawn.append(moved.get(j, j))
        moved[j] = moved.get(i, i)
    return drawn
