"""A checkpoint made ready to be measured: weights, tokenizer and config that fit together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from isoloss.errors import BadCheckpoint, BadRequest, nearest_name
from isoloss.family import Foreign, Hub, Remote, Source
from isoloss.models.cache import CheckpointCache, default_cache
from isoloss.models.converted import hold_converted
from isoloss.models.files import LocalFiles, open_files, read_config, weight_names
from isoloss.models.headers import read_header
from isoloss.models.parameters import OTHER_HEADS
from isoloss.models.quiet import quiet_transformers
from isoloss.models.tokenizer import load_tokenizer_of, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

SPREAD = "cuda:all"
"""The device of a model that lies on all GPUs which a process sees, layer by layer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model in evaluation mode, without gradients, with its tokenizer and config."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    config: PreTrainedConfig


def load(
    source: Source, *, dtype: str, device: str, cache: CheckpointCache | None = None
) -> Loaded:
    """Load a checkpoint; of a hub repository it is downloaded first.

    An encoder (BERT and its kin) is loaded with its masked-language-model head, everything else
    as a causal model; an architecture that is known as both is causal only where its config says
    ``is_decoder``. Code that comes with a checkpoint is never run. Memory peaks near one copy
    of the weights in ``dtype``, beside the file's pages, which the system can drop.

    Args:
        source: where the checkpoint lies.
        dtype: float32, float64, bfloat16 or float16, whatever the file holds.
        device: such as ``cpu``, ``cuda:0`` or ``cuda:all``.
        cache: where downloads go; the user's cache folder, without a limit, where None.

    Returns:
        The model, tokenizer and config, checked against one another.

    Raises:
        BadCheckpoint: a file is missing or broken, weights and config do not match, a weight is
            NaN or infinite, or the tokenizer has more tokens than the embedding.
        CheckpointMissing: the folder or revision is not there.
        BadRequest: there is no such dtype.
    """
    kind = torch_dtype(dtype)
    with local_folder(source, cache=cache) as folder:
        _check_files(folder)
        tokenizer = load_tokenizer_of(folder)
        model = build_model(folder, kind, spread=device == SPREAD)
    _check_tokenizer(tokenizer, model, folder)
    check_finite(model.state_dict().items(), folder)
    model.requires_grad_(False)
    if device != SPREAD:
        # nn.Module: transformers leaves its own `to` untyped
        nn.Module.to(model, torch.device(device))
    return Loaded(model=model.eval(), tokenizer=tokenizer, config=model.config)


def load_tokenizer(
    source: Source, *, cache: CheckpointCache | None = None
) -> PreTrainedTokenizerFast:
    """The tokenizer alone; of a hub repository only the small files are downloaded.

    Raises:
        BadCheckpoint: there is none, or it cannot be read.
        CheckpointMissing: the folder or revision is not there.
    """
    with local_folder(source, cache=cache, weights=False) as folder:
        return load_tokenizer_of(folder)


@contextmanager
def local_folder(
    source: Source, *, cache: CheckpointCache | None = None, weights: bool = True
) -> Iterator[Path]:
    """The checkpoint as a folder on disk until the block ends, fetched or converted if need be."""
    if isinstance(source, Hub):
        with (cache or default_cache()).hold(source, weights=weights) as held:
            yield held.path
    elif isinstance(source, Foreign | Remote):
        with hold_converted(source, cache or default_cache(), weights=weights) as folder:
            yield folder
    else:
        yield Path(str(open_files(source)))


def torch_dtype(name: str) -> torch.dtype:
    """The torch type of that name.

    Raises:
        BadRequest: there is none among the supported ones.
    """
    if name not in DTYPES:
        raise BadRequest(
            "there is no such dtype.",
            asked=f"dtype = {name!r}",
            nearest=nearest_name(name, DTYPES),
            remedy=f"take one of {', '.join(DTYPES)}",
        )
    return DTYPES[name]


