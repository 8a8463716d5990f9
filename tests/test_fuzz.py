"""Every parser on damaged, mutated and made-up inputs: it takes them, or refuses with what its docstring names."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qtable.cli.inspect import _text
from qtable.codecs.base import Coder
from qtable.codecs.looking import Usual
from qtable.codecs.plain import TableCoder, open_coder, save_coder
from qtable.codecs.task_aware import Network, TaskAware
from qtable.encoders.formats import FORMATS
from qtable.encoders.inspect import jpeg_facts
from qtable.encoders.reading import read_tables
from qtable.jpeg import codec
from qtable.jpeg.codec import DECODERS, Codec, decode, decoder
from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.header import read_header
from qtable.jpeg.markers import JpegError
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive, ArchiveError, Record
from qtable.measure.evaluate import Score
from qtable.measure.sensitivity import Sensitivity
from qtable.photos.files import DataError
from qtable.photos.labels import ClassList
from qtable.photos.readers.lists import list_csv, list_jsonl
from qtable.photos.readers.shards import list_shards
from qtable.tasks.base import Outcomes
from qtable.tasks.classification import METRICS, ClassOutcomes
from qtable.tasks.several import SideBySide
from tests.fuzz import FuzzError, Target, fuzz, mutate_value, watchdog

SLOW: Final = 1_000_000
SECONDS: Final = float(os.environ.get("FUZZ_SECONDS", "600"))
"""How long the slow test tries each parser at most."""
TABLES: Final = QTables(np.arange(1, 193).reshape(3, 8, 8))
PHOTOS: Final = 2
"""In a record."""

READ_ERRORS: Final = (KeyError, TypeError, ValueError)
"""Of `Outcomes.read` and `Coder.read`; what calls them says where."""

JPEG_WORDS: Final = (
    *(bytes([0xFF, marker, 0, size]) for marker in (0xC0, 0xC3, 0xC4, 0xDA, 0xDB, 0xDD, 0xDE) for size in (2, 12, 67)),
    *(b"\xff\xd9", b"\xff\xd8", b"\xff\x00", b"\xff\xd0", b"\xff\x01", b"\xff\xdc\x00\x04\x00\x10", 40 * b"\xff"),
)  # fmt: skip
JSON_WORDS: Final = (
    *b'[ ] { } " , : null true NaN -Infinity 1e999 1.5 256 0 -1 "x" [[ ]] ],[ "order" "zigzag" \\ud800 \xff'.split(),
    *(500 * b"[", 500 * b'{"a":', 300 * b"9", b"\0", b"\n", b"\xef\xbb\xbf"),
)
TAR_WORDS: Final = (
    b"\0",
    bytes(512),
    b"ustar\x0000",
    b"GNUSparse",
    b"x",
    b"L",
    b"5",
    b"2",
    12 * b"7",
    b"\x80",
    b"\xff",
)
CSV_WORDS: Final = (
    *b"path label -1 nan inf 1e30 1_0 1.5 \xff \xef\xbb\xbf \xe2\x80\xa8".split(),
    *(b"\n", b"\r", b'"', b",", b";", b"\0", b" ", 300 * b"a,", 300 * b"\n0", 25 * b"9"),
)  # fmt: skip


def shard() -> bytes:
    """Two samples in one archive, another in one behind it."""
    parts = []
    for members in (
        {"a.jpg": b"x", "a.cls": b"0", "d/b.png": b"yz", "d/b.json": b'{"label": 1}'},
        {50 * "long/" + "c.png": b"x", 50 * "long/" + "c.cls": b"2"},
    ):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        parts.append(file.getvalue())
    return b"".join(parts)


def read_shard(path: Path) -> None:
    for file, _ in list_shards([path], path).photos:
        file.read()


def class_lists() -> list[bytes]:
    """One in each form."""
    return [b"ant\ncat\n", b'["ant", "cat"]', b'{"ant": 0, "cat": 1}', b'{"0": ["n01", "ant"], "1": ["n02", "cat"]}']


@functools.cache
def jpegs() -> tuple[bytes, ...]:
    """Small files of every kind that Pillow writes, and with every kind of segment that it knows."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010F], exif[0x0131] = "Maker", "Software 1.0"
    metadata = {"exif": exif, "icc_profile": b"profile", "comment": "Lavc60", "xmp": b"<x:xmpmeta/>"}
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("RGB", {"optimize": True}),
        ("RGB", {"progressive": True, "subsampling": 0}),
        ("RGB", {"restart_marker_blocks": 1, **metadata}),
        ("L", {"qtables": [[300] * 64]}),
        ("CMYK", {"progressive": True}),
    )
    files = []
    for mode, options in kinds:
        file = io.BytesIO()
        Image.fromarray(noise).convert(mode).save(file, "JPEG", **options)
        files.append(file.getvalue())
    photoshop = b"\xff\xed\x00\x20Photoshop 3.0\x008BIM\x04\x06\0\0\0\0\0\x02\x00\x04\0\0"
    return (*files, files[0][:2] + photoshop + files[0][2:])


