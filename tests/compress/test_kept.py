"""What is no photo stays what it was: label maps, lists, members behind an end marker, what a pattern excludes."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from qtable import compress as module
from qtable.compress import CompressError, Selection, sample
from qtable.compress.label_maps import evidence, judge
from qtable.compress.lists import Follower
from qtable.compress.reading import Source
from qtable.compress.tars import read_tar
from qtable.photos.opening import MAX_PIXELS
from qtable.photos.readers.lists import list_csv
from qtable.storage import Folder
from tests.compress.test_compress import (
    OPTIONS,
    RECIPE,
    encoded,
    exit_code,
    files,
    interrupt_at,
    member,
    noise,
    rows,
    run,
    started,
    succeeds,
    write_tar,
)

IDS = (0, 2, 15, 255)


def map_of(seed: int, values: tuple[int, ...] = IDS, side: int = 48) -> npt.NDArray[np.uint8]:
    """Rectangles of class ids."""
    rng = np.random.default_rng(seed)
    ids = np.full((side, side), values[0], np.uint8)
    for value in values[1:]:
        top, left = rng.integers(0, side // 2, 2)
        ids[top : top + side // 3, left : left + side // 3] = value
    return ids


def png_of(ids: npt.NDArray[np.uint8], palette: bool = False) -> bytes:
    image = Image.fromarray(ids)
    if palette:
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return encoded(image, "PNG")


def place_in(targets: dict[str, str | None]) -> Callable[[str], tuple[str | None] | None]:
    return lambda name: (targets[name],) if name in targets else None


def followed(name: str, text: bytes, targets: dict[str, str | None]) -> tuple[bytes, Follower]:
    follower = Follower(name, place_in(targets))
    return b"".join(follower(io.BytesIO(text))), follower


# ---- tars one behind the other ---------------------------------------------------------------------------------


def two_tars(folder: Path, *, between: bytes = b"", behind: bytes = b"", same: bool = False) -> bytes:
    """Three photos and a label in each of two archives, one behind the other."""
    parts = []
    for part in range(2):
        names = [f"{i + 3 * part * (not same):03}.png" for i in range(3)]
        photos = [member(name, encoded(noise(10 * part + i), "PNG")) for i, name in enumerate(names)]
        write_tar(folder / "part.tar", *photos, member(f"{part}.cls", b"7"))
        parts.append((folder / "part.tar").read_bytes())
        (folder / "part.tar").unlink()
    return parts[0] + between + parts[1] + behind


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    return tmp_path / "src"


def contents(path: Path) -> list[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        return [(info.name, file.read()) for info in tar if (file := tar.extractfile(info)) is not None]


@pytest.mark.parametrize("zeros", [0, 512, 3 * 512, 1 << 21])
def test_tars_one_behind_the_other_are_read_to_the_last_byte(source: Path, tmp_path: Path, zeros: int) -> None:
    (source / "both.tar").write_bytes(two_tars(tmp_path, between=bytes(zeros), behind=bytes(zeros + 100)))
    summary = run(source, tmp_path / "dst")
    assert (summary.photos, summary.copied, summary.skipped) == (6, 2, {})
    made = contents(tmp_path / "dst/both.tar")
    assert [name for name, _ in made] == [
        *("000.jpg", "001.jpg", "002.jpg", "0.cls"),
        *("003.jpg", "004.jpg", "005.jpg", "1.cls"),
    ]
    assert made[4][1] == RECIPE(encoded(noise(10), "PNG"))[0]
    assert rows(tmp_path / "dst")[0]["reason"] == "2 archives one behind the other, now one"
    drawn = sample(source, RECIPE, 99, np.random.default_rng(0))
    assert (drawn.photos, len(drawn.after), drawn.skipped) == (6, 6, {})
    assert drawn.after.sum() == summary.bytes_after


def test_the_shared_tar_of_two(shared: Path, tmp_path: Path) -> None:
    if not (tar := shared / "cases/shard/concatenated.tar").exists():
        pytest.skip(f"{tar} is not there")
    assert run(tar, tmp_path / "dst").photos == 6
    assert sample(tar, RECIPE, 99, np.random.default_rng(0)).photos == 6


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        (lambda data: data + b"rest", "no member's header"),
        (lambda data: data + bytes(5) + data, "no member's header"),
        (lambda data: data[:-10240] + bytes(1024) + b"\0" * 100 + b"x" * 412 + bytes(1024), "no member's header"),
        (lambda data: data[: len(data) // 2 + 700], "unexpected end of data"),
        (lambda data: data[: len(data) // 2 + 100], "no member's header"),
        (lambda data: data[: len(data) // 2 + 5] + b"!" + data[len(data) // 2 + 6 :], "no member's header"),
    ],
)
def test_what_cannot_be_read_to_the_last_byte_is_said(
    source: Path, tmp_path: Path, damage: Callable[[bytes], bytes], detail: str
) -> None:
    (source / "both.tar").write_bytes(damage(two_tars(tmp_path)))
    noise(0).save(source / "0.png")
    assert run(source, tmp_path / "dst").skipped == {"damaged tar": 1}
    assert rows(tmp_path / "dst")[1]["reason"].startswith(f"damaged tar: {detail}")
    assert not (tmp_path / "dst/both.tar").exists()
    assert sample(source, RECIPE, 99, np.random.default_rng(0)).skipped == {"damaged tar": 1}


def test_a_tar_without_its_end_is_read_and_said(source: Path, tmp_path: Path) -> None:
    data = two_tars(tmp_path).rstrip(b"\0")
    (source / "both.tar").write_bytes(data + bytes(-len(data) % 512))
    assert run(source, tmp_path / "dst").photos == 6
    assert rows(tmp_path / "dst")[0]["reason"].endswith("; no end marker: it may have been cut between two members")


def test_members_of_the_same_name_all_stay(source: Path, tmp_path: Path) -> None:
    """As in the source: a reader of the stream gets both, and `tar x` the last."""
    (source / "both.tar").write_bytes(two_tars(tmp_path, same=True))
    run(source, tmp_path / "dst")
    made = contents(tmp_path / "dst/both.tar")
    assert [name for name, _ in made if name.endswith("jpg")] == 2 * ["000.jpg", "001.jpg", "002.jpg"]
    assert made[0][1] == RECIPE(encoded(noise(0), "PNG"))[0]
    assert made[4][1] == RECIPE(encoded(noise(10), "PNG"))[0]


def test_every_member_is_where_tarfile_finds_it(tmp_path: Path) -> None:
    (tmp_path / "both.tar").write_bytes(two_tars(tmp_path))
    with Source(Folder(tmp_path), "both.tar") as file, tarfile.open(tmp_path / "both.tar", ignore_zeros=True) as tar:
        found, _ = read_tar(file)
        assert [(m.name, m.offset_data, m.size) for m in found] == [(m.name, m.offset_data, m.size) for m in tar]


# ---- lists -----------------------------------------------------------------------------------------------------


NEW: dict[str, str | None] = {
    "a/0.png": "a/0.jpg",
    "a/1.webp": "a/1.webp.jpg",
    "a/2.jpg": "a/2.jpg",
    'a/q"3,.bmp': 'a/q"3,.jpg',
    "a/é.png": "a/é.jpg",
    "a/gone.png": None,
}


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("l.csv", "path,label\na/0.png,0\na/2.jpg,1\n", "path,label\na/0.jpg,0\na/2.jpg,1\n"),
        ("l.csv", "\ufeffpath,label\r\na/0.png,0\r\n", "\ufeffpath,label\r\na/0.jpg,0\r\n"),
        ("l.csv", '\ufeff"label";"file_name"\n"0";"a/0.png"', '\ufeff"label";"file_name"\n"0";"a/0.jpg"'),
        ("l.tsv", "label\tpath\nx y\ta/é.png\n", "label\tpath\nx y\ta/é.jpg\n"),
        ("a/l.csv", "path,label\n./0.png,0\n../a/1.webp, 1 \n", "path,label\n./0.jpg,0\n../a/1.webp.jpg, 1 \n"),
        ("b/l.csv", "path,label\na/0.png,0\n", "path,label\na/0.jpg,0\n"),  # from the root
        ("l.csv", 'path,text\n"a/q""3,.bmp","a, ""b""\n"\n', 'path,text\n"a/q""3,.jpg","a, ""b""\n"\n'),
        ("l.csv", "path,x\na/0.png,a/0.png\n\na/gone.png,1\nb.png,2\n", "path,x\na/0.jpg,a/0.png\n\nb.png,2\n"),
        ("l.csv", "x_file_name,file_name\na/0.png,a/gone.png\na/0.png,", "x_file_name,file_name\na/0.jpg,"),
        ("l.csv", "path\na/0.png\n", "path\na/0.jpg\n"),
        ("l.csv", 'path,x\na/0.png,5" pipe\na/0.png,"a"b\n', 'path,x\na/0.jpg,5" pipe\na/0.jpg,"a"b\n'),
        ("l.csv", "photo,label\na/0.png,0\n", "photo,label\na/0.png,0\n"),  # no such column
        ("l.csv", "", ""),
        (
            "l.jsonl",
            '{"file_name": "a/0.png", "text": "a/0.png"}\n{"x":1,"path":"a\\/0.png"}\n{"path": "a/gone.png"}\n',
            '{"file_name": "a/0.jpg", "text": "a/0.png"}\n{"x":1,"path":"a\\/0.jpg"}\n',
        ),
        ("l.jsonl", '{"file_name": "a/\\u00e9.png"}', '{"file_name": "a/\\u00e9.jpg"}'),
    ],
)
def test_names_in_lists_follow_and_all_else_stays(name: str, before: str, after: str) -> None:
    made, _ = followed(name, before.encode(), NEW)
    assert made.decode() == after


def test_what_a_list_says_of_itself() -> None:
    text = b"path,file_name\na/0.png,a/gone.png\na/0.png,\nnowhere.png,\n/a/0.png,\na/2.jpg,\n"
    _, follower = followed("l.csv", text, NEW)
    assert follower.note() == (
        "1 of its names follow their photos; 1 of its rows left out, as their files are;"
        " 2 of its rows name no file here"
    )


@pytest.mark.parametrize("tail", [b'"a/0.png,1\n' + b"x,1\n" * 3000, b'a/0.png,"' + bytes([120]) * (3 << 20) + b'"\n'])
def test_rows_that_cannot_be_read_stay_and_are_counted(tail: bytes) -> None:
    text = b"path,label\na/0.png,0\n"
    made, follower = followed("l.csv", text + tail, NEW)
    assert made == text.replace(b"png", b"jpg") + tail
    assert "could not be read and stay" in (follower.note() or "")


def test_a_name_that_is_no_utf8_follows() -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    made, _ = followed("l.csv", b"path,label\ncaf\xe9.png,0\n", {odd: odd.replace("png", "jpg")})
    assert made == b"path,label\ncaf\xe9.jpg,0\n"


@pytest.fixture
def listed(source: Path) -> Path:
    """Twenty photos in two folders, one of them damaged, in a list, and Hugging Face's list of some of them."""
    lines = ["path,label\r\n"]
    for i in range(20):
        name = f"{i % 2}/{i:02}.{'webp' if i % 3 else 'png'}"
        (source / name).parent.mkdir(exist_ok=True)
        noise(i).save(source / name)
        lines.append(f'"{name}",{i % 2}\r\n')
    (source / "1/07.webp").write_bytes(b"RIFF")
    (source / "labels.csv").write_bytes("".join(lines).encode())
    (source / "0/metadata.jsonl").write_text('{"file_name": "00.png"}\n')
    return source


