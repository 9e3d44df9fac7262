"""The watch as a callback of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from isoloss.errors import BadRequest
from isoloss.monitor.warning_rule import WarningRule
from isoloss.monitor.watch_rows import WatchedRun
from isoloss.monitor.watcher import Batch, Forecast, Look, Watcher

_EXAMPLES = 8


class SaturationCallback(TrainerCallback):  # type: ignore[misc]
    """Looks at the model every so many steps; see :class:`isoloss.monitor.Watcher`.

    The loss of a look is the mean of the Trainer's logged losses since the last one: let it log at
    least as often as it is looked at. Only the first process looks.

    >>> callback = SaturationCallback(every=100)
    >>> callback.looks
    []

    Args:
        batch: to look at, the same at every look; the first eight examples of the training data,
            collated, where None.
        every: steps between looks.
        store: a folder for the rows; None keeps none.
        run: names in the store.
        forecast: low and high loss expected at a step.
        outside: looks in a row outside the forecast that make an alarm.
        rule: of the saturation warning.
        most_tokens: of the batch that are looked at.
    """

    def __init__(
        self,
        *,
        batch: Batch | None = None,
        every: int = 100,
        store: str | Path | None = None,
        run: WatchedRun | None = None,
        forecast: Forecast | None = None,
        outside: int = 3,
        rule: WarningRule | None = None,
        most_tokens: int = 1024,
    ) -> None:
        self._batch = batch
        self._watcher = Watcher(
            every=every,
            store=store,
            run=run,
            forecast=forecast,
            outside=outside,
            rule=rule,
            most_tokens=most_tokens,
        )

    @property
    def looks(self) -> list[Look]:
        """So far."""
        return self._watcher.looks

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look, unless this step is logged: then its loss comes first."""
        if not _logs(args, state):
            self._look(state, kwargs)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take a logged loss, and look where its step is due."""
        loss = (kwargs.get("logs") or {}).get("loss")
        if loss is None:  # such as the summary at the end
            return
        self._watcher.take_loss(float(loss))
        if _logs(args, state):
            self._look(state, kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """File what still waits for the store."""
        self._watcher.close()

    def _look(self, state: Any, given: dict[str, Any]) -> None:
        step = int(state.global_step)
        done = bool(self.looks) and self.looks[-1].step == step
        if step % self._watcher.every or done or not state.is_world_process_zero:
            return
        if self._batch is None:
            self._batch = _first_examples(given.get("train_dataloader"))
        self._watcher.look(given["model"], self._batch, step)


def _logs(args: Any, state: Any) -> bool:
    """Whether the Trainer logs at this step, as its own flow callback decides."""
    strategy = str(getattr(args.logging_strategy, "value", args.logging_strategy))
    if strategy != "steps":
        return False
    first = bool(args.logging_first_step) and state.global_step == 1
    return first or int(state.global_step) % int(state.logging_steps) == 0


def _first_examples(loader: Any) -> Batch:
    """The first examples of the training data; no random number of the training is drawn."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise BadRequest(
            "there is no telling which tokens to look at: the training data is a stream.",
            asked=f"{type(dataset).__name__}, batch=None",
            remedy="give SaturationCallback a batch of token ids",
        )
    # a collator may mask at random
    with torch.random.fork_rng(devices=[]):
        examples = [dataset[i] for i in range(min(_EXAMPLES, len(dataset)))]
        batch: Batch = loader.collate_fn(examples)
    return batch
