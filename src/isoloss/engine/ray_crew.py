"""The workers of a Ray cluster: hired by need, told one cell at a time, replaced when lost.

Every worker is an actor that holds one model. Orders and answers are small values; what is measured
goes from the worker into the store. The claims on checkpoints are this process's, so that shards
and other drivers may work on the same store.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import isoloss
from isoloss.engine.local import Runner
from isoloss.engine.placement import Gpus, Need, need_of, room_for
from isoloss.engine.pull import Costs, Portion, Pull, split_off
from isoloss.engine.ray_hands import DEATHS, Call, Hand, NoRoom, Patience, fatal, overdue
from isoloss.engine.ray_worker import Answer, Assignment, Worker
from isoloss.engine.worklist import Beside, Work
from isoloss.errors import IsolossError, WorkersLost
from isoloss.store import Cell, Failure, checkpoint_key
from isoloss.study import Study

_TICK_SECONDS = 1.0
_TELL_SECONDS = 60.0  # of waiting for a worker to start
_SETTLE_SECONDS = 10.0  # a worker that was asked for and did not start by then waits for room
_WORTH_SECONDS = 30.0  # work that a new worker is started for
_LOOK_SECONDS = 10.0  # between looks into the store for what others have done
_IN_FLIGHT = 2  # orders at a worker: the next one is there when a cell ends
_STARTS = 3  # workers that die one after the other before any began


class Crew:
    """Measures the checkpoints of a study on a cluster.

    Args:
        ray: the module, connected.
        study: what is measured.
        only: probes to run; none runs all.
        gpus: what the cluster has.
        patience: how long to wait.
    """

    def __init__(
        self, ray: Any, study: Study, only: Sequence[str], gpus: Gpus, patience: Patience
    ) -> None:
        self._ray, self._study, self._only = ray, study, tuple(only)
        self._gpus, self._patience = gpus, patience
        self._costs, self._hands = Costs(), list[Hand]()
        self._open: Counter[str] = Counter()
        self._never: set[str] = set()
        self._deaths: dict[str, list[str]] = defaultdict(list)  # nodes, by cell or checkpoint
        self._reasons: dict[str, str] = {}
        self._died_at_start = 0
        self._told: set[str] = set()
        self._nodes: tuple[float, list[dict[str, Any]]] = (float("-inf"), [])
        self._looked: tuple[float, set[str]] = (float("-inf"), set())

    def measure(self, runner: Runner, works: Sequence[Work]) -> None:
        """Measure all that is left of these checkpoints, and count it in the runner.

        Raises:
            WorkersLost: workers die before they begin.
            IsolossError: something stops all of them, such as a full disk.
        """
        self._runner = runner
        self._leases = runner.store.place.leases()
        self._beside = Beside.of([work.resolved for work in works])
        self._queue = Pull(self._portions(works), self._costs)
        with self._leases.renewing():
            try:
                while self._is_left():
                    self._turn()
            finally:
                for hand in list(self._hands):
                    self._dismiss(hand)
                for name in list(self._open):
                    self._leases.release(name)

    # ---- what there is to do

    def _portions(self, works: Sequence[Work]) -> list[Portion]:
        finished = self._runner.store.finished()
        sizes = {
            work.resolved.checkpoint.run.model: work.resolved.description.params_total
            for work in works
            if work.resolved.description
        }
        portions = []
        for work in works:
            if not work.unknown:
                self._runner.admit(work)
            if work.error is None and work.is_left(finished):
                known, model = work.resolved.description, work.resolved.checkpoint.run.model
                parameters = known.params_total if known else sizes.get(model, 0)
                cells = None if work.unknown else [job.cell for job in work.pending(finished)]
                need = need_of(parameters, self._study, self._gpus)
                portions.append(Portion(work=work, need=need, cells=cells))
        return portions

    def _is_left(self) -> bool:
        if any(hand.portion for hand in self._hands):
            return True
        held = self._queue.names()
        if held and all(self._leases.shown_alive(name) for name in held):
            self._note(f"{len(held)} checkpoints are left to others that measure this study")
            return False
        return bool(held)

    def _turn(self) -> None:
        now = time.monotonic()
        self._hire(now)
        for hand in [hand for hand in self._hands if hand.idle]:
            self._give(hand, now)
        calls = {hand.calls[0].ref: hand for hand in self._hands if hand.calls}
        if not calls:
            moment = self._queue.next_moment()
            time.sleep(min(max((moment or now) - now, 0.01), _TICK_SECONDS))
            return
        ready, _ = self._ray.wait(list(calls), num_returns=1, timeout=_TICK_SECONDS)
        if ready:  # and what else has come
            ready, _ = self._ray.wait(list(calls), num_returns=len(calls), timeout=0)
        for ref in ready:
            self._hear(calls[ref])
        for hand in list(self._hands):
            self._stop_overdue(hand)

    # ---- workers

    def _hire(self, now: float) -> None:
        """Ask for workers of the kind that the longest work needs, and for one more than fit.

        The one more tells an autoscaler what is wanted, and begins where a node joins.
        """
        needs = self._queue.needs(now)
        for hand in list(self._hands):  # room for those that are needed
            if needs and hand.need not in needs and (hand.idle or not hand.started):
                self._dismiss(hand)
        for need in list(needs) or list(dict.fromkeys(hand.need for hand in self._hands)):
            same = [hand for hand in self._hands if hand.need == need]
            starting = [hand for hand in same if not hand.started]
            room = room_for(need, self._resources(now)) - (len(same) - len(starting))
            wanted = needs.get(need, 0) - sum(hand.idle for hand in same)
            if room > 0:
                wanted += self._worth(same)
            for _ in range(min(wanted, max(room, 1 if need in needs else 0)) - len(starting)):
                self._hands.append(self._hired(need, now))
            waits = [hand for hand in self._hands if hand.need == need and not hand.started]
            if waits and not any(hand.started for hand in same):
                self._wait_for_room(need, now - min(hand.asked for hand in waits))
            if any(now - hand.asked < _SETTLE_SECONDS for hand in waits):
                return  # what is left over for others is known when these have their place

    def _worth(self, hands: Sequence[Hand]) -> int:
        """How many more workers would find enough to share with these."""
        return sum(int(self._spare(hand) // (2 * _WORTH_SECONDS)) for hand in hands)

    def _spare(self, hand: Hand) -> float:
        """Seconds of the cells that a worker did not begin."""
        if hand.portion is None or not self._costs.known:
            return 0.0
        return self._costs.seconds(hand.todo, hand.portion.parameters)

    def _hired(self, need: Need, now: float) -> Hand:
        run = self._study.run.replace(device=need.device)
        actor = self._ray.remote(Worker).options(**need.options(), max_restarts=0)
        study = self._study.model_copy(update={"run": run})
        out = self._runner.store.place.address
        hand = Hand(actor.remote(study, out, self._only, isoloss.__version__), need, now)
        hand.order("start")
        return hand

    def _wait_for_room(self, need: Need, waited: float) -> None:
        if any(hand.portion for hand in self._hands):
            return
        limit = self._patience.room_seconds
        if waited > _TELL_SECONDS or not room_for(need, self._resources(time.monotonic())):
            self._note(f"waiting up to {limit:g} s for a node with {need}")
        if waited < limit:
            return
        most = max((n.get("GPU", 0) for n in self._resources(time.monotonic())), default=0)
        error = NoRoom(
            f"no node of the cluster had room for a worker within {limit:g} s.",
            asked=str(need),
            nearest=f"{most:g} GPUs on a node" if need.gpus > 1 else None,
            remedy="add such a node, or lower run.threads, run.memory_budget or run.dtype",
        )
        for portion in self._queue.remove_all(need):
            self._give_up(portion, None, error)
            if portion.begun:
                self._finish(portion)

    def _dismiss(self, hand: Hand) -> None:
        self._hands.remove(hand)
        if hand.promised is not None:
            hand.promised.promised = False
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(hand.actor, no_restart=True)

    def _resources(self, now: float) -> list[dict[str, float]]:
        if now - self._nodes[0] > _TICK_SECONDS:
            self._nodes = (now, self._ray.nodes())
        return [node["Resources"] for node in self._nodes[1] if node["Alive"]]

    # ---- orders

    def _give(self, hand: Hand, now: float) -> None:
        portion = self._queue.take(hand.need, hand.before, now, hand.promised)
        portion = portion or self._shared(hand)
        if portion is None:
            return
        if not self._claim(portion, now) or not self._trim(portion):
            return
        portion.begun = True
        resolved = portion.work.resolved
        hand.promised = following = self._queue.promise(hand.need, portion.model, now)
        hand.portion, hand.todo = portion, []
        self._runner.progress.checkpoint(portion.name)
        cells = None if portion.cells is None else tuple(cell.id for cell in portion.cells)
        hand.order(
            "take",
            Assignment(
                resolved=resolved,
                beside=self._beside.only(resolved.checkpoint.run),
                cells=cells,
                never=frozenset(self._never),
                following=following.work.resolved.checkpoint.source if following else None,
            ),
        )

    def _claim(self, portion: Portion, now: float) -> bool:
        name = portion.name
        if not self._open[name] and not self._leases.claim(name):
            del self._open[name]
            self._queue.put(portion, now + self._leases.seconds / 8)
            return False
        if not portion.begun:
            self._open[name] += 1
        return True

    def _trim(self, portion: Portion) -> bool:
        """Drop the cells that are in the store by now, and those that ended two workers."""
        if portion.cells is not None:
            finished = self._finished(fresh=portion.not_before > 0)
            left = [cell for cell in portion.cells if cell.id not in finished]
            if portion.begun:  # by a worker that died before it could say so
                self._runner.done += len(portion.cells) - len(left)
            portion.cells = left
        whole = checkpoint_key(portion.name)
        if self._deaths_of(whole) >= DEATHS:
            self._give_up(portion, None, fatal(self._reasons[whole]))
            portion.cells = []
        for cell in list(portion.cells or ()):
            if self._deaths_of(cell.id) >= DEATHS:
                self._give_up(portion, cell, fatal(self._reasons[cell.id]))
                portion.cells = [other for other in portion.cells or () if other is not cell]
        if portion.cells == []:
            self._finish(portion)
            return False
        return True

    def _finished(self, *, fresh: bool) -> set[str]:
        """Cells in the store; where it does not matter, as it was some seconds ago."""
        now = time.monotonic()
        if fresh or now - self._looked[0] > _LOOK_SECONDS:
            self._runner.store.place.refresh()
            self._looked = (now, self._runner.store.finished())
        return self._looked[1]

    def _shared(self, hand: Hand) -> Portion | None:
        """A part of what another worker has before it, for one that has nothing."""
        busy = [h for h in self._hands if h.portion and h.need == hand.need and len(h.todo) > 1]
        other = max(busy, key=self._spare, default=None)
        if other is None or other.portion is None or not self._spare(other):
            return None
        cells = split_off(other.portion, other.todo, other.load_seconds, self._costs)
        return Portion(work=other.portion.work, need=hand.need, cells=cells) if cells else None

    # ---- answers

    def _hear(self, hand: Hand) -> None:
        if hand not in self._hands:
            return
        call = hand.calls[0]
        try:
            answer: Answer = self._ray.get(call.ref)
        except self._ray.exceptions.RayError as error:
            self._lose(hand, call, " ".join(str(error).split()))
            return
        hand.calls.popleft()
        hand.since = time.monotonic()
        if answer.stop is not None:
            raise answer.stop
        for label, reason in answer.failures:
            self._runner.failed += 1
            self._runner.progress.failed(label, reason)
        for note in answer.notes:
            self._note(note)
        if call.what == "start":
            hand.started, hand.node, self._died_at_start = True, answer.node, 0
        elif call.what == "leave":
            assert hand.portion is not None
            self._finish(hand.portion)
            hand.before, hand.portion = hand.portion.model, None
        else:
            if call.what == "take":
                hand.todo, hand.load_seconds = list(answer.cells), answer.seconds
            elif call.cell is not None and hand.portion is not None and not answer.failures:
                self._count(hand.portion, call.cell, answer.seconds)
            self._feed(hand)

    def _feed(self, hand: Hand) -> None:
        while hand.todo and len(hand.calls) < _IN_FLIGHT:
            cell = hand.todo.pop(0)
            hand.order("measure", cell.id, cell=cell)
        if not hand.calls:
            hand.order("leave")

    def _count(self, portion: Portion, cell: Cell, seconds: float) -> None:
        self._costs.learn(cell, portion.parameters, seconds)
        self._runner.done += 1
        self._runner.progress.done(f"{portion.name} {cell.probe} {cell.subject}")

    def _lose(self, hand: Hand, call: Call, reason: str) -> None:
        """A worker has died: what it was at is done again."""
        self._dismiss(hand)
        if not hand.started:
            self._died_at_start += 1
            if self._died_at_start >= _STARTS:
                raise WorkersLost(
                    "workers die before they begin.",
                    asked=reason,
                    remedy="look into Ray's logs, and see that isoloss is installed on every node",
                )
            return
        if (portion := hand.portion) is None:
            return
        if call.what != "take":
            portion.cells = hand.left
        key = call.cell.id if call.cell else checkpoint_key(portion.name)
        self._deaths[key].append(hand.node)
        self._reasons[key] = reason
        what = f"{call.cell.probe} {call.cell.subject}" if call.cell else "loading"
        self._note(f"a worker was lost at {portion.name} {what}; it is done again")
        now, again = time.monotonic(), len(self._deaths[key]) >= DEATHS
        self._queue.put(portion, now + self._patience.verdict_seconds if again else now)

    def _deaths_of(self, key: str) -> int:
        """Workers that a cell has ended: those that died with their node are not its fault."""
        if len(self._deaths.get(key, ())) < DEATHS:
            return 0
        living = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        return sum(node in living for node in self._deaths[key])

    def _stop_overdue(self, hand: Hand) -> None:
        limit, now = self._study.run.cell_seconds, time.monotonic()
        if limit is None or hand.portion is None or not hand.calls or now - hand.since <= limit:
            return
        call = hand.calls[0]
        self._dismiss(hand)
        self._give_up(hand.portion, call.cell, overdue(self._study))
        left = [cell for cell in hand.left if cell is not call.cell]
        hand.portion.cells = left if call.cell else []  # what hung was the loading
        self._queue.put(hand.portion, now)

    # ---- ends

    def _give_up(self, portion: Portion, cell: Cell | None, error: IsolossError) -> None:
        failure = Failure.of(error, portion.name, cell)
        self._runner.store.put_failure(failure)
        self._never.add(failure.cell)
        self._runner.failed += 1
        what = f"{portion.name} {cell.probe} {cell.subject}" if cell else portion.name
        self._runner.progress.failed(what, failure.reason)

    def _finish(self, portion: Portion) -> None:
        self._open[portion.name] -= 1
        if self._open[portion.name] <= 0:
            del self._open[portion.name]
            self._leases.release(portion.name)

    def _note(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._runner.progress.note(text)
