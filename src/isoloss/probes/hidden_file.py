"""Final hidden states of a frozen backbone, computed once and kept in a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from isoloss.errors import BadCheckpoint
from isoloss.probes.curvature_batches import IGNORED
from isoloss.probes.rank_head import HiddenTokens
from isoloss.scoring.head import backbone_of, last_states

Batch = dict[str, Tensor]

_STATES, _TOKENS = "states.npy", "tokens.npz"


def write_hidden(model: nn.Module, batches: Iterable[Batch], folder: Path) -> HiddenTokens:
    """Run the backbone over batches and keep the states that the head reads.

    A batch is in memory at once; the file holds 4 bytes for each token and dimension.

    Args:
        model: causal, in evaluation mode.
        batches: ``input_ids`` and ``labels`` (batch, seq), labels as in transformers: -100 is
            left out, and the state at a token predicts the label after it.
        folder: where ``states.npy`` and ``tokens.npz`` go.

    Returns:
        The states mapped from the file; a row of a batch is a block.

    Raises:
        BadCheckpoint: the model does not hand out its last hidden states.
    """
    folder.mkdir(parents=True, exist_ok=True)
    backbone = backbone_of(model)
    device = next(model.parameters()).device
    targets, blocks = [], []
    rows = width = 0
    raw = folder / "states.raw"
    with raw.open("wb") as file:
        for batch in batches:
            with torch.no_grad():
                ids = batch["input_ids"].to(device)
                states = last_states(backbone(input_ids=ids)) if backbone is not None else None
            if states is None:
                raise BadCheckpoint(
                    "the model does not hand out its last hidden states.",
                    asked=type(model).__name__,
                    remedy="give a causal language model of transformers",
                )
            labels = batch["labels"][:, 1:]
            kept = labels != IGNORED
            found = states[:, :-1][kept.to(device)].float().cpu().numpy()
            file.write(np.ascontiguousarray(found).data)
            targets.append(labels[kept].numpy())
            number = torch.arange(rows, rows + len(labels))[:, None].expand_as(labels)
            blocks.append(number[kept].numpy())
            rows, width = rows + len(labels), states.shape[-1]
    target, block = np.concatenate(targets), np.concatenate(blocks)
    _with_header(raw, folder / _STATES, (len(target), width))
    np.savez(folder / _TOKENS, targets=target, block=block)
    return read_hidden(folder)


def read_hidden(folder: Path) -> HiddenTokens:
    """What :func:`write_hidden` wrote, its states mapped and not read."""
    with np.load(folder / _TOKENS, allow_pickle=False) as kept:
        return HiddenTokens(
            np.load(folder / _STATES, mmap_mode="r"), kept["targets"], kept["block"]
        )


def _with_header(raw: Path, path: Path, shape: tuple[int, int]) -> None:
    """Make an array file of raw float32 numbers, whose number is known only at the end."""
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    source = np.memmap(raw, dtype=np.float32, mode="r", shape=shape)
    for at in range(0, shape[0], 1 << 16):
        mapped[at : at + (1 << 16)] = source[at : at + (1 << 16)]
    mapped.flush()
    raw.unlink()
