"""A study split between processes that share nothing but the store's folder.

Every process lays out the same work and begins with its own part of the checkpoints. Whoever is
done takes over what is left, claim by claim, so that any process may be lost, come late or be
started again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoloss.errors import BadRequest
from isoloss.store import checkpoint_key
from isoloss.store.leases import Leases, failed_since

if TYPE_CHECKING:
    from isoloss.engine.jobs import Job
    from isoloss.engine.local import Runner
    from isoloss.engine.worklist import Work

_LOOKS = 8  # at others' claims within one lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One part of a study's checkpoints.

    Attributes:
        index: which one, from 1.
        count: of so many.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise BadRequest(
                "there is no such shard.",
                asked=f"--shard {self.index}/{self.count}",
                nearest=f"--shard {min(max(self.index, 1), max(self.count, 1))}/"
                f"{max(self.count, 1)}",
                remedy="count shards from 1: --shard 1/8 to --shard 8/8",
            )

    @classmethod
    def parse(cls, text: str, environ: Mapping[str, str] | None = None) -> Shard:
        """Read ``I/N``, or ``auto`` from what a cluster tells its jobs.

        Args:
            text: as on the command line.
            environ: the environment; that of this process where None.

        Returns:
            The shard.

        Raises:
            BadRequest: the text is neither, or no cluster says anything.

        >>> Shard.parse("3/8")
        Shard(index=3, count=8)
        >>> Shard.parse("auto", {"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "4"})
        Shard(index=1, count=4)
        """
        if text == "auto":
            return _of_cluster(os.environ if environ is None else environ)
        if match := re.fullmatch(r"(\d+)/(\d+)", text):
            return cls(index=int(match[1]), count=int(match[2]))
        raise BadRequest(
            "a shard is one of several.",
            asked=f"--shard {text}",
            nearest="--shard 1/8",
            remedy="write I/N with I from 1 to N, or auto inside a job array",
        )

    def own(self, works: Sequence[Work]) -> list[Work]:
        """The checkpoints this shard begins with: every ``count``-th, so that sizes are shared."""
        return list(works[self.index - 1 :: self.count])

    def then(self, works: Sequence[Work]) -> list[Work]:
        """The others, from this shard's place on, so that those who are done begin apart."""
        place = len(works) * (self.index - 1) // self.count
        order = [*range(place, len(works)), *range(place)]
        return [works[i] for i in order if i % self.count != self.index - 1]


def _of_cluster(environ: Mapping[str, str]) -> Shard:
    def number(name: str, default: int | None = None) -> int:
        text = environ.get(name, "" if default is None else str(default))
        if text.isdigit():
            return int(text)
        raise BadRequest(
            f"--shard auto needs {name}, which is not set here.",
            asked=f"{name}={environ[name]!r}" if name in environ else "--shard auto",
            nearest="--shard 1/8",
            remedy="sbatch --array=1-8, or a Kubernetes job of completionMode: Indexed with"
            " JOB_COMPLETIONS in its env",
        )

    if "SLURM_ARRAY_TASK_ID" in environ:
        first, step = number("SLURM_ARRAY_TASK_MIN", 0), number("SLURM_ARRAY_TASK_STEP", 1)
        count = number("SLURM_ARRAY_TASK_COUNT")
        place = (number("SLURM_ARRAY_TASK_ID") - first) // max(step, 1)
        # an array such as 1,3,40: two tasks may fall together, and the claims part them
        return Shard(index=place % max(count, 1) + 1, count=count)
    return Shard(index=number("JOB_COMPLETION_INDEX") + 1, count=number("JOB_COMPLETIONS"))


def measure_shard(
    runner: Runner, works: Sequence[Work], shard: Shard, leases: Leases | None = None
) -> None:
    """Measure a shard's checkpoints, and then all that nobody else is at.

    It ends when every cell is measured, has failed since it began, or belongs to a checkpoint
    whose holder has shown that it is alive.

    Args:
        runner: measures; its store is held for writing together.
        works: of the whole study, in the order that every shard has.
        shard: where to begin.
        leases: claims; those in the store where None.
    """
    own = shard.own(works)
    if leases is None and not runner.store.place.holds_claims:
        runner.progress.note("the store holds no claims: this shard measures its own part alone")
        runner.measure_all(own, runner.store.finished())
        return
    claims = leases or runner.store.place.leases()
    left = _Left(runner, claims)
    for work in own:
        if work.error is None:  # of an older run; what can be read now is tried anew
            runner.store.clear_failures([checkpoint_key(work.resolved.checkpoint.name)])
    with claims.renewing():
        todo = [*own, *shard.then(works)]
        while todo := left.attempt(todo):
            alive = [w for w in todo if claims.shown_alive(w.resolved.checkpoint.name)]
            if len(alive) == len(todo):
                runner.progress.note(f"{len(alive)} checkpoints are left to shards that work on")
                return
            time.sleep(claims.seconds / _LOOKS)


class _Left:
    """What of a study is left to measure, as one shard sees it."""

    def __init__(self, runner: Runner, leases: Leases) -> None:
        self._runner, self._leases = runner, leases
        self._started = leases.now()
        self._look()

    def attempt(self, works: Sequence[Work]) -> list[Work]:
        """Measure what can be claimed; the checkpoints that others hold."""
        self._look()
        held = []
        for i, work in enumerate(works):
            if not self._is_left(work):
                continue
            name = work.resolved.checkpoint.name
            if not self._leases.claim(name):
                held.append(work)
                continue
            try:
                self._look()  # it may have been finished between look and claim
                if self._is_left(work):
                    self._measure(work, name, works[i + 1 :])
                if not self._leases.holds(name):  # taken over while this process stood still
                    held.append(work)
            finally:
                self._leases.release(name)
        return held

    def _look(self) -> None:
        self._runner.store.place.refresh()
        self._finished = self._runner.store.finished()
        self._failed = failed_since(self._runner.store.path, self._started)

    def _jobs(self, work: Work) -> list[Job]:
        return [job for job in work.pending(self._finished) if job.cell.id not in self._failed]

    def _is_left(self, work: Work) -> bool:
        if checkpoint_key(work.resolved.checkpoint.name) in self._failed:
            return False
        return work.error is not None or work.unknown or bool(self._jobs(work))

    def _measure(self, work: Work, name: str, others: Sequence[Work]) -> None:
        work = self._runner.admit(work)
        if work.error is not None:
            return
        following = next((w for w in others if self._is_left(w) and w.error is None), None)
        self._runner.measure(
            work,
            self._jobs(work),
            following.resolved.checkpoint.source if following else None,
            wanted=lambda job: self._leases.holds(name),
        )