@pytest.mark.parametrize("workers", [1, 2])
def test_a_list_of_the_target_can_be_read(listed: Path, tmp_path: Path, workers: int) -> None:
    summary = run(listed, tmp_path / "dst", workers=workers)
    assert (summary.photos, summary.renamed, summary.lists, summary.copied) == (19, 19, 2, 0)
    named = [file.name for file, _ in list_csv(tmp_path / "dst/labels.csv").photos]
    assert sorted(named) == sorted(map(str, (tmp_path / "dst").rglob("*.jpg")))
    assert (tmp_path / "dst/0/metadata.jsonl").read_text() == '{"file_name": "00.jpg"}\n'
    row = next(row for row in rows(tmp_path / "dst") if row["source"] == "labels.csv")
    assert (row["action"], row["target"]) == ("list", "labels.csv")
    assert row["reason"] == "19 of its names follow their photos; 1 of its rows left out, as their files are"
    data = (tmp_path / "dst/labels.csv").read_bytes()
    assert row["bytes_after"] == len(data)
    assert row["bytes_before"] == (listed / "labels.csv").stat().st_size


@pytest.mark.parametrize("at", [5, 21, 22])
def test_sigkill_before_or_within_the_lists_then_again(listed: Path, tmp_path: Path, at: int) -> None:
    run(listed, tmp_path / "whole")
    whole = files(tmp_path / "whole")
    command = ["compress", str(listed), str(tmp_path / "dst"), *OPTIONS, "--workers", "2"]
    assert exit_code(started(command, at, lambda: os.killpg(0, signal.SIGKILL))) == -signal.SIGKILL
    assert ("labels.csv" in files(tmp_path / "dst")) == (at == 22)
    succeeds(command)
    assert files(tmp_path / "dst") == whole


