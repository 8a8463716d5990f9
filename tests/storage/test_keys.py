"""Names that object stores allow and that patterns, addresses or query strings would take for something else."""

from __future__ import annotations

from qtable.storage import store

NAMES = [
    "[1].jpg",
    "a[1]/b.jpg",
    "a*.jpg",
    "a+b.jpg",
    "a&b=c.jpg",
    "a%2Fb.jpg",
    "cafe\u0301.jpg",
    "caf\u00e9.jpg",
    "~.jpg",
]


def test_names_are_no_patterns_and_no_addresses(s3: str) -> None:
    for place in (f"{s3}/new", "memory://keys/new"):
        folder = store(place)
        for name in NAMES:
            folder.write(name, name.encode())
        for i, name in enumerate(NAMES):
            assert {file.name for file in folder.files()} == set(NAMES[i:])
            assert folder.read(name) == name.encode()
            folder.remove(name)
            assert not folder.exists(name)
