"""Folders and tar shards of photos, written anew as JPEG with given tables; the originals are only read.

Source and target are paths or addresses in remote storage. Every output is there when it is whole (a file is written
under a temporary name and then renamed, an object appears when its upload ends), and a journal in the target says what
is finished: after a crash the same call continues, and what it leaves is byte for byte what an undisturbed call leaves.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import ExitStack, closing, contextmanager, suppress
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

from qtable.codecs.base import Coder
from qtable.compress.journal import Entry, Journal, Row, Summary
from qtable.compress.photo import MetadataPolicy, Recipe, Skip
from qtable.compress.sources import (
    EVERYTHING,
    JOURNAL,
    LOCK,
    MANIFEST,
    CompressError,
    Item,
    Place,
    Selection,
    check_apart,
    check_case,
    listing,
    target_names,
)
from qtable.compress.trial import Sample, sample
from qtable.compress.worker import Job, discard, follow, work
from qtable.jpeg.codec import library_versions
from qtable.photos.opening import MAX_PIXELS
from qtable.progress import Progress
from qtable.storage import PART, File, Folder, Memory, NoBucket, Store, store

if TYPE_CHECKING:
    from qtable.tasks.opening import TaskSpec

__all__ = [
    "JOURNAL",
    "MANIFEST",
    "PART",
    "CompressError",
    "Entry",
    "Job",
    "Journal",
    "MetadataPolicy",
    "Recipe",
    "Row",
    "Sample",
    "Selection",
    "Skip",
    "Summary",
    "check_apart",
    "compress",
    "processes",
    "sample",
    "target_names",
]

CHUNK_PHOTOS: Final = 32
CHUNK_BYTES: Final = 1 << 22
"""A worker gets at most this much at once (but at least one file)."""
LAST_SECONDS: Final = 10
"""How long the other workers may take to end when one has failed, before what is unfinished is removed."""


def compress(
    source: Place,
    target: Place,
    coder: Coder,
    *,
    models: Sequence[TaskSpec] = (),
    metadata: MetadataPolicy = "keep",
    skip_larger: bool = False,
    max_pixels: int = MAX_PIXELS,
    selection: Selection = EVERYTHING,
    workers: int | None = 1,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Write the photos of a folder or tar file anew as JPEG, under the same paths in the folder `target`.

    Both are paths, or addresses as text (`s3://bucket/folder`), whose credentials are in each worker's environment.

    Other files and label maps are copied, lists name the new files, what cannot be a JPEG faithfully is left out;
    target/manifest.jsonl has a line for each. The same call continues what was interrupted, and brings a target up to
    date; other options are refused.

    selection: which photos are compressed; others are copied.

    models: what a coder that looks through networks is lent, opened once by each worker.

    workers: 1 works in this process; more (None: one for each core) in processes of their own; with an `executor`, how
    many it has. progress: called with (done, total) files. CompressError says what cannot be; OSError what cannot be
    read or written at the start.
    """
    recipe = Recipe(coder, metadata, skip_larger, max_pixels)
    workers = (os.cpu_count() or 1) if workers is None else workers
    if workers < 1:
        raise CompressError(f"{workers} workers; allowed: 1 or more")
    check_apart(source, target)
    root, items = listing(source, selection)
    folder = _target_folder(target)
    if workers > 1 and (isinstance(folder, Memory) or isinstance(root, Memory)):
        raise CompressError("memory:// is of one process; allowed: 1 worker")
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(folder, recipe.identity() | selection.identity()))
        written = {MANIFEST, *(name for item in items for name in (item.source, item.target) if name is not None)}
        folder.remove_unfinished(written)
        stack.callback(_remove_unfinished, folder, written)
        check_case(folder, (item.target for item in items))
        if executor is None and workers > 1:
            executor = stack.enter_context(processes(workers))
        specs = tuple(spec.absolute() for spec in models)
        there = Folder(folder.root.resolve()) if isinstance(folder, Folder) else folder
        job = Job(root, there, recipe, library_versions(), specs, selection)
        _work_off(job, items, journal, folder, executor, 4 * workers, progress)
        return journal.finish(items)


def _work_off(
    job: Job,
    items: Sequence[Item],
    journal: Journal,
    folder: Store,
    executor: Executor | None,
    at_once: int,
    progress: Progress | None,
) -> None:
    """Make what is not finished and write it down; lists last, as they name the others' outputs."""
    sizes = {file.name: file.size for file in _files(folder)}
    todo = _todo(items, journal, folder, sizes)
    others = {  # what may lie in the target of what an item was before
        item.source: [name for name in (item.source, item.target) if name is not None and name in sizes]
        for item in todo
    }
    done = len(items) - len(todo)
    lists = [item for item in todo if item.kind == "list"]
    chunks = _chunks([item for item in todo if item.reason is None and item.kind != "list"], journal)
    for item in todo:
        if item.reason is not None:
            journal.add(Entry(item.size, item.version, (Row(item.source, None, None, "skipped", reason=item.reason),)))
            done += 1
    with closing(_spread(job, chunks, executor, at_once)) as finished:
        for entries in finished:
            for entry in entries:
                _check_seen(job, entry)
                row = entry.rows[0]
                for name in others[row.source]:
                    if name != row.target:
                        discard(folder, name)
                journal.add(entry)
            done += len(entries)
            if progress is not None:
                progress(done, len(items))
    for done, item in enumerate(lists, start=len(items) - len(lists) + 1):
        journal.add(follow(job, item, journal.place))
        if progress is not None:
            progress(done, len(items))


