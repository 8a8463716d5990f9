"""Values whose class a file names: a registry of classes by name, whose modules are loaded when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Kinds(Generic[T]):
    """Classes by name. noun: what they are, for messages. own: the modules of those that come with qtable."""

    def __init__(self, noun: str, own: Mapping[str, str]) -> None:
        self._noun, self._own = noun, own
        self._classes: dict[str, type[T]] = {}

    def add(self, name: str, kind: type[T]) -> None:
        """Under this name `of` finds it; of two the later one."""
        self._classes[name] = kind

    def of(self, data: Mapping[str, Any]) -> type[T]:
        """The class that data["kind"] names. ValueError for one that is neither qtable's nor of a loaded module."""
        name = str(data["kind"])
        if name in self._own:
            importlib.import_module(self._own[name])
        if name not in self._classes:
            known = ", ".join(sorted({*self._own, *self._classes}))
            raise ValueError(f"{self._noun} of kind {name!r:.40}: unknown here; known: {known}")
        return self._classes[name]