@functools.cache
def records() -> tuple[str, ...]:
    rng = np.random.default_rng(0)
    scores = [Score(coder, rng.integers(1, 99, PHOTOS), outcomes()[1]) for coder in coders()[:2]]
    return tuple(json.dumps(Record("search", "random", score).to_dict()) for score in scores)


@functools.cache
def outcomes() -> tuple[Outcomes, ...]:
    """Of every kind of qtable's, on `PHOTOS` photos."""
    rng = np.random.default_rng(1)
    hits = {name: np.array([True, False]) for name in METRICS}
    one = ClassOutcomes("top-1", hits, rng.exponential(1, PHOTOS).astype(np.float32))
    return one, SideBySide((one, one.by("agreement")))


@functools.cache
def coders() -> tuple[Coder, ...]:
    """Of every kind of qtable's."""
    usual = Usual(np.full((3, 64), 0.5), np.full((3, 64), 2.0))
    network = Network(None, "abc", tuple(usual.feeling.ravel()), tuple(usual.error.ravel()))
    plain = [TableCoder(QTables.flat(step), Codec("4:4:4", "progressive")) for step in (1, 2)]
    return *plain, TaskAware(QTables.flat(3), 0.01, (network, network), "crop")


@functools.cache
def coder_files() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory(prefix="qtable") as folder:
        for i, coder in enumerate(coders()):
            save_coder(coder, Path(folder, f"{i}.json"))
        return tuple(Path(folder, f"{i}.json").read_bytes() for i in range(len(coders())))


def json_of(values: Sequence[Coder] | Sequence[Outcomes]) -> list[str]:
    return [json.dumps(value.written()) for value in values]


@functools.cache
def statistics() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **vars(Sensitivity.zero()))
    return file.getvalue()


def written(table_format: str) -> list[bytes]:
    """Tables in one of qtable's formats."""
    chosen = FORMATS[table_format]
    contents = [chosen.write(QTables(TABLES.values[:count])) for count in range(1, chosen.most + 1)]
    return [content if isinstance(content, bytes) else content.encode() for content in contents]