def test_a_list_follows_photos_that_change(listed: Path, tmp_path: Path) -> None:
    run(listed, tmp_path / "dst")
    noise(7).save(listed / "1/07.webp")
    (listed / "0/00.png").write_bytes(b"no photo")
    run(listed, tmp_path / "dst")
    run(listed, tmp_path / "fresh")
    assert files(tmp_path / "dst") == files(tmp_path / "fresh")


def test_a_list_follows_what_changes_before_a_run_has_ended(listed: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(listed, tmp_path / "dst", progress=interrupt_at(22))  # both lists are written, the manifest is not
    noise(7).save(listed / "1/07.webp")
    run(listed, tmp_path / "dst")
    run(listed, tmp_path / "fresh")
    assert files(tmp_path / "dst") == files(tmp_path / "fresh")


# ---- label maps ------------------------------------------------------------------------------------------------


FEW = map_of(0)
MANY = np.arange(48, dtype=np.uint8)[:, None].repeat(48, 1) * 5 + np.uint8(1)  # 48 objects
XRAY = np.asarray(noise(0).convert("L"))


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("0001.seg.png", png_of(FEW), "by its name"),
        ("a_mask.png", png_of(FEW, palette=True), "by its name"),
        ("masks/a.png", png_of(MANY), "by its name"),
        ("SegmentationClass/a.png", png_of(FEW, palette=True), "by its name"),
        ("gtFine/x_gtFine_labelIds.png", png_of(FEW), "by its name"),
        ("ground_truth/000.png", png_of(map_of(1, (0, 255))), "by its name"),
        ("labels/a.tif", encoded(Image.fromarray(FEW), "TIFF"), "by its name"),
        ("a.instanceIds.png", encoded(Image.fromarray(FEW.astype(np.uint16) * 257), "PNG"), "by its name"),
        ("x_gtFine_color.png", encoded(Image.fromarray(FEW).convert("RGBA"), "PNG"), "by its name"),
        ("masks/a.jpg", encoded(Image.fromarray(map_of(1, (0, 255), 128)), "JPEG", quality=95), "by its name"),
        ("masks/random.png", png_of(np.random.default_rng(0).choice(np.array(IDS, np.uint8), (48, 48))), "by its name"),
        ("mask/a.png", png_of(XRAY), None),  # a class of photos
        ("mask/a.jpg", encoded(noise(0), "JPEG"), None),
        ("labels/a.png", encoded(noise(0), "PNG"), None),
        ("x/a.png", png_of(FEW), "by its pixels alone"),
        ("x/a.png", png_of(FEW, palette=True), "by its pixels alone"),
        ("x/a.png", png_of(XRAY), None),
        ("x/a.png", png_of(MANY), None),
        ("x/a.png", png_of(np.zeros((48, 48), np.uint8)), None),  # a black photo
        ("x/a.png", encoded(noise(0).quantize(200), "PNG"), None),
        ("x/a.png", encoded(Image.fromarray(FEW).convert("RGB"), "PNG"), None),
        ("x/a.jpg", encoded(Image.fromarray(FEW), "JPEG"), None),
        ("masks/a.png", b"\x89PNG no", None),
        ("masks/a.png", b"", None),
    ],
)
def test_label_maps_are_known_by_name_and_pixels(name: str, data: bytes, expected: str | None) -> None:
    known = evidence([name], given=False).get(name, "photo")
    assert judge(data, known, MAX_PIXELS)[0] == expected


