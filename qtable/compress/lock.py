"""One run for each target in a bucket: an object that says who writes, and that they still do."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from qtable.compress.sources import LOCK, CompressError
from qtable.storage import Remote, StorageError

BEAT_SECONDS: Final = 10
DEAD_SECONDS: Final = 60
"""A run that did not touch its lock for so long is gone. No clocks are compared: who finds it looks on so long."""


class Lock:
    """Held from the beginning until `release`. CompressError if another run holds it; StorageError.

    A dead run's is taken over, at once if it ran on this machine. Two that take over in the same moment, where the
    storage knows no conditional writes, may both get it; one of them then finds `lost`.
    """

    def __init__(self, folder: Remote) -> None:
        self._folder, self._token, self._beats = folder, secrets.token_hex(8), 0
        self.lost = False
        if not folder.write_new(LOCK, self._said()):
            self._wait()
            folder.write(LOCK, self._said())
        if not self._is_mine():
            raise self._refused(self._read())
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """CompressError if another run has taken it over."""
        if self.lost:
            raise CompressError(f"another run took over {self._folder}, as this one was not heard of; leave it to that")

    def release(self) -> None:
        """Whatever the storage says."""
        self._ended.set()
        self._thread.join()
        with suppress(OSError):
            if self._is_mine():
                self._folder.remove(LOCK)

    def _said(self) -> bytes:
        who = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid()}
        return json.dumps({**who, "token": self._token, "beats": self._beats}).encode()

    def _read(self) -> dict[str, Any]:
        """What the lock says; nothing if there is none, or it is of something else."""
        try:
            said = json.loads(self._folder.read(LOCK))
        except FileNotFoundError:
            return {}
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}

    def _is_mine(self) -> bool:
        return self._read().get("token") == self._token

    def _refused(self, other: dict[str, Any]) -> CompressError:
        who = f"{other.get('host')}, process {other.get('pid')}"
        return CompressError(f"another run ({who}) is writing {self._folder}; wait for it or choose another target")

    def _wait(self) -> None:
        """Until it is clear that who holds the lock is gone. CompressError if they are not."""
        first, since = self._read(), time.monotonic()
        while first and not _is_dead(first) and time.monotonic() < since + DEAD_SECONDS:
            time.sleep(min(1, BEAT_SECONDS))
            if (now := self._read()) != first:
                raise self._refused(now or first)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(StorageError):  # who writes outputs will notice
                if not self._is_mine():
                    self.lost = True
                    return
                self._beats += 1
                self._folder.write(LOCK, self._said())


def _machine() -> str:
    """What numbers of processes belong to: a boot of a machine, and a container in it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _is_dead(other: dict[str, Any]) -> bool:
    """Whether a run was on this machine and is no more. No: it is, or runs elsewhere, or another has its number."""
    try:
        if other.get("machine") == _machine():
            os.kill(int(other["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, LookupError, ValueError):
        return False
    return False