def targets(path: Path) -> dict[str, Target]:
    """Every parser by name; those that read files are given `path`."""

    def filed(parse: Callable[[Path], object], suffix: str = "") -> Callable[[bytes], object]:
        file = path.with_suffix(suffix)

        def run(data: bytes) -> object:
            file.write_bytes(data)
            return parse(file)

        return run

    def read_archive(file: Path, header: dict[str, Any] | None = None) -> None:
        with Archive(file, header) as archive:
            for record in archive:
                record.to_dict()

    continue_archive = functools.partial(read_archive, header={"identity": {"data": "abc"}})

    def read_record(value: Any) -> None:
        path.write_text('{"qtable": 2}\n' + json.dumps(value) + "\n")
        read_archive(path)

    def decode_by(route: str) -> Callable[[bytes], object]:
        def run(data: bytes) -> object:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(codec, "decoder", lambda: decoder(route))
                return decode(data)

        return run

    def inspect(data: bytes) -> None:
        facts = jpeg_facts(data)
        json.dumps(facts)
        text = _text({"file": "file", **facts})
        assert text.replace("\n", "").isprintable()
        assert sum(facts["sizes"].values()) == len(data)

    def read_outcomes(value: Any) -> None:
        found = Outcomes.read(value, PHOTOS)
        again = Outcomes.read(json.loads(json.dumps(found.written())), PHOTOS)
        assert again.written() == found.written()
        assert len(found) == len(found.subset([1, 0, 1])) - 1 == PHOTOS
        assert 0 <= found.score() <= 1

    def read_coder(value: Any) -> None:
        kept(Coder.read(value))

    def read_coder_file(file: Path) -> None:
        kept(open_coder(str(file), Codec()))

    def kept(coder: Coder) -> None:
        again = Coder.read(json.loads(json.dumps(coder.written())))
        assert (again, hash(again)) == (coder, hash(coder))
        assert coder.tables is not None
        assert "\n" not in coder.name

    table_file = json.dumps(TABLES.to_dict())
    zigzag = json.dumps({"values": TABLES.zigzag().tolist(), "order": "zigzag"})
    json_files = [table_file.encode(), zigzag.encode()]
    specs = [b"quality:50", b"flat:7", b"mozjpeg-3:80", b"annex-k"]
    archive = ("\n".join(['{"qtable": 2, "identity": {"data": "abc"}}', *records()]) + "\n").encode()
    json_lines = b'{"file_name": "a.png", "label": 0}\n\n{"path": "b.png", "label": "12", "x": {}}\n'
    csv_file = b"path,label,note\na.png,0,x\nb/c d.png,10,\n\xc3\xa4.png,2.0,\n"
    decodable = [file for file in jpegs() if len(read_header(file).components) < 4]
    every_format = [content for name in FORMATS for content in written(name)]
    found = [
        Target("QTables.from_dict", QTables.from_dict, [table_file, zigzag], (ValueError,), mutate=mutate_value),
        Target("QTables.load", filed(QTables.load), json_files, (ValueError,), JSON_WORDS),
        Target("QTables.parse", lambda data: QTables.parse(os.fsdecode(data)), specs, (ValueError, OSError), specs),
        Target("read_header", read_header, jpegs(), (JpegError,), JPEG_WORDS),
        Target("CSV list", filed(list_csv), [csv_file, csv_file.replace(b"0", b"ant")], (DataError,), CSV_WORDS),
        Target("JSON lines", filed(list_jsonl), [json_lines], (DataError,), JSON_WORDS),
        Target("class list", filed(ClassList.open), class_lists(), (DataError,), JSON_WORDS),
        Target("Archive", filed(continue_archive), [archive], (ArchiveError,), JSON_WORDS),
        Target("read_tables", read_tables, every_format, (ValueError,), (*JSON_WORDS, *JPEG_WORDS)),
        Target("Outcomes.read", read_outcomes, json_of(outcomes()), READ_ERRORS, mutate=mutate_value),
        Target("Coder.read", read_coder, json_of(coders()), READ_ERRORS, mutate=mutate_value),
        Target("open_coder", filed(read_coder_file, ".json"), coder_files(), (ValueError,), JSON_WORDS),
        # What follows is tried less often: it takes a millisecond each, or a part of the above does the same.
        Target("tar shard", filed(read_shard), [shard()], (ValueError,), TAR_WORDS, inputs=5000),
        Target("Archive record", read_record, records(), (ArchiveError,), mutate=mutate_value, inputs=3000),
        *(Target(f"format {name}", FORMATS[name].read, written(name), (ValueError,), inputs=1000) for name in FORMATS),
        Target("inspect", inspect, jpegs(), (JpegError,), JPEG_WORDS, inputs=1000),
        *(Target(f"decode by {r}", decode_by(r), decodable, (JpegError,), JPEG_WORDS, inputs=2000) for r in DECODERS),
        Target("Sensitivity.load", filed(Sensitivity.load), [statistics()], (ValueError,), inputs=60, memory=1 << 27),
    ]
    return {target.name: target for target in found}


