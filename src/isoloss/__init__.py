"""What a language model's pre-training loss tells you, and what it hides.

Names are loaded when first used: ``import isoloss`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoloss.engine.local import run
    from isoloss.engine.plan import plan
    from isoloss.estimate import Estimate
    from isoloss.family import Checkpoint, Family, Model, Run
    from isoloss.store import Store
    from isoloss.study import Study

__version__ = "0.1.0"

_HOMES = {
    "Checkpoint": "isoloss.family",
    "Estimate": "isoloss.estimate",
    "Family": "isoloss.family",
    "Model": "isoloss.family",
    "Run": "isoloss.family",
    "Store": "isoloss.store",
    "Study": "isoloss.study",
    "plan": "isoloss.engine.plan",
    "run": "isoloss.engine.local",
}

__all__ = ["Checkpoint", "Estimate", "Family", "Model", "Run", "Store", "Study", "plan", "run"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'isoloss' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
