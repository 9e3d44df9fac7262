"""What a safetensors file holds, from its first bytes alone: names, shapes and types."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from isoloss.errors import BadCheckpoint
from isoloss.models.files import Files

# one request fetches nearly every header of a hub file; a second one the rest
_FIRST_READ_BYTES = 100_000
_LONGEST_HEADER_BYTES = 100_000_000
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "C64": 64,
    "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One stored tensor: its name, shape and type as the file writes it, such as ``BF16``."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_header(files: Files, name: str) -> tuple[Tensor, ...]:
    """The tensors of one safetensors file, in the file's order; no weight is read.

    Args:
        files: the checkpoint.
        name: the file.

    Returns:
        Its tensors, at least one.

    Raises:
        BadCheckpoint: the file is truncated or is no safetensors file.
    """
    total = files.sizes()[name]
    start = files.read(name, 0, min(total, _FIRST_READ_BYTES))
    length = int.from_bytes(start[:8], "little")
    if total < 10 or length > _LONGEST_HEADER_BYTES:
        raise _broken(files, name, "its first bytes are no safetensors header")
    if 8 + length > total:
        raise _broken(files, name, f"its header alone needs {8 + length:,} bytes", total)
    text = start[8 : 8 + length]
    if len(text) < length:
        text += files.read(name, 8 + len(text), length - len(text))
    try:
        tensors, data_bytes = _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _broken(files, name, "its header is not what the format asks for") from error
    if not tensors:
        raise _broken(files, name, "it holds no tensor")
    expected = 8 + length + data_bytes
    if total != expected:
        raise _broken(files, name, f"its header promises {expected:,} bytes", total)
    return tensors


def _parse(header: dict[str, Any]) -> tuple[tuple[Tensor, ...], int]:
    tensors, end = [], 0
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor = Tensor(name=name, shape=tuple(map(int, entry["shape"])), dtype=entry["dtype"])
        first, last = entry["data_offsets"]
        if (last - first) * 8 != tensor.size * _BITS[tensor.dtype] or first < 0:
            raise ValueError(f"{name} has {last - first} bytes for shape {tensor.shape}")
        tensors.append(tensor)
        end = max(end, last)
    return tuple(tensors), end


def _broken(files: Files, name: str, fault: str, total: int | None = None) -> BadCheckpoint:
    has = "" if total is None else f" and the file has {total:,}"
    return BadCheckpoint(
        f"the weight file {name} is broken: {fault}{has}.",
        asked=f"{files}/{name}",
        remedy="copy or download this file again; a training run may have died while writing it",
    )