NAMES: Final = tuple(targets(Path("unused")))


def target(name: str, path: Path) -> Target:
    """A parser by name; skips the decoders that are not installed here."""
    if name.startswith("decode by "):
        try:
            decoder(name.removeprefix("decode by "))
        except ImportError as error:
            pytest.skip(str(error))
    return targets(path)[name]


@pytest.fixture
def file() -> Iterator[Path]:
    """A name for a file in memory, where the system has such: one that is written so often."""
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="qtable", dir=memory) as folder:
        yield Path(folder, "input")


@pytest.mark.parametrize("name", NAMES)
def test_mutated_inputs_are_taken_or_refused(file: Path, name: str) -> None:
    parser = target(name, file)
    for seed in parser.seeds:
        parser.parse(json.loads(seed) if parser.mutate is mutate_value else seed)
    count = fuzz(parser, parser.inputs)
    assert 0 < count.valid < count.ran == parser.inputs


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_million_mutated_inputs(file: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Until `FUZZ_SECONDS` for each parser are over; says how many it were. Another seed than the fast test's."""
    count = fuzz(target(name, file), SLOW, seed=1, seconds=SECONDS)
    with capsys.disabled():
        print(f"\n{name}: {count}")
    assert count.valid > 0


COEFFICIENTS: Final = """
import sys, warnings
from pathlib import Path
from qtable.jpeg.coefficients import read_coefficients
from qtable.jpeg.markers import JpegError
from tests.fuzz import Target, fuzz
warnings.simplefilter("error")
seeds = [file.read_bytes() for file in sorted(Path(sys.argv[1]).iterdir())]
count = fuzz(Target("read_coefficients", read_coefficients, seeds, (JpegError,)), 1000)
print(count.ran, count.valid)
"""


def test_jpeglib_survives_what_it_is_given(tmp_path: Path) -> None:
    """In a process of its own: a crash of jpeglib's libjpeg 6b would end this one, its words would be in the way."""
    for i, data in enumerate(jpegs()):
        if len(read_header(data).components) == 3:
            (tmp_path / f"{i}.jpg").write_bytes(data)
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-c", COEFFICIENTS, tmp_path], cwd=root, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    ran, valid = map(int, done.stdout.split())
    assert 0 < valid < ran == 1000


def two_lines(_: bytes) -> None:
    raise ValueError("two\nlines")


def hang(_: bytes) -> None:
    while True:
        pass


@pytest.mark.parametrize(
    ("parse", "message"),
    [
        (lambda data: {}[data], "KeyError"),
        (two_lines, "a message of 9 characters and 2 lines"),
        (lambda data: warnings.warn("odd", stacklevel=1), "UserWarning: odd"),
        (lambda data: bytes(1 << 24), "MemoryError: .* bytes for an input of"),
        (hang, "more than 0.05 s of processor time"),
    ],
)
def test_fuzzing_finds(monkeypatch: pytest.MonkeyPatch, parse: Callable[[bytes], object], message: str) -> None:
    monkeypatch.setattr("tests.fuzz.MOST_SECONDS", 0.05)
    with pytest.raises(FuzzError, match=message):
        fuzz(Target("bad", parse, [b"seed"], (ValueError,)), 10)


def test_memory_that_was_taken_once_is_not_the_parsers() -> None:
    """As when another thread takes some in the middle of a look."""
    others = iter([bytes, lambda n: b""] * 20)
    fuzz(Target("good", lambda data: next(others)(1 << 24), [b"seed"], (ValueError,)), 10)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, json_values | st.sampled_from(["natural", "zigzag"]))
def test_tables_from_any_json_value(values: Any, order: Any) -> None:
    for data in (values, {"values": values}, {"values": values, "order": order}):
        with contextlib.suppress(ValueError):
            assert QTables.from_dict(QTables.from_dict(data).to_dict()) == QTables.from_dict(data)


@given(st.text(max_size=60) | st.from_regex(r"(quality|flat|annex-k|mozjpeg-[0-9]):[^/]{0,9}", fullmatch=True))
def test_whatever_a_user_types_as_tables(spec: str) -> None:
    with contextlib.suppress(ValueError, OSError):
        assert QTables.parse(spec).count in (1, 2, 3)


