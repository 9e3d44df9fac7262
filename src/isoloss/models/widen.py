"""A small model as a point of a larger architecture, where it computes the same function.

Traces of the Hessian of models of different sizes live in spaces of different dimension. A small
transformer is embedded in the larger architecture before they are compared: every coordinate of
its residual stream, every head and every hidden neuron stands there several times, and what is
summed over the copies is divided by their number. Layers that the small model lacks are zero, so
that their residual branch adds nothing.

The embedding is one of many that leave the function as it is, and the trace depends on which:
say so beside every comparison of sizes.

Reference:
    Liu, Xie, Li and Ma (2023), Same Pre-training Loss, Better Downstream, appendix B.3 and B.4;
    enlarge.py of their code. Their rule relies on the normalisation that BERT puts on its
    embeddings. GPT-NeoX and Llama have none: their residual stream is that of the small model
    over the ratio r of the widths, so that whatever writes to it is divided by r once more and
    the constant inside every normalisation, which reads it, by r squared.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from isoloss.errors import BadRequest
from isoloss.models.load import auto_class
from isoloss.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_LAYER = re.compile(r"\.layers?\.(\d+)\.")


class _Rule(NamedTuple):
    """What differs between architectures.

    Attributes:
        writers: ends of the names of weights whose output is added to the residual stream, where
            no normalisation of the embeddings has undone the division by the ratio.
        eps: the config's name of the constant in the normalisations.
        fixed: further fields of the config that decide the function and must be equal.
    """

    writers: tuple[str, ...]
    eps: str
    fixed: tuple[str, ...]


_RULES = {
    "RobertaPreLayerNormForMaskedLM": _Rule(
        (), "layer_norm_eps", ("type_vocab_size", "pad_token_id", "is_decoder")
    ),
    "GPTNeoXForCausalLM": _Rule(
        (".attention.dense.", ".mlp.dense_4h_to_h."),
        "layer_norm_eps",
        ("use_parallel_residual", "attention_bias", "rope_parameters"),
    ),
    "LlamaForCausalLM": _Rule(
        (".self_attn.o_proj.", ".mlp.down_proj."),
        "rms_norm_eps",
        ("attention_bias", "mlp_bias", "rope_parameters"),
    ),
}
_FIXED = ("model_type", "vocab_size", "hidden_act", "tie_word_embeddings")


def wider_config(
    config: PreTrainedConfig, *, width: int, depth: int | None = None
) -> PreTrainedConfig:
    """The config of a larger model of the same kind: heads and neurons grow with the width.

    Args:
        config: of the small model.
        width: hidden size, a multiple of the small model's.
        depth: layers; as many as the small model where None.

    Returns:
        A config for :func:`widen`; the size of a head stays.

    Raises:
        BadRequest: the width is no multiple, or the depth is smaller.
    """
    if width < 1 or width % config.hidden_size:
        raise _no_multiple(config.hidden_size, width)
    ratio = width // config.hidden_size
    larger = copy.deepcopy(config)
    larger.hidden_size = width
    larger.num_attention_heads *= ratio
    larger.intermediate_size *= ratio
    if hasattr(larger, "num_key_value_heads"):
        larger.num_key_value_heads *= ratio
    larger.num_hidden_layers = config.num_hidden_layers if depth is None else depth
    _check_depth(config, larger)
    return larger


def widen(model: PreTrainedModel, larger: PreTrainedConfig) -> PreTrainedModel:
    """Embed a model in a larger architecture without changing its function.

    Logits agree to rounding, in evaluation mode: about 1e-6 in float32, 1e-12 in float64 but for
    Llama, whose normalisation transformers computes in float32 whatever the weights' type.
    Gradients map back exactly: with W the linear map of the weights, the small model's gradient
    is W transposed times the larger one's.

    The constant in the normalisations is divided by the squared ratio in the new model's config
    for GPT-NeoX and Llama. BERT needs it in the normalisation of the embeddings alone, which no
    config can say: a BERT that is saved and loaded again has the old constant there, a relative
    change of its logits of about 1e-12 over the variance of an embedding.

    Args:
        model: GPT-NeoX, Llama or BERT with the normalisation first (RoBERTa-PreLayerNorm).
        larger: config of the architecture it is put into: of a larger model, or of
            :func:`wider_config`. Its width is a multiple, its heads have the same size, it has
            at least as many neurons a layer, positions and layers; all else is equal. Positions
            beyond the small model's repeat its own.

    Returns:
        A new model of that config on the same device, of the same dtype and mode.

    Raises:
        BadRequest: the architecture is another one, or the model cannot be embedded in this one.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> config = LlamaConfig(vocab_size=9, hidden_size=4, intermediate_size=6,
    ...     num_hidden_layers=1, num_attention_heads=2)
    >>> small = LlamaForCausalLM(config).eval()
    >>> large = widen(small, wider_config(config, width=8, depth=3))
    >>> ids = torch.tensor([[1, 2, 3]])
    >>> bool(torch.allclose(small(ids).logits, large(ids).logits, atol=1e-5))
    True
    """
    rule = _rule_of(model)
    _check_fit(model.config, larger, rule)
    ratio = larger.hidden_size // model.config.hidden_size
    config = copy.deepcopy(larger)
    config.architectures = model.config.architectures
    if rule.writers:
        setattr(config, rule.eps, getattr(model.config, rule.eps) / ratio**2)
    large = _empty(config, model)
    if not rule.writers:
        # after it the stream is the small model's, not divided by anything
        large.base_model.embeddings.LayerNorm.eps = getattr(model.config, rule.eps) / ratio**2
    weights = widened_weights(model, dict(model.state_dict()), dict(large.state_dict()))
    large.load_state_dict(weights, strict=True)
    for parameter in large.parameters():
        parameter.requires_grad_(any(p.requires_grad for p in model.parameters()))
    return large.train(model.training)


def widened_weights(
    model: PreTrainedModel, weights: Mapping[str, Tensor], like: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The linear map that :func:`widen` applies to the weights; gradients flow through it.

    Args:
        model: the small model; its own weights are not read.
        weights: the small model's, by their names in it.
        like: the larger model's, of which only the shapes are used.

    Returns:
        Weights by the names of ``like``.

    Raises:
        BadRequest: the architecture is another one.
    """
    writers, depth = _rule_of(model).writers, model.config.num_hidden_layers
    # the first matrix is the token embedding, whose columns are the residual stream
    width = next(large.shape[1] for large in like.values() if large.ndim == 2)
    found = {}
    for name, large in like.items():
        layer = _LAYER.search(name)
        if layer is not None and int(layer[1]) >= depth:
            found[name] = torch.zeros_like(large)
            continue
        writes = any(part in name for part in writers)
        spread = _spread(weights[name], large.shape)
        found[name] = spread * (model.config.hidden_size / width) if writes else spread
    return found


