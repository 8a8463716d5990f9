"""Strangers' text, fit to be shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` with escapes for what a terminal must not get: control characters, and bytes that are not UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
