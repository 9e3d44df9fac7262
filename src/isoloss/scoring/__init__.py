"""A model and requests in, log-likelihoods out: the fast core of every measurement."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isoloss.scoring.encode import TokenPair, encode_pairs, move_spaces, prefix_token_id
    from isoloss.scoring.generation import Generation
    from isoloss.scoring.harness import HarnessLM
    from isoloss.scoring.requests import Requests
    from isoloss.scoring.scorer import Loglikelihood, Scorer

__all__ = [
    "Generation",
    "HarnessLM",
    "Loglikelihood",
    "Requests",
    "Scorer",
    "TokenPair",
    "encode_pairs",
    "move_spaces",
    "prefix_token_id",
]

_HOMES = {
    "Generation": "generation",
    "HarnessLM": "harness",
    "Loglikelihood": "scorer",
    "Requests": "requests",
    "Scorer": "scorer",
    "TokenPair": "encode",
    "encode_pairs": "encode",
    "move_spaces": "encode",
    "prefix_token_id": "encode",
}


def __getattr__(name: str) -> object:
    # lazy: the harness costs seconds to import and torch is not needed to encode
    if name not in _HOMES:
        raise AttributeError(f"module 'isoloss.scoring' has no attribute {name!r}")
    return getattr(import_module(f"isoloss.scoring.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
