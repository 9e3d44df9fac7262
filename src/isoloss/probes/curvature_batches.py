"""Batches as a curvature probe reads them: rows, and what is asked at each place of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isoloss.errors import BadRequest
from isoloss.scoring.encoder import is_masked

IGNORED = -100  # the label of a place where nothing is asked, as in transformers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Sequences and the tokens that are asked of a model, aligned with its logits.

    Attributes:
        inputs: what the model is called with, tensors (rows, seq).
        labels: the token that the logits of a place should name, (rows, seq); -100 asks nothing.
        target_probs: the distribution they should give instead, (rows, seq, vocab); None takes
            the labels.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor
    target_probs: Tensor | None

    @property
    def tokens(self) -> int:
        """Asked tokens."""
        return int((self.labels != IGNORED).sum())

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, start: int, stop: int, *, trim: bool) -> Rows:
        """Some of the rows, where ``trim`` allows without the places after the last asked one."""
        labels = self.labels[start:stop]
        asked = (labels != IGNORED).any(dim=0)
        end = int(asked.nonzero().max()) + 1 if trim and bool(asked.any()) else labels.shape[1]
        width = labels.shape[1]
        inputs = {
            name: value[start:stop, :end] if value.shape[1:2] == (width,) else value[start:stop]
            for name, value in self.inputs.items()
        }
        probs = self.target_probs
        return Rows(
            inputs=inputs,
            labels=labels[:, :end],
            target_probs=None if probs is None else probs[start:stop, :end],
        )


def read_batches(model: nn.Module, batches: Sequence[Mapping[str, Any]]) -> list[Rows]:
    """Check batches and align their labels with the model's logits.

    A causal model shifts inside, as in transformers: the label of a place is asked of the place
    before. The last token is then only predicted, and the model does not read it.

    Args:
        model: causal or masked; its device receives the batches.
        batches: each with ``input_ids`` and ``labels``, int (rows, seq), -100 where nothing is
            asked; ``label_probs``, (rows, seq, vocab), in place of the labels' one-hot vectors;
            anything else is handed to the model.

    Returns:
        One entry a batch, none of which asks nothing.

    Raises:
        BadRequest: there is no batch, nothing is asked, or shapes do not fit.
    """
    device = next(model.parameters()).device
    found = [_read(batch, number, model, device) for number, batch in enumerate(batches)]
    found = [rows for rows in found if rows.tokens]
    if not found:
        raise BadRequest(
            "the batches ask nothing of the model.",
            asked=f"{len(batches)} batches, every label -100" if batches else "no batch",
            remedy="give labels: a copy of input_ids for causal models",
        )
    return found


def _read(batch: Mapping[str, Any], number: int, model: nn.Module, device: torch.device) -> Rows:
    inputs = {k: v.to(device) for k, v in batch.items() if k not in ("labels", "label_probs")}
    if "labels" not in batch or "input_ids" not in inputs:
        raise BadRequest(
            f"batch {number} lacks input_ids or labels.",
            asked=", ".join(batch) or "an empty batch",
            remedy='give {"input_ids": ..., "labels": ...}, labels -100 where nothing is asked',
        )
    labels, ids = batch["labels"].to(device), inputs["input_ids"]
    if labels.shape != ids.shape or labels.ndim != 2:
        raise BadRequest(
            f"batch {number}: labels and input_ids differ in shape.",
            asked=f"labels {tuple(labels.shape)}, input_ids {tuple(ids.shape)}",
            nearest=f"labels {tuple(ids.shape)}",
            remedy="one label for every token, -100 where nothing is asked",
        )
    probs = batch.get("label_probs")
    probs = None if probs is None else probs.to(device)
    if is_masked(model):
        return Rows(inputs=inputs, labels=labels, target_probs=probs)
    width = labels.shape[1]
    inputs = {k: v[:, :-1] if v.shape[1:2] == (width,) else v for k, v in inputs.items()}
    return Rows(
        inputs=inputs, labels=labels[:, 1:], target_probs=None if probs is None else probs[:, 1:]
    )


def split(batches: Sequence[Rows], rows: int, *, trim: bool) -> list[Rows]:
    """Cut batches into groups of at most so many rows.

    Args:
        batches: as read.
        rows: in a group; no group reaches over two batches.
        trim: whether padding after the last asked place may go, as before a causal model.

    Returns:
        The groups that ask something, in order.
    """
    groups = [
        batch.part(at, at + rows, trim=trim)
        for batch in batches
        for at in range(0, len(batch), rows)
    ]
    return [group for group in groups if group.tokens]


def asked_logits(model: nn.Module, rows: Rows) -> Tensor:
    """Logits at the asked places, (tokens, vocab), at least float32, with their graph."""
    options: dict[str, Any] = {} if is_masked(model) else {"use_cache": False}
    logits: Tensor = model(**rows.inputs, **options).logits[rows.labels != IGNORED]
    return logits if logits.dtype == torch.float64 else logits.float()


def summed_loss(model: nn.Module, rows: Rows) -> Tensor:
    """Cross-entropy summed over the asked tokens, in nats, with its graph."""
    logits = asked_logits(model, rows)
    asked = rows.labels != IGNORED
    target = rows.labels[asked]
    if rows.target_probs is not None:
        target = rows.target_probs[asked].to(logits.dtype)
    return F.cross_entropy(logits, target, reduction="sum")