@pytest.mark.parametrize(
    ("name", "named"),
    [("a_mask.png", True), ("unmasked/a.png", False), ("segway/a.png", False), ("gt500/a.png", True),
     ("A.SEG.png", True), ("mask_0.png", True), ("images/a.png", False), ("gtx/a.jpg", False)],
)  # fmt: skip
def test_which_names_are_those_of_label_maps(name: str, named: bool) -> None:
    assert (evidence([name], given=True) == {name: "name"}) == named


def test_a_map_beside_the_photo_of_its_name() -> None:
    known = evidence(["in/a.jpg", "out/a.png", "out/b.png"], given=False)
    assert known == {"out/a.png": "partner", "out/b.png": "none"}
    assert judge(png_of(MANY), "partner", MAX_PIXELS)[0] == "by its pixels, beside a photo of the same name"
    assert judge(png_of(XRAY), "partner", MAX_PIXELS)[0] is None


def test_the_limit_of_pixels_holds_for_maps() -> None:
    assert judge(png_of(FEW), "name", 48 * 48)[0]
    assert judge(png_of(FEW), "name", 48 * 48 - 1)[0] is None


@pytest.fixture
def segmentation(source: Path) -> Path:
    """Photos and their label maps in a tree and in a shard."""
    members = []
    for i in range(4):
        for name, data in (
            (f"images/{i}.jpg", encoded(noise(i), "JPEG")),
            (f"masks/{i}.png", png_of(map_of(i), palette=bool(i % 2))),
        ):
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_bytes(data)
        members += [
            member(f"{i:04}.png", encoded(noise(i), "PNG")),
            member(f"{i:04}.seg.png", png_of(map_of(i))),
            member(f"{i:04}.json", b"{}"),
        ]
    noise(8).save(source / "images/a_mask_of_wood.png")
    (source / "images/scan.png").write_bytes(png_of(map_of(9)))
    write_tar(source / "0.tar", *members)
    return source


