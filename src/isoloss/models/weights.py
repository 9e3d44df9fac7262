"""New weights into a module that is already there: a sweep over one run builds its model once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open

from isoloss.errors import BadRequest
from isoloss.family import Source
from isoloss.models.cache import CheckpointCache
from isoloss.models.files import LocalFiles, read_config, weight_names
from isoloss.models.headers import read_header
from isoloss.models.load import build_model, check_finite, local_folder
from isoloss.models.parameters import is_parameter
from isoloss.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# facts about the file or the call, not about the function the weights make
_IMMATERIAL = {
    "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache",
    "_commit_hash",
}  # fmt: skip


# GPT-NeoX files keep the name that its module had in transformers 4
_RENAMED = {"embed_out.weight": "lm_head.weight"}


def copy_weights(
    model: PreTrainedModel, source: Source, *, cache: CheckpointCache | None = None
) -> None:
    """Put a checkpoint's weights into a model of the same config, in the model's own dtype.

    The result equals a fresh :func:`isoloss.models.load.load`. Where the stored names are the
    module's own, tensors are copied one by one; else the checkpoint is built and copied whole,
    at twice the memory. After an error the module may hold a mixture: load it again.

    Args:
        model: receives the weights; its gradients stay off or on as they were.
        source: where they lie.
        cache: where downloads go.

    Raises:
        BadRequest: the checkpoint has another config; the keys are named. Nothing was copied.
        BadCheckpoint: a file is broken, weights do not match the config, or one is not finite.
        CheckpointMissing: the folder or revision is not there.
    """
    with local_folder(source, cache=cache) as folder:
        _check_config(model, folder)
        stored = _stored_tensors(folder)
        with torch.no_grad():
            if _is_direct(model, stored):
                _copy_stored(model, folder, stored)
            else:
                _copy_built(model, folder)
        check_finite(model.state_dict().items(), folder)


def _check_config(model: PreTrainedModel, folder: Path) -> None:
    kind = read_config(LocalFiles(folder)).get("model_type")
    if kind != model.config.model_type:
        raise BadRequest(
            "the checkpoint is of another architecture than the model.",
            asked=f"model_type = {kind!r} in {folder}, {model.config.model_type!r} in the model",
            remedy="load this checkpoint as a model of its own",
        )
    with quiet_transformers():
        given = type(model.config).from_pretrained(str(folder), local_files_only=True).to_dict()
    mine = model.config.to_dict()
    differing = sorted(
        key for key in (given.keys() | mine.keys()) - _IMMATERIAL if given.get(key) != mine.get(key)
    )
    if differing:
        key = differing[0]
        raise BadRequest(
            f"the checkpoint's config differs from the model's in {', '.join(differing)}.",
            asked=f"{key} = {given.get(key)!r} in {folder}, {mine.get(key)!r} in the model",
            remedy="load this checkpoint as a model of its own",
        )


def _stored_tensors(folder: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the stored parameters, by file and name."""
    files = LocalFiles(folder)
    stored: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for shard in weight_names(files):
        for tensor in read_header(files, shard):
            if is_parameter(tensor):
                stored[shard][tensor.name] = tensor.shape
    return stored


def _is_direct(model: PreTrainedModel, stored: Mapping[str, Mapping[str, tuple[int, ...]]]) -> bool:
    """Whether each stored tensor is one tensor of the module, and every one of them is stored."""
    targets = model.state_dict()
    shapes = {
        _target(name, targets): shape for shard in stored.values() for name, shape in shard.items()
    }
    if any(name not in targets or targets[name].shape != shape for name, shape in shapes.items()):
        return False
    # transformers may transpose experts under an unchanged name
    if any("experts" in name for name in shapes):
        return False
    filled = [targets[name].data_ptr() for name in shapes]
    everything = {tensor.data_ptr() for tensor in targets.values() if tensor.numel()}
    return len(set(filled)) == len(filled) and everything <= set(filled)


def _target(name: str, targets: Mapping[str, torch.Tensor]) -> str:
    return name if name in targets else _RENAMED.get(name, name)


def _copy_stored(
    model: PreTrainedModel, folder: Path, stored: Mapping[str, Mapping[str, tuple[int, ...]]]
) -> None:
    targets = model.state_dict()
    for shard, names in stored.items():
        with safe_open(folder / shard, framework="pt", device="cpu") as file:
            for name in names:
                targets[_target(name, targets)].copy_(file.get_tensor(name))


def _copy_built(model: PreTrainedModel, folder: Path) -> None:
    given = build_model(folder, model.dtype).state_dict()
    targets = model.state_dict()
    if _ties(given) != _ties(targets):
        raise BadRequest(
            "the checkpoint's tensors are named or tied differently from the model's.",
            asked=str(folder),
            remedy="load this checkpoint as a model of its own",
        )
    for name, target in targets.items():
        target.copy_(given[name])


def _ties(tensors: Mapping[str, torch.Tensor]) -> set[frozenset[str]]:
    groups: dict[tuple[int, torch.Size], set[str]] = defaultdict(set)
    for name, tensor in tensors.items():
        groups[tensor.data_ptr(), tensor.shape].add(name)
    return {frozenset(names) for names in groups.values()}