@given(st.sampled_from(sorted(json.loads(records()[0]))), json_values)
def test_any_value_in_a_field_of_a_record(field: str, value: Any) -> None:
    with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
        record = Record.from_dict(json.loads(records()[0]) | {field: value})
        json.dumps(record.to_dict())


# ---- what fuzzing found ---------------------------------------------------------------------------------------


def test_texts_in_a_table_file_are_no_numbers_and_are_not_padded_to_the_longest() -> None:
    """NumPy made 200 GB of one long text and many short ones, and took "16" for 16."""
    tracemalloc.start()
    for values in (["x" * 100_000] + 100_000 * [""], [[["16"] * 8] * 8], [[[True] * 8] * 8]):
        with pytest.raises(ValueError, match="must be numbers"):
            QTables.from_dict({"values": values})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"values": [[[1] * 8] * 8], "order": 9999 * "x"}, "is unknown; allowed: natural, zigzag"),
        ({"values": [[1, 2], [3]], "order": "zigzag"}, r"numbers of shape \[t, 64\]"),
        ({"values": [], "order": "zigzag"}, r"shape \[1, 0\]"),
        ({"values": [[[[1] * 8] * 8]]}, "must be numbers of shape"),
    ],
)
def test_refused_tables_are_described_in_a_short_line(data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        QTables.from_dict(data)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("spec", ["quality:" + 600 * "x", 100 * "\udcff"], ids=["number", "file"])
def test_what_a_user_typed_is_repeated_in_a_short_line(spec: str) -> None:
    with pytest.raises(ValueError, match=r"tables '.*: ") as error:
        QTables.parse(spec)
    assert len(str(error.value)) < 450


@pytest.mark.parametrize(
    "damage",
    [
        {"split": {"a": 1}},
        {"split": "validation"},
        {"score": 10**400},
        {"photo_bytes": [10**30, 1]},
        {"photo_bytes": [1e999, 1]},
        {"photo_bytes": []},
        {"photo_bytes": [[1, 2]]},
        {"outcomes": [[1.0, 0.0]]},
        {"outcomes": [1.0, 0.0]},
        {"outcomes": "x" * 9999},
        {"outcomes": {"kind": "x" * 9999}},
        {"outcomes": {"kind": "several", "parts": []}},
        {"photo_bytes": [1, 2, 3]},
        {"coder": {"kind": "x" * 9999}},
        {"coder": {"kind": "tables", "tables": [[["16"] * 8] * 8], "subsampling": "4:2:0", "entropy": "optimized"}},
        {"coder": {"kind": "tables", "tables": [[[16] * 8] * 8], "subsampling": "x" * 9999, "entropy": "optimized"}},
    ],
)
def test_a_damaged_record_is_an_archive_error_with_its_line(tmp_path: Path, damage: dict[str, Any]) -> None:
    lines = ['{"qtable": 2}', records()[0], json.dumps(json.loads(records()[1]) | damage)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(ArchiveError, match=r"a\.jsonl, line 3: not an evaluation record") as error:
        Archive(tmp_path / "a.jsonl")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("first", [5000 * "[", '{"qtable": 2, "identity": [1]}'])
def test_a_damaged_first_line_is_an_archive_error(tmp_path: Path, first: str) -> None:
    (tmp_path / "a.jsonl").write_text(first + "\n")
    with pytest.raises(ArchiveError, match=r"a\.jsonl: "):
        Archive(tmp_path / "a.jsonl", {"identity": {}})


def test_deeply_nested_records_are_an_archive_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"qtable": 2}\n' + 5000 * "[" + "\n")
    with pytest.raises(ArchiveError, match="line 2"):
        Archive(tmp_path / "a.jsonl")


def test_many_columns_and_rows_in_a_csv_file_do_not_multiply(tmp_path: Path) -> None:
    """csv.DictReader made a dictionary of all columns for each of the short rows."""
    (tmp_path / "labels.csv").write_text("path,label," + 50_000 * "x," + "\n" + "a.png,1\n" + "b.png,2\n" * 50_000)
    with watchdog() as restart:
        restart()
        listed = list_csv(tmp_path / "labels.csv")
    assert len(listed.photos) == 2


def test_a_csv_file_with_other_columns_is_described_in_a_short_line(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(5000 * "name," + "\n")
    with pytest.raises(DataError, match="must name the columns path,label") as error:
        list_csv(tmp_path / "labels.csv")
    assert len(str(error.value)) < 500


def with_levels(levels: bytes) -> bytes:
    """Statistics of no photo, but for this .npy file of their levels."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(statistics())) as good, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bad:
        for name in good.namelist():
            bad.writestr(name, levels if name == "levels.npy" else good.read(name))
    return file.getvalue()


def npy(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + data


@pytest.mark.parametrize(
    "data",
    [
        npy((2,), bytes(16)),  # an array instead of an archive: AttributeError
        statistics()[:-20] + b"\xff\xff\xff\xff" + statistics()[-16:],  # OSError of a seek before the beginning
        with_levels(npy((1 << 40,))),  # 8 TB by its header
        with_levels(npy((3, 64, 8193), bytes(1 << 27))),  # a zip bomb
        with_levels(npy((3, 64, 8193), np.full(3 * 64 * 8193, np.nan).tobytes())),
        with_levels(npy((3, 64, 8193), np.full(3 * 64 * 8193, -1.0).tobytes())),
    ],
)
def test_damaged_statistics_are_a_value_error_and_take_no_memory(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"s\.npz: not a file of sensitivity statistics"):
        Sensitivity.load(tmp_path / "s.npz")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000_000


def test_a_file_that_claims_more_pixels_than_its_bytes_hold_is_refused_before_memory_is_taken() -> None:
    """16384 x 16384 pixels from 600 bytes took 1.7 GB, 65500 x 65500 ended in MemoryError."""
    good = jpegs()[0]
    frame = good.index(b"\xff\xc0")
    for size in (b"\x40\x00\x40\x00", b"\xff\xdc\xff\xdc"):
        with pytest.raises(JpegError, match=r"pixels in \d+ bytes: not possible"):
            decode(good[: frame + 5] + size + good[frame + 9 :])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{"optimize": True}, {"progressive": True}])
def test_the_flattest_photo_is_not_taken_for_a_bomb(mode: str, options: dict[str, bool]) -> None:
    file = io.BytesIO()
    Image.new(mode, (4000, 4000)).save(file, "JPEG", subsampling=2, **options)
    assert decode(file.getvalue()).shape == (4000, 4000, 3)


def test_a_thumbnail_is_no_claim() -> None:
    """What looks like a frame of 65535 x 65535 pixels, and like 600 scans, inside an APP segment."""
    good = jpegs()[0]
    inside = b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff" + 600 * b"\xff\xda"
    segment = b"\xff\xe5" + (len(inside) + 2).to_bytes(2, "big") + inside
    assert np.array_equal(decode(good[:2] + segment + good[2:]), decode(good))


def test_a_file_of_too_many_scans_is_refused() -> None:
    good = jpegs()[1]
    last = good.rindex(b"\xff\xda")
    with pytest.raises(JpegError, match="scans; allowed: 500"):
        decode(good[:last] + 500 * good[last:-2] + b"\xff\xd9")


def test_coefficients_of_a_damaged_file_are_refused_and_those_with_many_comments_read() -> None:
    """jpeglib returned what it had of the first, with a word on stderr, and failed on more than 50 of the second."""
    good = jpegs()[0]
    scan = good.index(b"\xff\xda") + 14
    with pytest.raises(JpegError, match="does not decode"):
        read_coefficients(good[: scan + 20] + bytes(40) + good[scan + 60 :])
    commented = good[:2] + 60 * b"\xff\xfe\x00\x03x" + good[2:]
    for ours, theirs in zip(read_coefficients(commented), read_coefficients(good), strict=True):
        assert np.array_equal(ours, theirs)
