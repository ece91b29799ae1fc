"""Metrics: one value a row, computed after the search; the first readers of the truth."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pulse_exp.metrics.base import (
        Metric,
        MetricUnavailable,
        Restoration,
        load,
        measure,
        measure_run,
    )
    from pulse_exp.metrics.naturalness import niqe

__all__ = [
    "Metric",
    "MetricUnavailable",
    "Restoration",
    "load",
    "measure",
    "measure_run",
    "niqe",
]


def __getattr__(name: str) -> Any:
    """Imports on first use: `pulse_exp.metrics.catalog` is read where there is no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "naturalness" if name == "niqe" else "base"
    return getattr(import_module(f"{__name__}.{module}"), name)
