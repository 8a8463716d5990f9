"""One folder here, in memory, on a web server and on an S3 server: what is written is read, whole or not at all."""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import functools
import http.server
import io
import multiprocessing
import os
import pickle
import re
import secrets
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qtable.storage import Changed, File, Folder, Remote, StorageError, Store, holding, is_remote, store
from qtable.storage.base import PART
from qtable.storage.remote import READ_AHEAD, UPLOAD

NAMES = ["a.jpg", "b c/ü #1%20.jpg", "b c/d/e.tar", "z?.jpg"]


@pytest.fixture(params=["folder", "memory", "s3"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder to write into, of each kind."""
    if request.param == "folder":
        return store(tmp_path / "new")
    if request.param == "memory":
        return store(f"memory://{secrets.token_hex(8)}/new")
    return store(f"{request.getfixturevalue('s3')}/new")


def test_addresses_are_no_paths() -> None:
    assert is_remote("s3://bucket/folder")
    assert is_remote("nonsense+1://bucket")
    assert not any(is_remote(path) for path in ("folder", "/folder", "a:b", "C:/x", "a/s3://b", "./memory://x"))
    assert store("a") == Folder(Path("a"))
    assert store("memory://a/b/") == store("memory://a/b") != store("memory://a")
    assert holding("memory://a/b.tar") == (store("memory://a"), "b.tar")
    assert holding("b.tar") == (Folder(Path()), "b.tar")
    assert holding("/b.tar") == (Folder(Path("/")), "b.tar")


def test_what_is_written_is_listed_and_read(empty: Store) -> None:
    for name in reversed(NAMES):
        empty.write(name, name.encode())
    with empty.create("of-pieces") as file:
        assert file.write(b"12") == 2
        file.write(b"345")
        assert file.tell() == 5
        assert not empty.exists("of-pieces")
    with empty.create("of-none"):
        pass
    sizes = {**{name: len(name.encode()) for name in NAMES}, "of-none": 0, "of-pieces": 5}
    listed = empty.files()
    assert {file.name: file.size for file in listed} == sizes
    assert [file.name for file in listed] == sorted(sizes, key=str.encode)
    assert [empty.file(file.name) for file in listed] == listed
    assert all(file.version for file in listed)
    for name in NAMES:
        assert empty.read(name) == name.encode()
        assert empty.size(name) == len(name.encode())
    assert empty.read("of-pieces") == b"12345"
    assert empty.read("of-none") == b""


def test_many_are_written_and_read_together(empty: Store) -> None:
    data = {**{name: name.encode() for name in NAMES}, "large": bytes(1 << 20), "none": b""}
    empty.write_many(data)
    assert {file.name: file.size for file in empty.files()} == {name: len(bytes_) for name, bytes_ in data.items()}
    *found, missing = empty.read_many([*data, "missing"])
    assert found == list(data.values())
    assert isinstance(missing, FileNotFoundError)
    assert empty.read_many([]) == []
    empty.write_many({})


@pytest.mark.parametrize("place", ["memory", "s3"])
def test_a_new_file_is_made_once(place: str, request: pytest.FixtureRequest) -> None:
    bucket = f"memory://{secrets.token_hex(8)}" if place == "memory" else request.getfixturevalue("s3")
    folder = store(f"{bucket}/new")
    assert isinstance(folder, Remote)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = list(pool.map(folder.write_new, ["x"] * 8, [bytes([i]) for i in range(8)]))
    assert sum(made) == 1
    assert folder.read("x") == bytes([made.index(True)])


def test_names_that_no_bucket_takes() -> None:
    folder = store("memory://bucket/new")
    for name, number in ((os.fsdecode(b"\xe9"), errno.EILSEQ), ("x" * 1021, errno.ENAMETOOLONG)):
        for call in (folder.create, lambda name: folder.write(name, b"")):
            with pytest.raises(OSError, match=r"memory://bucket/new/") as error, call(name) or contextlib.nullcontext():
                pass
            assert error.value.errno == number
    folder.write("x" * 1020, b"")


def test_ranges_and_seeking(empty: Store) -> None:
    data = secrets.token_bytes(READ_AHEAD + 1000)
    empty.write("x", data)
    assert empty.read_range("x", 3, 5) == data[3:8]
    assert empty.read_range("x", 3, 0) == b""
    assert empty.read_range("x", len(data) - 2, 100) == data[-2:]
    with empty.open("x") as file, empty.open("x") as other:
        assert file.read(10) == data[:10]
        assert other.read(10) == data[:10]
        assert file.seek(-10, io.SEEK_END) == len(data) - 10
        assert file.read() == data[-10:]
        assert file.seek(500) == 500
        assert file.read(READ_AHEAD) == data[500 : 500 + READ_AHEAD]
        assert file.tell() == 500 + READ_AHEAD
        assert other.read() == data[10:]


def test_a_tar_file_is_written_and_read_in_place(empty: Store) -> None:
    with empty.create("a.tar") as out, tarfile.open(fileobj=out, mode="w") as tar:
        for name in ("1.jpg", "2.jpg"):
            header = tarfile.TarInfo(name)
            header.size = 2000
            tar.addfile(header, io.BytesIO(name[:1].encode() * 2000))
    with empty.open("a.tar") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        assert tar.getnames() == ["1.jpg", "2.jpg"]
        member = tar.getmember("2.jpg")
        assert empty.read_range("a.tar", member.offset_data, member.size) == b"2" * 2000


def test_versions_change_with_the_bytes(empty: Store) -> None:
    empty.write("x", b"1")
    before = empty.file("x")
    assert empty.file("x") == before
    empty.write("x", b"2")
    after = empty.file("x")
    assert after.size == before.size
    assert after.version != before.version


@pytest.mark.parametrize("size", [1, UPLOAD + 1])
def test_what_is_not_finished_is_not_there(empty: Store, size: int) -> None:
    empty.write("x", b"old")

    def fail() -> None:
        with empty.create("x") as file:
            file.write(b"n" * size)
            assert empty.read("x") == b"old"
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail()
    assert empty.read("x") == b"old"
    assert [file.name for file in empty.files()] == ["x"]
    with empty.create("x") as file:
        file.write(b"n" * size)
    assert empty.size("x") == size
    assert unfinished(empty) == []


def unfinished(folder: Store) -> list[str]:
    """What is left of files that are not finished: their names, on S3, or those that they have meanwhile."""
    if isinstance(folder, Folder):
        return [path.name for path in folder.root.glob(PART + "*")]
    assert isinstance(folder, Remote)
    if not folder.root.startswith("s3:"):
        return []
    import s3fs

    bucket, _, prefix = folder.root.removeprefix("s3://").partition("/")
    uploads = s3fs.S3FileSystem(skip_instance_cache=True).list_multipart_uploads(bucket)
    return [upload["Key"].removeprefix(prefix + "/") for upload in uploads]


def test_what_a_killed_process_began_can_be_cleaned(s3: str, tmp_path: Path) -> None:
    code = """if True:
        import sys, time
        from qtable.storage import store
        with store(sys.argv[1]).create(sys.argv[2]) as file:
            file.write(bytes(1 << 25))
            print("begun", flush=True)
            time.sleep(60)
    """
    for place in (f"{s3}/new", str(tmp_path)):
        folder = store(place)
        for name in ("killed.tar", "deep/killed.tar", "of another program"):
            command = [sys.executable, "-c", code, place, name]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"begun\n"
                process.kill()
        assert len(unfinished(folder)) == 3
        assert not folder.exists("killed.tar")
        folder.write("x", b"x")
        assert [file.name for file in folder.files()] == ["x"]
        folder.remove_unfinished(["killed.tar", "deep/killed.tar"])
        assert unfinished(folder) == (["of another program"] if place.startswith("s3:") else [])
        with folder.create("killed.tar") as file:
            file.write(b"whole")
        assert folder.read("killed.tar") == b"whole"


def test_a_small_file_is_one_request(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    asked, call = [], s3fs.S3FileSystem._call_s3

    async def noted(self: Any, method: str, *rest: Any, **more: Any) -> Any:
        asked.append(method)
        return await call(self, method, *rest, **more)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", noted)
    folder = store(f"{s3}/new")
    with folder.create("small.tar") as file:
        file.write(b"1" * 1000)
        file.write(b"2" * 1000)
    folder.write_many({"1": b"1", "2": b"2"})
    assert folder.read("small.tar") == b"1" * 1000 + b"2" * 1000
    assert asked == ["put_object", "put_object", "put_object", "get_object"]


def test_a_file_that_is_replaced_while_it_is_read_is_no_mixture(empty: Store) -> None:
    empty.write("x", b"1" * (READ_AHEAD + 10))
    with empty.open("x") as file:
        file.read(5)
        empty.write("x", b"2" * (READ_AHEAD + 10))
        with contextlib.suppress(Changed):
            assert file.read() == b"1" * (READ_AHEAD + 5)
            assert not str(empty).startswith("s3:")


def test_removing(empty: Store) -> None:
    empty.write("b/x", b"1")
    empty.write("y", b"1")
    empty.remove("b/x")
    empty.remove("b/x")
    assert not empty.exists("b/x")
    assert [file.name for file in empty.files()] == ["y"]


def test_what_is_not_there(empty: Store) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such folder.*new'$"):
        empty.files()
    empty.write("folder/x", b"1")
    for call in (empty.file, empty.read, empty.open, empty.size):
        with pytest.raises(FileNotFoundError, match=r"No such file or directory: '.*/new/none'$"):
            call("none")
    assert not empty.exists("none")
    assert not empty.exists("folder")
    with pytest.raises(FileNotFoundError):
        empty.file("folder")


@pytest.mark.parametrize("name", ["", "/none/x", "../x", "a/../../x", ".."])
def test_names_lead_nowhere_else(empty: Store, name: str) -> None:
    for call in (empty.read, empty.open, empty.file, empty.remove):
        with pytest.raises(ValueError, match="is no path below a folder"):
            call(name)
    with pytest.raises(ValueError, match="is no path below a folder"):
        empty.write(name, b"")


def test_a_folder_has_nothing_of_its_neighbour(empty: Store) -> None:
    """Object stores have no folders but names that begin alike."""
    neighbour = store(f"{empty}2")
    empty.write("x", b"1")
    neighbour.write("y", b"1")
    assert [file.name for file in empty.files()] == ["x"]


def test_markers_of_folders_are_no_files(s3: str) -> None:
    import s3fs

    folder = store(f"{s3}/new")
    folder.write("a/x", b"1")
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    bucket = s3.removeprefix("s3://")
    for key in ("new/", "new/a/"):
        system.call_s3("put_object", Bucket=bucket, Key=key, Body=b"")
    assert [file.name for file in folder.files()] == ["a/x"]


@pytest.mark.slow
def test_more_files_than_a_page_of_a_listing(s3: str) -> None:
    folder = store(s3)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: folder.write(f"{i:04}", b""), range(1010)))
    assert [file.name for file in folder.files()] == [f"{i:04}" for i in range(1010)]


def read_x(folder: Store) -> tuple[int, bytes]:
    return os.getpid(), folder.read("x")


def write_y(folder: Store) -> None:
    folder.write("b/y", b"new")


@pytest.mark.parametrize("empty", ["folder", "s3"], indirect=True)
def test_what_another_process_writes_is_seen(empty: Store) -> None:
    empty.write("b/x", b"1")
    assert [file.name for file in empty.files()] == ["b/x"]
    assert not empty.exists("b/y")
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as forked:
        forked.submit(write_y, empty).result()
    assert [file.name for file in empty.files()] == ["b/x", "b/y"]
    assert empty.exists("b/y")


def test_threads_and_forked_processes_open_their_own_connections(empty: Store) -> None:
    """Those who fork have connections and fsspec's thread by then."""
    empty.write("x", b"shared")
    assert pickle.loads(pickle.dumps(empty)) == empty
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        assert {data for _, data in threads.map(read_x, [empty] * 40)} == {b"shared"}
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, context) as forked:
        answers = list(forked.map(read_x, [empty] * 10))
    assert {data for _, data in answers} == {b"shared"}
    assert os.getpid() not in {pid for pid, _ in answers}
    assert empty.read("x") == b"shared"


# ---- one line for each reason -----------------------------------------------------------------------------------


def test_protocols_that_are_not_known() -> None:
    with pytest.raises(
        StorageError, match=r"^ftp2://a/b: ftp2:// is not known; allowed: s3://, .*memory:// and paths$"
    ):
        store("ftp2://a/b")
    for place in ("s3://", "s3:///", "memory://"):
        with pytest.raises(StorageError, match=r"no bucket or folder is named$"):
            store(place)


@pytest.mark.parametrize(("place", "package", "extra"), [("gs://a", "gcsfs", "gcs"), ("az://a", "adlfs", "azure")])
def test_packages_that_are_not_installed(place: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtable.storage.remote.find_spec", lambda name: None)
    line = rf"^{place}: {place[:2]}:// needs {package}: pip install 'qtable\[{extra}\]'$"
    with pytest.raises(StorageError, match=line):
        store(place)
    with pytest.raises(StorageError, match=line):  # a worker that lacks it
        Remote(place).read("x")


def test_an_unknown_bucket(s3: str) -> None:
    folder = store(f"{s3}-none/new")
    for call in (folder.files, lambda: folder.write("x", b"1")):
        with pytest.raises(FileNotFoundError, match=rf"no such bucket: '{s3}-none/new(/x)?'"):
            call()
    with pytest.raises(FileNotFoundError, match="no such bucket"), folder.create("x") as file:
        file.write(b"1" * 100)


def test_missing_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StorageError, match=rf"^{s3}/new/x: no credentials: Unable to locate credentials$"):
        store(f"{s3}/new").read("x")


def test_a_server_that_does_not_answer(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(
        StorageError, match=rf"^{s3}: not reached: Could not connect to the endpoint URL: .*127.0.0.1:9"
    ):
        store(s3).files()


# ---- web servers -------------------------------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own, which lists folders and serves no ranges."""

    def log_message(self, *_: object) -> None:
        pass


class Ranged(Quiet):
    """Serves ranges of files, as most web servers do; some of its files are secret."""

    def do_GET(self) -> None:
        if "secret" in self.path:
            return self.send_error(403)
        if (asked := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))) is None:
            return super().do_GET()
        data = Path(self.translate_path(self.path)).read_bytes()
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)
        return None