def _spread(small: Tensor, shape: torch.Size) -> Tensor:
    """Repeat a weight along both axes, dividing by how often each input stands there.

    Index i of the larger axis is index ``i mod m`` of the small one. Tables of embeddings count
    as matrices that read nothing and whose columns are divided too: what a tied head wants.
    """
    rows = torch.arange(shape[0], device=small.device) % small.shape[0]
    if small.ndim == 1:
        return small[rows]
    columns = torch.arange(shape[1], device=small.device) % small.shape[1]
    copies = torch.bincount(columns)[columns].to(small.dtype)
    return small[rows][:, columns] / copies


def _empty(config: PreTrainedConfig, model: PreTrainedModel) -> PreTrainedModel:
    # transformers draws first weights from torch's global generator, which is put back
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        large = auto_class(config).from_config(
            config, dtype=model.dtype, attn_implementation=model.config._attn_implementation
        )
    # nn.Module: transformers leaves its own `to` untyped
    nn.Module.to(large, model.device)
    found: PreTrainedModel = large
    return found


def _rule_of(model: nn.Module) -> _Rule:
    name = type(model).__name__
    if name not in _RULES:
        raise BadRequest(
            "no rule embeds this architecture in a larger one",
            asked=name,
            nearest=", ".join(_RULES),
            remedy="compare models of one size, or train one of these architectures",
        )
    return _RULES[name]


def _check_fit(small: PreTrainedConfig, larger: PreTrainedConfig, rule: _Rule) -> None:
    for field in (*_FIXED, rule.eps, *rule.fixed):
        one, other = getattr(small, field, None), getattr(larger, field, None)
        if one != other:
            raise BadRequest(
                f"the architectures differ in {field}, which no weights can make up for",
                asked=f"{field} = {other!r}",
                nearest=f"{field} = {one!r}, the small model's",
                remedy="embed it in an architecture that differs in size alone",
            )
    if larger.hidden_size % small.hidden_size:
        raise _no_multiple(small.hidden_size, larger.hidden_size)
    _check_heads(small, larger)
    _check_depth(small, larger)
    for field in ("intermediate_size", "max_position_embeddings"):
        if getattr(larger, field) < getattr(small, field):
            raise BadRequest(
                f"the architecture is smaller in {field}",
                asked=f"{field} = {getattr(larger, field)}",
                nearest=f"{field} = {getattr(small, field)} or more",
                remedy="embed the smaller model in the larger one",
            )


def _check_heads(small: PreTrainedConfig, larger: PreTrainedConfig) -> None:
    sizes = [_head_size(config) for config in (small, larger)]
    if sizes[0] != sizes[1]:
        raise BadRequest(
            "the heads differ in size, and with it what a rotation or a score means",
            asked=f"heads of {sizes[1]} numbers",
            nearest=f"{larger.hidden_size // sizes[0]} heads of {sizes[0]} numbers",
            remedy="choose a number of heads that leaves their size",
        )
    counts = [
        (c.num_attention_heads, getattr(c, "num_key_value_heads", None) or c.num_attention_heads)
        for c in (small, larger)
    ]
    (heads, keys), (more_heads, more_keys) = counts
    if more_heads % heads or more_heads * keys != more_keys * heads:
        raise BadRequest(
            "heads, or the keys that they share, are no multiple of the small model's",
            asked=f"{more_heads} heads on {more_keys} keys",
            nearest=f"{heads * (larger.hidden_size // small.hidden_size)} heads on "
            f"{keys * (larger.hidden_size // small.hidden_size)} keys",
            remedy="multiply both by the same number",
        )


def _head_size(config: PreTrainedConfig) -> int:
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)


def _check_depth(small: PreTrainedConfig, larger: PreTrainedConfig) -> None:
    if larger.num_hidden_layers < small.num_hidden_layers:
        raise BadRequest(
            "the architecture has fewer layers than the model",
            asked=f"{larger.num_hidden_layers} layers",
            nearest=f"{small.num_hidden_layers} or more",
            remedy="embed the shallower model in the deeper one",
        )


def _no_multiple(small: int, width: int) -> BadRequest:
    nearest = max(round(width / small), 1) * small
    return BadRequest(
        "the width is no multiple of the small model's: its normalisations would see some "
        "coordinates more often than others",
        asked=f"width {width} for a model of width {small}",
        nearest=f"width {nearest}",
        remedy="choose a multiple",
    )
