"""What a checkpoint is, from file headers and digests alone: no weight is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from isoloss.family import Source
from isoloss.models.files import Files, open_files, read_config, weight_names
from isoloss.models.headers import read_header
from isoloss.models.parameters import count_parameters

_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One weight file: its name, size and sha256."""

    name: str
    bytes: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is known of a checkpoint without loading it.

    Attributes:
        weights_hash: sha256 over the sorted (shard name, digest) pairs.
        shards: the weight files, by name.
        params_total: parameters in all, tied weights once.
        params_non_embedding: without embeddings, output head and learned positions.
        dtype: the type most parameters are stored in.
        bytes: size of the weight files.
        config: the content of ``config.json``.
        commit: the hub commit described, None for a folder.
    """

    weights_hash: str
    shards: tuple[Shard, ...]
    params_total: int
    params_non_embedding: int
    dtype: str
    bytes: int
    config: dict[str, Any]
    commit: str | None = None


def describe(source: Source) -> Description:
    """Describe a checkpoint from file headers and digests.

    A folder's files are hashed (once, see ``digests``); of a hub repository the listed digests
    are taken and only headers are fetched. The same files give the same hash in both.

    Raises:
        BadCheckpoint: the config, a shard or a header is missing or broken.
        CheckpointMissing: the folder or revision is not there.
    """
    files = open_files(source)
    config = read_config(files)
    names = weight_names(files)
    tensors = [tensor for name in names for tensor in read_header(files, name)]
    count = count_parameters(tensors, config)
    # headers first: a truncated file is found before gigabytes are hashed
    shards = shards_of(files)
    return Description(
        weights_hash=hash_shards(shards),
        shards=shards,
        params_total=count.total,
        params_non_embedding=count.non_embedding,
        dtype=_DTYPES.get(count.dtype, count.dtype.lower()),
        bytes=sum(shard.bytes for shard in shards),
        config=config,
        commit=files.commit,
    )


def shards_of(files: Files) -> tuple[Shard, ...]:
    """The weight files of a checkpoint with their digests, by name.

    Raises:
        BadCheckpoint: there are none, or one is missing.
    """
    sizes = files.sizes()
    return tuple(
        Shard(name=name, bytes=sizes[name], digest=files.digest(name))
        for name in weight_names(files)
    )


def hash_shards(shards: Iterable[Shard]) -> str:
    """The identity of a set of weight files: sha256 over the sorted (name, digest) pairs."""
    pairs = sorted((shard.name, shard.digest) for shard in shards)
    lines = "".join(f"{name}\0{digest}\n" for name, digest in pairs)
    return hashlib.sha256(lines.encode()).hexdigest()