def test_label_maps_stay_as_they_are(segmentation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(segmentation)
    command = ["compress", str(segmentation), str(tmp_path / "dst"), *OPTIONS, "--workers", "1"]
    succeeds(command)
    said = capsys.readouterr().out
    assert said.startswith("9 photos: ")
    assert "; 5 of them renamed to .jpg; 1 of them named like label maps, with the pixels of photos;" in said
    assert "; kept as label maps: 9 (1 known by their pixels alone); 4 other files copied. Manifest" in said
    made = files(tmp_path / "dst")
    for name in before:
        if name.startswith("masks/") or name == "images/scan.png":
            assert made[name] == before[name]
    inside = dict(contents(tmp_path / "dst/0.tar"))
    assert list(inside)[:3] == ["0000.jpg", "0000.seg.png", "0000.json"]
    assert inside["0001.seg.png"] == png_of(map_of(1))
    kept = [row for row in rows(tmp_path / "dst") if row["action"] == "label map"]
    assert {row["reason"] for row in kept} == {"by its name", "by its pixels alone"}
    assert all(row["sha256_before"] == row["sha256_after"] for row in kept)
    doubtful = next(row for row in rows(tmp_path / "dst") if row["source"] == "images/a_mask_of_wood.png")
    assert doubtful["reason"] == "named like a label map, but its pixels are those of a photo"
    succeeds([*command, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert (result["label_maps"], result["by_pixels"], result["doubtful"]) == (9, 1, 1)
    assert files(tmp_path / "dst") == made
    succeeds([*command[:2], str(tmp_path / "none"), *command[3:], "--dry-run", "--json"])
    estimate = json.loads(capsys.readouterr().out)
    assert (estimate["sample"], estimate["label_maps"]) == (9, 9)


def test_a_map_gets_its_name_back(source: Path, tmp_path: Path) -> None:
    """As a photo that its name was taken by comes, changes and goes."""
    (source / "0.png").write_bytes(png_of(MANY))
    assert run(source, tmp_path / "dst").label_maps == 0
    assert (tmp_path / "dst/0.jpg").exists()
    noise(0).save(source / "0.webp")  # now it is a map, by the photo of its name
    for i in range(3):
        run(source, tmp_path / "dst")
        run(source, tmp_path / f"fresh{i}")
        assert files(tmp_path / "dst") == files(tmp_path / f"fresh{i}")
        assert (tmp_path / "dst/0.png").exists() == (i < 2)
        if i == 1:
            (source / "0.png").write_bytes(png_of(XRAY))


def test_why_it_is_a_map_is_as_in_a_new_run(source: Path, tmp_path: Path) -> None:
    (source / "0.png").write_bytes(png_of(FEW))
    assert run(source, tmp_path / "dst").by_pixels == 1
    noise(0).save(source / "0.webp")
    assert run(source, tmp_path / "dst").by_pixels == 0
    run(source, tmp_path / "fresh")
    assert files(tmp_path / "dst") == files(tmp_path / "fresh")


def test_an_interrupted_run_knows_its_maps(segmentation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(segmentation, tmp_path / "whole")
    monkeypatch.setattr(module, "CHUNK_PHOTOS", 1)
    with pytest.raises(KeyboardInterrupt):
        run(segmentation, tmp_path / "dst", progress=interrupt_at(9))
    kept = list((tmp_path / "dst").rglob("*.png"))
    times = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) > 1
    steps: list[int] = []
    summary = run(segmentation, tmp_path / "dst", progress=lambda done, _: steps.append(done))
    assert steps == [10, 11]
    assert summary.label_maps == 9
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert files(tmp_path / "dst") == files(tmp_path / "whole")


# ---- patterns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "compressed", "excluded"),
    [
        ({}, {"images/0.jpg", "images/a_mask_of_wood.png", "0000.png"}, 0),
        ({"exclude": ("images/*",)}, {"0000.png"}, 6),
        ({"exclude": ("*.tar",)}, {"images/0.jpg", "images/a_mask_of_wood.png"}, 1),
        ({"exclude": ("*.tar/*",)}, {"images/0.jpg", "images/a_mask_of_wood.png"}, 8),
        ({"exclude": ("000?.png",)}, {"images/0.jpg", "images/a_mask_of_wood.png"}, 4),
        ({"include": ("images/*",)}, {"images/0.jpg", "images/a_mask_of_wood.png", "images/scan.png"}, 12),
        ({"include": ("*.png",)}, {"images/a_mask_of_wood.png", "images/scan.png", "0000.png"}, 4),
        ({"include": ("0.tar/*",)}, {"0000.png"}, 10),
        ({"include": ("*.png",), "exclude": ("*wood*",)}, {"images/scan.png", "0000.png"}, 5),
    ],
)
def test_patterns_say_what_is_compressed(
    segmentation: Path, tmp_path: Path, options: dict[str, Any], compressed: set[str], excluded: int
) -> None:
    """A photo that a pattern includes is one unless name and pixels both say otherwise."""
    summary = run(segmentation, tmp_path / "dst", selection=Selection(**options))
    found = rows(tmp_path / "dst")
    made = {row["member"] or row["source"] for row in found if row["action"] == "compressed"}
    names = {"images/0.jpg", "images/a_mask_of_wood.png", "images/scan.png", "masks/0.png", "0000.png", "0000.seg.png"}
    assert made & names == compressed
    assert summary.excluded == excluded == sum(row["reason"] == "excluded" for row in found)
    for row in found:
        if row["reason"] == "excluded":
            assert row["target"] == (row["member"] or row["source"])
            assert row["sha256_before"] == row["sha256_after"]


def test_other_patterns_are_another_run(segmentation: Path, tmp_path: Path) -> None:
    run(segmentation, tmp_path / "dst", selection=Selection(exclude=("*.bmp",)))
    for other in (Selection(), Selection(exclude=("*.tif",)), Selection(include=("*",), exclude=("*.bmp",))):
        with pytest.raises(CompressError, match=r"holds another run: its (exclude|include) is "):
            run(segmentation, tmp_path / "dst", selection=other)
    run(segmentation, tmp_path / "dst", selection=Selection(exclude=("*.bmp",)))


def test_patterns_that_leave_nothing(segmentation: Path, tmp_path: Path) -> None:
    with pytest.raises(CompressError, match=r"no \.tar files that --include and --exclude leave"):
        run(segmentation, tmp_path / "dst", selection=Selection(exclude=("*",)))


def test_patterns_of_the_command(segmentation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    patterns = ("--exclude", "*.tar", "--exclude", "*.jpg", "--include", "images/*", "--include", "x")
    succeeds(["compress", str(segmentation), str(tmp_path / "dst"), *OPTIONS, "--workers", "1", *patterns])
    said = capsys.readouterr().out
    assert said.startswith("2 photos: ")
    assert "; 9 other files copied (9 excluded)." in said