@contextlib.contextmanager
def web_server(folder: Path, kind: type[Quiet]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(kind, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_folders_of_a_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: this test reads http://")
    here = store(tmp_path / "a")
    for name in NAMES:
        here.write(name, name.encode() * 10)
    with web_server(tmp_path, Quiet) as address:
        there = store(f"{address}/a")
        assert [(file.name, file.size) for file in there.files()] == [(f.name, f.size) for f in here.files()]
        assert all(file.version for file in there.files())
        for name in NAMES:
            assert there.read(name) == here.read(name)
        with pytest.raises(FileNotFoundError, match=r"No such file.*a/none'"):
            there.read("none")
        with pytest.raises(StorageError, match="range requests"):
            there.read_range("b c/d/e.tar", 20, 5)
        with pytest.raises(StorageError, match=r"a: http:// is for reading; write to s3://, gs:// or az://$"):
            there.write("x", b"")
        with pytest.raises(StorageError, match="for reading"), there.create("x"):
            pass


def test_ranges_of_a_web_server(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: this test reads http://")
    data = secrets.token_bytes(READ_AHEAD + 1000)
    for name in ("x", "secret"):
        (tmp_path / name).write_bytes(data)
    with web_server(tmp_path, Ranged) as address:
        folder = store(address)
        assert folder.read_range("x", 20, 5) == data[20:25]
        assert folder.read_range("x", len(data) - 2, 100) == data[-2:]
        with folder.open("x") as file:
            file.seek(-READ_AHEAD, io.SEEK_END)
            assert file.read() == data[-READ_AHEAD:]
        with pytest.raises(StorageError, match=rf"^{address}/secret: ClientResponseError: 403, message='Forbidden'"):
            folder.read("secret")


def test_local_storage_loads_no_fsspec(tmp_path: Path) -> None:
    code = "import sys; from qtable.storage import store; store('.').files(); assert 'fsspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_a_local_folder_lists_plain_files(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_bytes(b"12")
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "x")
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / (PART + "1")).write_bytes(b"")
    when = str((tmp_path / "folder" / "x").stat().st_mtime_ns)
    assert store(tmp_path).files() == [File("folder/x", 2, when), File("link", 2, when)]