def _target_folder(target: Place) -> Store:
    """The folder to write into, which is there. CompressError where nothing may be written."""
    folder = store(target)
    if isinstance(folder, Folder):
        if folder.root.exists() and not folder.root.is_dir():
            raise CompressError(f"{target} exists and is no folder")
        used = folder.root.is_dir() and any(folder.root.iterdir())
    else:
        used = any(file.name != LOCK for file in _files(folder))
    if used and not folder.exists(JOURNAL):
        raise CompressError(f"{target} holds other files; choose a new folder")
    if isinstance(folder, Folder):
        folder.root.mkdir(parents=True, exist_ok=True)
    return folder


def _files(folder: Store) -> list[File]:
    try:
        return folder.files()
    except NoBucket:
        raise
    except FileNotFoundError:
        return []


def _remove_unfinished(folder: Store, names: Set[str]) -> None:
    with suppress(OSError):
        folder.remove_unfinished(names)


def _todo(items: Sequence[Item], journal: Journal, folder: Store, sizes: Mapping[str, int]) -> list[Item]:
    """The items that are not finished. Outputs whose source now has another output are removed.

    sizes: path -> bytes of what is in the target.
    """
    targets, todo = {item.target for item in items}, []
    for item in items:
        known = journal.find(item.source)
        before = known.rows[0].target if known is not None else None
        if before is not None and before not in targets and before != item.source:
            discard(folder, before)
        if known is None or not _finished(item, known, sizes):
            todo.append(item)
    return todo


def _finished(item: Item, known: Entry, sizes: Mapping[str, int]) -> bool:
    """Whether neither the source nor its output seems to have changed since, by size and version."""
    row = known.rows[0]
    if item.reason is not None:
        return row.reason == item.reason
    if item.kind == "list" or item.version == "" or (known.size, known.version) != (item.size, item.version):
        return False
    if row.target is None:
        return row.sha256_before is not None  # it was read, and is no photo to keep
    expected = item.source if row.action == "label map" else item.target
    return row.target == expected and sizes.get(row.target) == row.bytes_after


def _chunks(items: Sequence[Item], journal: Journal) -> Iterator[list[tuple[Item, Entry | None]]]:
    """Portions of work of about equal size."""
    chunk, size = list[tuple[Item, Entry | None]](), 0
    for item in items:
        if chunk and (len(chunk) == CHUNK_PHOTOS or size + item.size > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((item, journal.find(item.source)))
        size += item.size
    if chunk:
        yield chunk


def _spread(
    job: Job, chunks: Iterable[list[tuple[Item, Entry | None]]], executor: Executor | None, at_once: int
) -> Generator[list[Entry], None, None]:
    """What `work` makes of the chunks, in the order in which they are finished; few of them wait at any time."""
    if executor is None:
        yield from (work(job, chunk) for chunk in chunks)
        return
    running: set[Future[list[Entry]]] = set()
    try:
        for chunk in chunks:
            while len(running) >= at_once:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
            running.add(executor.submit(work, job, chunk))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except (BrokenExecutor, CancelledError):
        raise CompressError(
            f"a worker died (out of memory?); what is in {job.target} is whole, and the same command continues"
        ) from None
    except (CompressError, OSError):
        wait([future for future in running if not future.cancel()], timeout=LAST_SECONDS)
        raise
    finally:
        for future in running:
            future.cancel()


def _check_seen(job: Job, entry: Entry) -> None:
    """CompressError if a worker elsewhere does not find what is here."""
    row = entry.rows[0]
    if row.reason == "vanished" and job.root.exists(row.source):
        raise CompressError(f"a worker does not see {row.source} in {job.root}; workers need the same file system")


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    """`count` processes of this machine that end with this one, whatever ends it, and at once if the body raises.

    They are forked here, before the caller starts threads, and so begin with all modules that are loaded. Ctrl-C is
    for the parent alone.
    """
    reader, writer = os.pipe()
    pool = ProcessPoolExecutor(count, get_context("fork"), _begin, (reader, writer))
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # children inherit it
        try:
            pool.submit(os.getpid).result()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield pool
        pool.shutdown()
    finally:
        os.close(writer)
        pool.shutdown(cancel_futures=True)
        os.close(reader)


def _begin(reader: int, writer: int) -> None:
    """In a new worker: nothing comes through the pipe, but its end, when the parent's writing end is closed."""
    os.close(writer)

    def watch() -> None:
        os.read(reader, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
