"""Live watch for other people's training loops: is this run about to saturate?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isoloss.monitor.trainer_callback import SaturationCallback
    from isoloss.monitor.warning_rule import ForecastBand, WarningRule
    from isoloss.monitor.watcher import Look, SaturationWarning, Watcher, watch

_HOME = {
    "ForecastBand": "warning_rule",
    "Look": "watcher",
    "SaturationCallback": "trainer_callback",
    "SaturationWarning": "watcher",
    "WarningRule": "warning_rule",
    "Watcher": "watcher",
    "watch": "watcher",
}

__all__ = [
    "ForecastBand",
    "Look",
    "SaturationCallback",
    "SaturationWarning",
    "WarningRule",
    "Watcher",
    "watch",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
