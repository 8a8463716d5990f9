"""Where results come from: command, versions, commit, data, model."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from qtable.jpeg.codec import Codec
from qtable.photos.sets import SPLITS, ImageSet
from qtable.tasks.base import DifferentiableTask
from qtable.tasks.opening import weights_digest


def header_of(images: ImageSet, model: str | None, task: DifferentiableTask, codec: Codec) -> dict[str, Any]:
    """What an archive says first: where everything came from. The caller adds its plan to the identity."""
    return {
        "identity": {
            "data": images.fingerprint,
            "model": f"{model or 'embedded'} {weights_digest(task.model)[:16]}",
            "metric": task.metric,
            "codec": codec.to_dict(),
        },
        "command": _command(),
        "versions": _versions(),
        "commit": _commit(),
        "photos": {"source": images.source, **{name: len(images[name]) for name in SPLITS}},
        "skipped": images.skipped,
    }


def _command() -> str:
    return shlex.join(["qtable", *sys.argv[1:]])


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("qtable", "numpy", "pillow", "torch", "scipy")}


def _commit() -> str | None:
    """The commit of the source tree that runs, if it is a git checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
