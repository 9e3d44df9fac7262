"""Controlled families: small models trained on languages whose best loss is known."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isoloss.pretrain.families import FamilyRecord, RunRecord, read_family, train_family
    from isoloss.pretrain.family_file import FamilyConfig
    from isoloss.pretrain.trainer import Progress

_HOME = {
    "FamilyConfig": "family_file",
    "FamilyRecord": "families",
    "Progress": "trainer",
    "RunRecord": "families",
    "read_family": "families",
    "train_family": "families",
}

__all__ = [
    "FamilyConfig",
    "FamilyRecord",
    "Progress",
    "RunRecord",
    "read_family",
    "train_family",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
