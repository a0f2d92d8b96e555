"""The kinds of webhook sources, found by name: a module of this package that has an `ADAPTER` is a kind."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.capture.adapters.adapter import Adapter


@cache
def adapters() -> "Mapping[str, Adapter]":
    """Every adapter by its kind."""
    found: dict[str, Adapter] = {}
    for module in pkgutil.iter_modules(__path__):
        adapter: Adapter | None = getattr(importlib.import_module(f"{__name__}.{module.name}"), "ADAPTER", None)
        if adapter is not None:
            found[adapter.kind] = adapter
    return MappingProxyType(found)
