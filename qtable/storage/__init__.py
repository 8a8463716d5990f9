"""Folders here or in remote storage (`s3://`, `gs://`, `az://`, `http://`, `memory://`), read and written alike.

Credentials and endpoints of remote storage are the environment's (AWS_..., FSSPEC_...), never a store's: a store is a
name, so it travels to other processes and machines, and each opens its own connections.
"""

from __future__ import annotations

import os
from pathlib import Path

from qtable.storage.base import PART, Changed, File, NoBucket, StorageError, Store
from qtable.storage.folder import Folder
from qtable.storage.kinds import Memory, remote_store
from qtable.storage.remote import Remote, is_remote

__all__ = [
    "PART",
    "Changed",
    "File",
    "Folder",
    "Memory",
    "NoBucket",
    "Remote",
    "StorageError",
    "Store",
    "holding",
    "is_remote",
    "store",
]


def store(place: str | os.PathLike[str]) -> Store:
    """The folder at a path or address; nothing is opened.

    StorageError for an address without a bucket, of an unknown protocol, or of one whose package is not installed.
    """
    if isinstance(place, str) and is_remote(place):
        return remote_store(place)
    return Folder(Path(place))


def holding(place: str) -> tuple[Store, str]:
    """The folder that holds a file, and the file's name in it. StorageError as `store`."""
    folder, slash, name = place.rpartition("/")
    return store(folder + slash if slash else "."), name
