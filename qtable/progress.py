"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with (done, total) as long work goes on."""
Watch = Callable[[str, int, int, str], None]
"""Called as work goes on with (stage, done, total, a word on the best so far)."""