def build_model(folder: Path, dtype: torch.dtype, *, spread: bool = False) -> PreTrainedModel:
    """The model in a folder with all its weights in ``dtype``, tied as its config says.

    Args:
        folder: holds it.
        dtype: of its weights.
        spread: over all GPUs, in equal parts, instead of the processor's memory.

    Raises:
        BadCheckpoint: weights and config do not match, or transformers cannot read them.
    """
    from transformers import AutoConfig

    from isoloss.models import bilstm, heads

    bilstm.register()
    heads.register()
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
            model, report = auto_class(config).from_pretrained(
                str(folder),
                config=config,
                dtype=dtype,
                device_map="balanced" if spread else None,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are reported, and refused below
                output_loading_info=True,
            )
    except (MemoryError, torch.OutOfMemoryError, BadCheckpoint):
        raise
    # a config can be wrong in any way, and the architecture's code then raises anything
    except Exception as error:
        raise BadCheckpoint(
            f"no model can be built from config.json and the weights: {_first_line(error)}",
            asked=str(folder),
            remedy="copy config.json from another checkpoint of the same model; an architecture"
            " unknown to transformers, or one that brings its own code, cannot be loaded",
        ) from error
    _check_report(report, folder)
    _check_ties(model, folder)
    loaded: PreTrainedModel = model
    return loaded


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], folder: Path) -> None:
    """Make sure that no weight is NaN or infinite.

    Raises:
        BadCheckpoint: one is; the tensor is named.
    """
    for name, tensor in tensors:
        # NaN and infinity reach the sum: 6 against 119 ms for 26 million numbers
        if not tensor.is_floating_point() or torch.isfinite(tensor.sum()):
            continue
        # a sum of finite numbers may overflow too
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise BadCheckpoint(
                f"the weight {name} holds NaN or infinity.",
                asked=f"{bad:,} of {tensor.numel():,} elements as {tensor.dtype}, {folder}",
                remedy="the run may have diverged: take an earlier checkpoint"
                + ("; or try dtype bfloat16" if tensor.dtype is torch.float16 else ""),
            )


def _check_files(folder: Path) -> None:
    files = LocalFiles(folder)
    read_config(files)
    for name in weight_names(files):
        read_header(files, name)


def auto_class(config: PreTrainedConfig) -> Any:
    """The auto class of transformers whose model a config describes, with its language head.

    Raises:
        BadCheckpoint: it describes none with one stack of layers.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
    )

    names = config.architectures or []
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    if getattr(config, "is_encoder_decoder", False) or not (masked or causal):
        raise BadCheckpoint(
            f"{config.model_type} is no language model with one stack of layers.",
            asked=f"architectures = {names}",
            nearest="architectures that end in ForCausalLM or ForMaskedLM",
            remedy="take a causal or a masked language model",
        )
    if masked and causal:
        # such a class looks to both sides unless it is told to be a decoder, whatever its name
        named = any(name.endswith("ForMaskedLM") for name in names)
        causal = not named and getattr(config, "is_decoder", False)
    return AutoModelForCausalLM if causal else AutoModelForMaskedLM


def _check_report(report: dict[str, Any], folder: Path) -> None:
    faults = [
        ("missing", sorted(report["missing_keys"])),
        ("unexpected", sorted(k for k in report["unexpected_keys"] if not OTHER_HEADS.search(k))),
        (
            "of another shape",
            sorted(
                f"{name} is {tuple(stored)} and should be {tuple(wanted)}"
                for name, stored, wanted in report["mismatched_keys"]
            ),
        ),
    ]
    told = [f"{kind}: {_some(names)}" for kind, names in faults if names]
    if told:
        raise BadCheckpoint(
            "the weights do not match config.json.",
            asked=f"{folder}; {'; '.join(told)}",
            remedy="copy config.json from another checkpoint of the same model, or export again:"
            " the weights and the config must come from one model.save_pretrained(FOLDER)",
        )


def _check_ties(model: PreTrainedModel, folder: Path) -> None:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    tied = model.config.to_dict().get("tie_word_embeddings")
    if not tied or head is None or not model._tied_weights_keys:
        return
    if head.weight.shape == embedding.weight.shape and head.weight is not embedding.weight:
        # transformers unties in silence where the file holds two different matrices
        raise BadCheckpoint(
            "config.json ties the output head to the embedding, and the file holds two"
            " different matrices.",
            asked=str(folder),
            remedy='set "tie_word_embeddings": false in config.json if the model was trained'
            " untied, or remove the stored head",
        )


def _check_tokenizer(
    tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel, folder: Path
) -> None:
    rows, tokens = model.get_input_embeddings().weight.shape[0], vocabulary_size(tokenizer)
    if tokens > rows:
        raise BadCheckpoint(
            f"the tokenizer has {tokens:,} tokens and the embedding has {rows:,} rows.",
            asked=str(folder),
            remedy="put the tokenizer the model was trained with into the folder",
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
