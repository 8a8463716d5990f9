"""The report of a run: its figures and pictures; what it does without photos, in broken folders, to hostile names."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions import interaction
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput

from qtable.cli import main
from qtable.jpeg.codec import ENTROPIES, RGB, SUBSAMPLINGS, Codec
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.measure.front import Curve, size_change
from qtable.measure.sensitivity import BINS, Sensitivity
from qtable.measure.summary import max_drop_sentence, three_savings
from qtable.photos.sets import ImageSet
from qtable.photos.spec import PhotosSpec
from qtable.report import plot
from qtable.report.charts import _front_charts
from qtable.report.page import _commands, _notes
from qtable.report.page import page as page_of
from qtable.report.photos import recorded_source, reopen
from qtable.report.run import Estimate, ReportError, Run, changes
from qtable.report.spent import spent, spent_estimates
from qtable.report.words import _spoken, headline, saving_sentence
from qtable.report.worst import CROPS, _crops, _worst
from qtable.tasks.classification import METRICS, ClassOutcomes
from tests.cli.test_cli import MODEL

VOID = {"meta", "br", "img", "circle", "path", "image", "use", "rect"}
PHOTOS = 120


class Page(HTMLParser):
    """What a browser would see: every element with its attributes, and the text outside style and script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.raw: dict[str, str] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag in ("td", "br"):
            self.words.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("style", "script"):
            self.raw[self._open[-1]] = data
        else:
            self.words.append(data)


def qtable(*arguments: str | Path) -> None:
    """`qtable ARGUMENTS` in this process, recorded as people would have typed it."""
    words = [str(a) for a in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["qtable", *words])
        with pytest.raises(SystemExit) as ended:
            main(words)
    assert ended.value.code == 0


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two classes, a model, and a finished run on them in run/."""
    root = tmp_path_factory.mktemp("job")
    rng = np.random.default_rng(0)
    for name, strength in (("a", 30), ("b", 8)):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(PHOTOS // 2):
            noise = rng.normal(0, strength * rng.uniform(0.5, 1.5), (12, 16, 3)).repeat(2, 0).repeat(2, 1) + 128
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(root / "photos" / name / f"{i}.png")
    (root / "photos" / "a" / "broken.jpg").write_text("no photo")
    (root / "model.py").write_text(MODEL)
    qtable(
        "optimize", "--data", root / "photos", "--model", f"{root / 'model.py'}:net", "--budget", "9", "--max-drop",
        "30%", "--out", root / "run",
    )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def page(job: Path) -> str:
    """The report that the command writes by itself."""
    qtable("report", job / "run", "--price", "0.02")
    return (job / "run" / "report.html").read_text()


@pytest.fixture
def run(job: Path) -> Run:
    return Run.open(job / "run")


@pytest.fixture
def copy(job: Path, tmp_path: Path) -> Path:
    """A copy of the run folder, to break."""
    return shutil.copytree(job / "run", tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def said(change: float) -> str:
    return f"{abs(change):.1%} {'fewer' if change < 0 else 'more'}"


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    (folder / "summary.json").write_text(json.dumps(summary))


# ---- the figures ----------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_the_summary(job: Path, page: str) -> None:
    summary, seen = summary_of(job / "run"), Page(page)
    low, high = summary["bd_rate_ci"]
    assert high < 0  # of this run
    assert (
        f"At equal top-1 accuracy the found tables need {said(summary['bd_rate'])} bytes than the standard tables (95%"
        f" interval: {-high:.1%} to {-low:.1%} fewer), measured on {summary['n_test']} test photos." in seen.text
    )
    assert f"it looked like {said(summary['bd_rate_search'])}" in seen.text
    assert f"Uncompressed, the test photos reach {summary['clean']:.1%}" in seen.text
    assert len(three_savings(summary)) == 3
    for row in three_savings(summary):
        quality = f"standard quality {row['quality']} ({row['score']:.1%})"
        assert f"At the top-1 accuracy of {quality} the curves say {said(row['change'])} bytes" in seen.text
        before = next(p["bytes"] for p in summary["baseline"] if p["quality"] == row["quality"]) / 10  # 100 million, GB
        saved, least, most = (-before * x for x in (row["change"], *row["change_ci"][::-1]))
        cells = f"q{row['quality']} 100 {before:,.2f} {before - saved:,.2f} {saved:,.2f} {least:,.2f} to {most:,.2f}"
        assert f"{cells} {saved * 0.02:,.2f}" in seen.text
    named = [(p["tables"], p) for p in summary["front"]]
    named += [(f"standard quality {p['quality']}", p) for p in summary["baseline"]]
    for name, point in named:
        (small, large), (worst, best) = point["bytes_ci"], point["score_ci"]
        assert (
            f"{name} {point['bytes']:,.0f} bytes a photo ({small:,.0f} to {large:,.0f}),"
            f" {point['score']:.1%} top-1 accuracy ({worst:.1%} to {best:.1%})" in seen.text
        )
    for point in summary["front"]:
        for table in QTables.load(job / "run" / point["tables"]).values:
            assert " ".join(map(str, table.ravel().tolist())) in seen.text
    assert max_drop_sentence(summary["max_drop"], summary["n_test"]) in seen.text
    header = Archive(job / "run" / "archive.jsonl").header
    for fact in (header["command"], header["versions"]["torch"], f"test {summary['n_test']}", "1 unreadable files"):
        assert fact in seen.text


def test_a_run_that_goes_on_says_that_its_report_is_old(
    job: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def go_on(*more: str) -> list[str]:
        capsys.readouterr()
        qtable(
            "optimize", "--data", job / "photos", "--model", f"{job / 'model.py'}:net", "--out", copy, "--budget", "9",
            *more,
        )  # fmt: skip
        return capsys.readouterr().err.splitlines()

    assert not any("renews it" in line for line in go_on())
    (copy / "report.html").write_text("")
    assert f"{copy / 'report.html'} is from before; qtable report {copy} renews it" in go_on("--json")


def test_what_was_doubted_before_the_search_stands_below_the_headline(copy: Path) -> None:
    assert "numbered otherwise" not in Page(page_of(Run.open(copy), None, "none")).text
    write_summary(copy, summary_of(copy) | {"doubts": ["labels may be numbered otherwise <than> the outputs"]})
    assert "labels may be numbered otherwise <than> the outputs" in Page(page_of(Run.open(copy), None, "none")).text


def test_without_a_range_of_scores_in_common_no_saving_is_told(copy: Path) -> None:
    write_summary(copy, summary_of(copy) | {"bd_rate": None, "bd_rate_ci": [None, None]})
    flat = Run.open(copy)
    assert flat.savings == ()
    assert np.isnan(np.array(changes(flat, np.random.default_rng(0)))).all()
    seen = Page(page_of(flat, None, "none"))
    assert "Found and standard tables have no range of top-1 accuracy in common on" in seen.text
    assert "None can be told" in seen.text
    assert "Left out: found and standard tables have no range of top-1 accuracy in common." in seen.text


def test_tables_larger_than_the_standard_ones_are_said_to_be(run: Run) -> None:
    standard = run.standard[9]
    size = f"They are no smaller than {_spoken(standard)} ({standard.bytes.value:,.0f} bytes)"
    for use, said in ((run.standard[-1], True), (run.standard[0], False)):
        sentence = saving_sentence(run, replace(run.savings[0], standard=standard, use=use))
        assert (size in sentence) == said
        assert ("a larger --budget tries more." in sentence) == said


def test_what_is_so_by_definition_is_not_said(run: Run) -> None:
    assert any("Uncompressed" in note for note in _notes(run))
    assert not any("Uncompressed" in note for note in _notes(replace(run, annotated=False)))


def test_the_page_is_small_whole_and_links_to_what_it_has(page: str) -> None:
    seen = Page(page)
    assert len(page) < 2_000_000
    assert len(seen.ids) == len(set(seen.ids))
    targets = [value for _, attributes in seen.elements for name, value in attributes.items() if name.endswith("href")]
    local = {value[1:] for value in targets if value and value.startswith("#")}
    assert local <= set(seen.ids)
    panels = [a["id"] for tag, a in seen.elements if tag == "div" and (a.get("class") or "").startswith("panel ")]
    panels += [a["id"] for tag, a in seen.elements if tag == "div" and a.get("class") == "panel"]
    assert {panel for panel in panels if panel} <= local  # each can be reached
    sections = [a["id"] for tag, a in seen.elements if tag == "section"]
    assert sections == ["front", "tables", "rate", "sensitivity", "sizes", "worst", "volumes", "use", "provenance"]


def assert_closed(seen: Page) -> None:
    """Nothing is fetched, and one script runs: the report's own."""
    for tag, attributes in seen.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), (tag, attributes)
        assert not re.search(r"url\((?!#)|@import", attributes.get("style") or "")
    assert not re.search(r"url\(|@import|//", seen.raw["style"])
    assert [tag for tag, _ in seen.elements if tag in ("script", "link", "iframe", "object", "base", "form")] == [
        "script"
    ]
    policy = next(a["content"] for tag, a in seen.elements if tag == "meta" and a.get("http-equiv"))
    digest = base64.b64encode(hashlib.sha256(seen.raw["script"].encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_nothing_comes_from_elsewhere(page: str) -> None:
    assert_closed(Page(page))


def test_changes_are_paired(run: Run) -> None:
    """Tables whose files are four fifths of the standard ones, with the same answers: the change has no noise."""
    like = [replace(p, photo_bytes=p.photo_bytes * 5) for p in run.standard]
    smaller = [replace(p, photo_bytes=p.photo_bytes * 4) for p in run.standard]
    shifted = changes(replace(run, standard=tuple(like), found=tuple(smaller)), np.random.default_rng(0))
    assert np.allclose(np.array(shifted), -0.2, atol=1e-12)


def test_changes_are_those_of_the_curves(run: Run) -> None:
    standard, found = (
        Curve.fit([p.bytes.value for p in points], [p.score.value for p in points])
        for points in (run.standard, run.found)
    )
    for point, change in zip(run.found, changes(run, np.random.default_rng(0)), strict=True):
        level = float(np.interp(np.log(point.bytes.value), found.log_sizes, found.scores))
        assert change.value == pytest.approx(size_change(standard, found, level), nan_ok=True)
        assert math.isnan(change.value) or math.isnan(change.low) or change.low <= change.high


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (Estimate(-0.107, -0.125, -0.088), "need 10.7% fewer bytes than the standard tables (95% interval: 8.8% to 12"),
        (Estimate(-0.01, -0.03, 0.01), "No saving is proved. At equal top-1 accuracy the found tables need 1.0% fewer"),
        (Estimate(-0.01, -0.03, 0.01), "(95% interval: 3.0% fewer to 1.0% more)"),
        (Estimate(0.05, 0.02, 0.08), "No saving is proved. At equal top-1 accuracy the found tables need 5.0% more"),
        (Estimate(0.05, 0.02, 0.08), "(95% interval: 2.0% to 8.0% more)"),
        (Estimate(-0.2), "No saving is proved. At equal"),
        (Estimate(-0.2), "(95% interval: unknown, too few resamples reach this score)"),
        (Estimate(math.nan), "have no range of top-1 accuracy in common on"),
    ],
)  # fmt: skip
def test_the_headline_claims_what_is_proved(run: Run, change: Estimate, sentence: str) -> None:
    assert sentence in headline(replace(run, change=change))


# ---- where the bytes go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("entropy", [e for e in ENTROPIES if e != "progressive"])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_every_bit_of_a_file_is_counted_once(photo: RGB, asymmetric: QTables, subsampling: Any, entropy: Any) -> None:
    """What is left for the rest is the header, 0xFF's stuffing in the scan, and less than a byte of padding."""
    for tables in (asymmetric, QTables.standard(5), QTables.flat(1)):
        file = Codec(subsampling, entropy).encode(photo[:85, :70], tables)  # 11 x 9 blocks: MCUs need dummies
        parts, header = spent([file]), read_header(file)
        scan = file[-2 - header.scan_bytes : -2]
        padding = 8 * (parts.rest - header.header_bytes - scan.count(b"\xff\x00"))
        assert padding == pytest.approx(round(padding), abs=1e-6)
        assert 0 <= round(padding) < 8
        assert parts.total == pytest.approx(len(file))


def test_bits_belong_to_the_frequencies_that_have_them() -> None:
    row, column = 2, 5
    wave = np.outer(*(np.cos((2 * np.arange(8) + 1) * k * np.pi / 16) for k in (row, column)))
    grey = np.tile(128 + 60 * wave, (4, 6)).round().astype(np.uint8)
    parts = spent([Codec("4:4:4").encode(np.stack([grey] * 3, axis=2), QTables.flat(16))])
    taken = parts.frequencies.reshape(3, 8, 8)
    assert np.argwhere(taken[:, :, :] > 0).tolist() == [[0, 0, 0], [0, row, column], [1, 0, 0], [2, 0, 0]]
    assert taken[0, row, column] > 24 * 3 / 8  # a level of some bits in each of 24 blocks


def test_the_estimate_is_the_entropy_of_the_levels() -> None:
    """One luma frequency, half of its coefficients at 0, half at 20: a bit to say which, and half a bit of sign."""
    statistics = Sensitivity.zero()
    statistics.levels[0, 9, [0, 160]] = 40
    parts, coarse = spent_estimates(replace(statistics, photos=2), [QTables.flat(10), QTables.flat(50)])
    expected = np.zeros((3, 64))
    expected[0, 9] = (80 * 1 + 40) / 8 / 2
    assert parts.frequencies == pytest.approx(expected)
    assert coarse.total == 0


# ---- photos ---------------------------------------------------------------------------------------------------


def wronged(run: Run, count: int) -> list[int]:
    """Turn right answers of the chosen tables into wrong ones, each more clearly than the one before; the photos."""
    standard, chosen = run.nearest_standard(run.chosen), run.chosen
    before, after = standard.outcomes, chosen.outcomes
    assert isinstance(before, ClassOutcomes)
    assert isinstance(after, ClassOutcomes)
    for name, bits in after.hits.items():
        bits[:] = before.hits[name]
    after.cross_entropy[:] = before.cross_entropy
    photos = np.flatnonzero(before.hits["top-1"]).tolist()[:count]
    for i, photo in enumerate(photos):
        after.hits["top-1"][photo], after.cross_entropy[photo] = False, 10 + i
    return photos


def decoded(picture: str) -> RGB:
    """The pixels of a data URI."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.removeprefix("data:image/jpeg;base64,")))))


def test_the_worst_hit_come_first_with_both_of_their_files(job: Path, run: Run) -> None:
    photos = wronged(run, 8)
    images = reopen(run, PhotosSpec(str(job / "photos"), None, None))
    standard, worst = run.nearest_standard(run.chosen), _worst(run, images)
    assert worst is not None
    assert (worst["lost"], worst["gained"], worst["photos"]) == (8, 0, str(run.photos))
    assert len(worst["crops"]) == CROPS == 6
    labels, right = images.test.annotations, standard.outcomes.right()
    assert isinstance(labels, np.ndarray)
    assert right is not None
    for crop, i in zip(worst["crops"], photos[::-1], strict=False):
        assert crop["name"] == images.test.names[i]
        assert crop["class"] == images.classes[labels[i]]
        assert crop["bytes"] == [f"{p.photo_bytes[i]:,}" for p in (standard, run.chosen)]
        for picture, point in zip(crop["pictures"], (standard, run.chosen), strict=True):
            file = run.codec.encode(images.test.images[i], point.tables)
            assert len(file) == point.photo_bytes[i]
            assert np.abs(decoded(picture).astype(int) - run.codec.decode(file)).mean() < 3
    expected: list[dict[str, Any]] = []
    for label, name in enumerate(images.classes):
        mine = labels == label
        lost, before = int(mine[photos].sum()), int(right[mine].sum())
        if lost:
            expected.append({"name": name, "photos": int(mine.sum()), "before": before, "after": before - lost})
    assert worst["classes"]["rows"] == sorted(expected, key=lambda row: row["after"] - row["before"])


def test_large_photos_are_cropped_in_their_middle(monkeypatch: pytest.MonkeyPatch, run: Run, job: Path) -> None:
    images = reopen(run, PhotosSpec(str(job / "photos"), None, None))
    monkeypatch.setattr("qtable.report.worst.CROP_SIDE", 12)
    standard, found = run.standard[-1], run.found[-1]
    (crop,) = _crops(run, images, standard, found, [3])
    whole = run.codec.decode(run.codec.encode(images.test.images[3], standard.tables))
    assert np.abs(decoded(crop["pictures"][0]).astype(int) - whole[6:18, 10:22]).mean() < 3
    monkeypatch.setattr("qtable.report.worst.CROP_BYTES", 2 * len(crop["pictures"][0]))
    assert len(list(_crops(run, images, standard, found, [3, 4, 5]))) == 1


HOSTILE = (
    "</script><script>globalThis.injected = 1</script>",
    "\"'><img src=x onerror=globalThis.injected=1>",
    "{{ 7 * 7 }}{% for %}<!-- ${7*7}",
    "line\nbreak\x00\x1b[31m\u202egnp.\udcff",
)


def hostile(run: Run, images: ImageSet) -> tuple[Run, ImageSet]:
    """The same run and photos under names that try to become markup."""
    header = {
        **run.header,
        "command": HOSTILE[0],
        "commit": HOSTILE[1],
        "versions": {HOSTILE[1]: HOSTILE[2]},
        "photos": {"source": HOSTILE[3]},
        "skipped": [[HOSTILE[0], HOSTILE[1]], HOSTILE[2]],
    }
    names = tuple(HOSTILE[i % len(HOSTILE)] for i in range(len(images.test)))
    renamed = replace(images, test=replace(images.test, names=names), classes=HOSTILE[:2])
    return replace(run, header=header, folder=Path(HOSTILE[1]), metric=HOSTILE[0]), renamed


@pytest.fixture(scope="module")
def hostile_page(job: Path) -> str:
    run = Run.open(job / "run")
    wronged(run, 8)
    images = reopen(run, PhotosSpec(str(job / "photos"), None, None))
    bad, renamed = hostile(run, images)
    text = page_of(replace(bad, metric=run.metric), renamed)
    text.encode()  # lone surrogates are gone
    return text


def test_names_stay_names(hostile_page: str, page: str) -> None:
    seen = Page(hostile_page)
    assert_closed(seen)
    assert {tag for tag, _ in seen.elements} <= {tag for tag, _ in Page(page).elements} | {"img"}
    for name in HOSTILE[:3]:
        assert name in seen.text
    assert "8 went from right to wrong and 0 from wrong to right." in seen.text
    assert sum(tag == "img" for tag, _ in seen.elements) == 12
    assert r"break\x00\x1b[31m\u202egnp.\udcff" in seen.text
    assert not re.search("[\x00\x1b\u202e\ud800-\udfff]", hostile_page)


def test_a_hostile_metric_stays_a_word(run: Run) -> None:
    charts = _front_charts(replace(run, metric="$\\frac{<script>" + HOSTILE[3]), [Estimate(-0.1)] * len(run.found))
    for chart in charts:
        assert "&lt;script&gt;" in chart["svg"]
        assert "<script" not in chart["svg"]
        Page(chart["svg"])


def test_without_photos_the_rest_remains(job: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (copy / "archive.jsonl").read_text().splitlines(keepends=True)
    header = json.loads(lines[0])
    header["command"] = header["command"].replace(str(job / "photos"), "/nowhere")
    (copy / "archive.jsonl").write_text(json.dumps(header) + "\n" + "".join(lines[1:]))
    qtable("report", copy)
    seen = Page((copy / "report.html").read_text())
    why = "the photos could not be opened again (/nowhere: no such folder or file)"
    assert f"{why}; qtable report {copy} --data PHOTOS shows more" in " ".join(capsys.readouterr().err.split())
    assert f"Photos and classes are left out: {why}." in seen.text
    assert "went from right to wrong" in seen.text
    assert "An estimate: the entropy of the levels of the" in seen.text
    assert not any(tag == "img" for tag, _ in seen.elements)
    (copy / "statistics.npz").unlink()
    seen = Page(page_of(Run.open(copy), None, why))
    nothing = "the run has no statistics.npz, as its method asked the model for no gradients"
    assert f"Where the bytes go Left out: {why}, and to estimate it: {nothing}." in seen.text
    assert f"What the model feels Left out: {nothing}." in seen.text


def test_other_photos_are_refused(job: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    changed = shutil.copytree(job / "photos", tmp_path / "photos")
    (changed / "a" / "0.png").write_bytes((changed / "b" / "0.png").read_bytes())
    with pytest.raises(ReportError, match="not the photos of the run"):
        reopen(run, PhotosSpec(str(changed), None, None))
    with pytest.raises(ReportError, match="not as it resized them"):
        reopen(run, PhotosSpec(str(job / "photos"), 16, None))
    with pytest.raises(SystemExit) as ended:
        main(["report", str(job / "run"), "--data", str(changed), "-o", str(tmp_path / "x.html")])
    assert ended.value.code == 1
    assert "not the photos of the run" in capsys.readouterr().err
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("line", "source"),
    [
        ("qtable optimize", PhotosSpec(None, None, None)),
        ("qtable optimize --out x --data 'a b' --resize 64 --tables 1", PhotosSpec("a b", 64, None)),
        ("qtable optimize --data=c.csv --limit=9 --model m.py:net", PhotosSpec("c.csv", None, 9)),
        ("qtable compare --data x", "its command is qtable compare"),
        ("qtable optimize --resize big", "invalid int value"),
        ("qtable optimize --data 'x", "No closing quotation"),
        (None, "its command is not recorded"),
    ],
)
def test_the_photos_are_where_the_command_took_them(line: str | None, source: PhotosSpec | str) -> None:
    header = {} if line is None else {"command": line}
    if isinstance(source, PhotosSpec):
        assert recorded_source(header) == source
    else:
        with pytest.raises(ReportError, match=source):
            recorded_source(header)


# ---- folders that are none ------------------------------------------------------------------------------------


def no_summary(folder: Path) -> None:
    (folder / "summary.json").unlink()


def broken_json(folder: Path) -> None:
    (folder / "summary.json").write_bytes((folder / "summary.json").read_bytes()[:100])


def a_list(folder: Path) -> None:
    (folder / "summary.json").write_text("[]")


def auto(folder: Path) -> None:
    write_summary(folder, {"samplings": {}})


def train(folder: Path) -> None:
    write_summary(folder, {"points": []})


def no_baseline(folder: Path) -> None:
    write_summary(folder, {k: v for k, v in summary_of(folder).items() if k != "baseline"})


def words_for_numbers(folder: Path) -> None:
    write_summary(folder, summary_of(folder) | {"bd_rate": "much"})


def lists_for_numbers(folder: Path) -> None:
    write_summary(folder, summary_of(folder) | {"n_search": [3]})


def other_figures(folder: Path) -> None:
    summary = summary_of(folder)
    summary["front"][0]["bytes"] += 1
    write_summary(folder, summary)


def no_front(folder: Path) -> None:
    write_summary(folder, summary_of(folder) | {"front": []})


def no_archive(folder: Path) -> None:
    (folder / "archive.jsonl").unlink()


def cut_archive(folder: Path) -> None:
    lines = (folder / "archive.jsonl").read_text().splitlines(keepends=True)
    (folder / "archive.jsonl").write_text("".join(line for line in lines if '"split":"test"' not in line))


def no_tables(folder: Path) -> None:
    (folder / "tables" / "001.json").unlink()


def broken_tables(folder: Path) -> None:
    (folder / "tables" / "001.json").write_text('{"values": [[[0]]]}')


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shutil.rmtree, "no such folder; expected the folder of a finished qtable optimize"),
        (no_summary, "no summary.json; expected the folder of a finished qtable optimize"),
        (broken_json, "summary.json: not JSON"),
        (a_list, "summary.json: not a run's summary"),
        (auto, "a run of --subsampling auto; report on one of its two runs"),
        (train, "a run of qtable train; expected the folder of a finished qtable optimize"),
        (no_baseline, "not a whole run of qtable optimize (KeyError: 'baseline')"),
        (words_for_numbers, "could not convert string to float: 'much'"),
        (lists_for_numbers, "not a whole run of qtable optimize (TypeError"),
        (other_figures, "in archive.jsonl; the same qtable optimize command writes both anew"),
        (no_front, "no tables, or not all on the same photos"),
        (no_archive, "archive.jsonl: no archive there"),
        (cut_archive, "no evaluation of quality:5 on test, which summary.json has"),
        (no_tables, "001.json"),
        (broken_tables, "tables/001.json: quantization tables have shape"),
    ],
)
def test_broken_folders_get_one_clear_line(
    copy: Path, capsys: pytest.CaptureFixture[str], harm: Any, message: str
) -> None:
    harm(copy)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(copy)])
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("qtable: ")
    assert message in lines[0]
    assert not (copy / "report.html").exists()


def test_broken_statistics_are_left_out(copy: Path) -> None:
    (copy / "statistics.npz").write_bytes(b"PK")
    run = Run.open(copy)
    assert isinstance(run.statistics, str)
    assert "not a file of sensitivity statistics" in run.statistics


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--price", "0"], "--price 0.0; allowed: above 0"),
        (["--price", "inf"], "--price inf; allowed: above 0"),
        (["--resize", "16"], "--resize, --limit and --classes need --data"),
        (["-o", "{0}/model.py"], "model.py exists already; it is not overwritten"),
    ],
)
def test_mistakes_get_one_clear_line(
    job: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["report", str(job / "run"), *[a.format(job) for a in arguments]])
    assert ended.value.code == 1
    assert message in capsys.readouterr().err


# ---- how the tables are used ----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [Codec(), Codec("4:4:4", "progressive"), Codec("4:2:2", "standard")])
def test_the_commands_write_files_of_the_chosen_tables(
    run: Run, photo: RGB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Codec
) -> None:
    run = replace(run, codec=codec)
    commands = {command["name"]: command["text"] for command in _commands(run)}
    (tmp_path / "PHOTOS").mkdir()
    for name in ("IN.png", "IN.ppm", "PHOTOS/IN.png"):
        Image.fromarray(photo).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", commands["Pillow"]], check=True)
    Path("OUT.jpg").rename("pillow.jpg")
    export, cjpeg = commands["cjpeg"].splitlines()
    qtable(*shlex.split(export)[1:])
    qtable(*shlex.split(commands["a folder of photos"])[1:], "--workers", "1")
    written = ["pillow.jpg", "SMALLER/IN.jpg"]
    for name in written:
        assert Path(name).read_bytes() == codec.encode(photo, run.chosen.tables)
    if shutil.which("cjpeg"):
        subprocess.run(shlex.split(cjpeg), check=True)
        written.append("OUT.jpg")
    own = read_header(codec.encode(photo, run.chosen.tables))
    for name in written:
        header = read_header(Path(name).read_bytes())
        assert (header.tables, header.subsampling, header.mode) == (run.chosen.tables, codec.subsampling, own.mode)
        assert header.scan_bytes == own.scan_bytes


# ---- pictures -------------------------------------------------------------------------------------------------


def test_sensitivity_is_the_mean_squared_gradient_in_percent_of_the_greatest() -> None:
    statistics = Sensitivity(np.zeros((3, 64, BINS)), np.zeros((3, BINS)), np.zeros((3, 64, BINS)), 1)
    statistics.levels[:, :, 0] = 10
    statistics.costs[1, 0, [0, 5]] = 20
    statistics.costs[0, 8 * 3 + 4, 7] = 5
    figure, axes = plot.new_axes(3, 3)
    words = {t.get_position(): t.get_text() for t in plot.sensitivity(axes, statistics, 0).texts}
    assert words[4, 3] == "12"  # 5 of 40, in column 4 and row 3
    assert words[3, 4] == "0"
    assert plot.sensitivity(plot.new_axes(3, 3)[1], statistics, 1).texts[0].get_text() == "100"
    assert "<svg" in plot.svg(figure, "x")


def test_a_table_shows_its_entries_and_how_many_times_the_references_they_are(asymmetric: QTables) -> None:
    _, axes = plot.new_axes(3, 3)
    words = [t.get_text() for t in plot.table(axes, asymmetric, 0, QTables.flat(16)).texts]
    assert words[0] == "1\n\N{MULTIPLICATION SIGN}0.062"
    assert words[1] == "2\n\N{MULTIPLICATION SIGN}0.12"
    assert words[63] == "64\n\N{MULTIPLICATION SIGN}4"
    assert [t.get_text() for t in plot.table(plot.new_axes(3, 3)[1], asymmetric).texts[:2]] == ["1", "2"]


def test_places_are_where_the_svg_draws_the_points() -> None:
    figure, axes = plot.new_axes(5, 3)
    axes.plot([3, 700], [0.2, 0.9], "o")
    drawn = plot.svg(figure, "x")
    marks = [(float(x), float(y)) for x, y in re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)"', drawn)]
    for x, y in plot.places(axes, [3, 700], [0.2, 0.9]) * (5 * 72, 3 * 72):
        assert any(abs(x - left) < 0.5 and abs(y - top) < 0.5 for left, top in marks)


def test_svgs_bring_nothing_but_what_they_use() -> None:
    figure, axes = plot.new_axes(4, 3)
    plot.sizes(axes, np.array([3, 1, 2]), "<b>&", 0)
    axes.legend()
    drawn = plot.svg(figure, "x")
    assert not re.search("xmlns|http|<!|<style|<metadata|<b>", drawn)
    assert set(Page(drawn).ids) == set(re.findall(r'(?:href="|url\()#(\w+)', drawn))
    assert drawn == plot.svg(figure, "x")


def test_a_spectrum_sums_over_diagonals() -> None:
    _, axes = plot.new_axes(4, 3)
    values = np.arange(64.0)
    plot.spectrum(axes, [("one", values), ("two", 2 * values)])
    heights = [patch.get_height() for patch in axes.patches]
    expected = [sum(8 * u + v for u in range(8) for v in range(8) if u + v == d) for d in range(15)]
    assert heights == [*expected, *(2 * e for e in expected)]


# ---- in a browser ---------------------------------------------------------------------------------------------

PHONE, DESKTOP = (390, 844), (1280, 900)


class Screen:
    """Headless Chromium that lays pages out as wide as it is told."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, size: tuple[int, int], place: str = "") -> None:
        """A window of `size` pixels; a narrow one is a phone's, with touch."""
        phone = size[0] < 500
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": phone}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen"})
        self.driver.get("about:blank")  # a place alone would not load the page anew
        self.driver.get(page.as_uri() + place)

    def ask(self, script: str) -> Any:
        """What the body of a JavaScript function returns in the page."""
        return self.driver.execute_script(script)

    def shown(self) -> list[str]:
        """The panels that can be seen, and the points that have a ring."""
        shown: list[str] = self.ask(
            """
            const seen = (panel) => getComputedStyle(panel).visibility === "visible";
            const ringed = (a) => getComputedStyle(a.querySelector("circle")).stroke !== "none";
            const panels = [...document.querySelectorAll(".panel")].filter(seen).map((panel) => panel.id);
            const points = [...document.querySelectorAll(".over a")].filter(ringed);
            return [...new Set([...panels, ...points.map((a) => a.getAttribute("href").slice(1))])];
            """
        )
        return shown

    def points(self) -> dict[str, tuple[float, float]]:
        """Where on the screen the first chart has the points, by the panel that they lead to."""
        places: dict[str, list[float]] = self.ask(
            """
            document.querySelector("figure").scrollIntoView({block: "center"});
            return Object.fromEntries([...document.querySelector(".over").querySelectorAll("a")].map((a) => {
              const box = a.getBoundingClientRect();
              return [a.getAttribute("href").slice(1), [box.x + box.width / 2, box.y + box.height / 2]];
            }));
            """
        )
        return {name: (x, y) for name, (x, y) in places.items()}

    def tap(self, x: float, y: float, touch: bool) -> None:
        """A finger, or the left button of a mouse that was elsewhere."""
        kind = interaction.POINTER_TOUCH if touch else interaction.POINTER_MOUSE
        actions = ActionBuilder(self.driver, mouse=PointerInput(kind, kind), duration=0)
        actions.pointer_action.move_to_location(round(x), round(y)).pointer_down().pointer_up()
        actions.perform()

    def hover(self, x: float, y: float) -> None:
        actions = ActionBuilder(self.driver, duration=0)
        actions.pointer_action.move_to_location(round(x), round(y))
        actions.perform()


@pytest.fixture(scope="module")
def screen() -> Iterator[Screen]:
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver here (scripts/system.sh browser): the page is not looked at")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options, Service(driver))
    yield Screen(started)
    started.quit()


@pytest.fixture(scope="module")
def pages(job: Path, page: str, hostile_page: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report; the one of hostile names; and one with a metric of a long name, without photos."""
    folder = tmp_path_factory.mktemp("pages")
    long = page_of(replace(Run.open(job / "run"), metric=METRICS["agreement"]), None, "there are none")
    texts = {"report": page, "hostile": hostile_page, "long": long}
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}


OUTSIDE = """
const scrolls = (e) => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
const within = (e) => e !== null && (scrolls(e) || within(e.parentElement));
return [...document.body.querySelectorAll("*")].filter((e) => {
  const box = e.getBoundingClientRect();
  return (box.right > document.documentElement.clientWidth + 0.5 || box.left < -0.5) && !within(e.parentElement);
}).map((e) => e.outerHTML.slice(0, 200));
"""
FIGURES = """
const box = (e) => e.getBoundingClientRect();
const drawn = (e) => box(e).width + box(e).height > 0;
const inside = (a, b) =>
  a.left > b.left - 2 && a.right < b.right + 2 && a.top > b.top - 2 && a.bottom < b.bottom + 2;
const coloured = (e) => [getComputedStyle(e).fill, getComputedStyle(e).stroke].some((c) => {
  const [r, g, b] = c.match(/[\\d.]+/g) ?? [0, 0, 0];
  return r !== g || g !== b;
});
return [...document.querySelectorAll("figure svg:not(.over)")].map((svg) => {
  const words = [...svg.querySelectorAll("text")].filter(drawn);
  return {
    map: svg.closest(".maps") !== null,
    width: box(svg).width,
    height: box(svg).height,
    pictures: [...svg.querySelectorAll("image")].filter(drawn).length,
    words: words.length,
    marks: [...svg.querySelectorAll("use, path, rect")].filter((e) => drawn(e) && coloured(e)).length,
    smallest: Math.min(...words.map((e) => parseFloat(getComputedStyle(e).fontSize) * svg.getScreenCTM().a)),
    cut: words.filter((e) => !inside(box(e), box(svg))).map((e) => e.textContent),
  };
});
"""


@pytest.mark.parametrize("size", [(320, 640), PHONE, DESKTOP], ids=str)
@pytest.mark.parametrize("name", ["report", "hostile", "long"])
def test_it_fits_the_screen(screen: Screen, pages: dict[str, Path], name: str, size: tuple[int, int]) -> None:
    screen.open(pages[name], size)
    inner, scroll = screen.ask("return [innerWidth, document.scrollingElement.scrollWidth]")
    assert scroll <= inner == size[0]
    assert screen.ask(OUTSIDE) == []
    assert screen.ask("return globalThis.injected ?? null") is None
    assert screen.ask("return [...document.images].every((image) => image.naturalWidth > 0)")
    assert screen.driver.get_log("browser") == []  # nothing was refused, nothing failed


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=str)
@pytest.mark.parametrize("name", ["report", "long"])
def test_no_picture_is_empty_cut_or_too_small_to_read(
    screen: Screen, pages: dict[str, Path], run: Run, name: str, size: tuple[int, int]
) -> None:
    screen.open(pages[name], size)
    figures = screen.ask(FIGURES)
    charts, maps = ([f for f in figures if f["map"] == kind] for kind in (False, True))
    assert len(charts) == 5
    assert len(maps) == 3 + 2 * len({use.name for _, use in run.pairs})
    for figure in figures:
        assert figure["width"] >= 250
        assert figure["height"] >= 150
        assert figure["smallest"] >= 8.5
        assert figure["cut"] == []
    assert charts[0]["marks"] > len(run.found)
    assert all(figure["marks"] >= 5 for figure in charts)
    for figure in maps:
        assert figure["pictures"] == 1
        assert figure["words"] >= 64 + 2 * 8 + 2


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=str)
def test_a_point_shows_its_tables(
    screen: Screen, pages: dict[str, Path], job: Path, run: Run, size: tuple[int, int]
) -> None:
    screen.open(pages["report"], size)
    assert screen.shown() == [run.chosen.id]
    points, phone = screen.points(), size == PHONE
    assert set(points) == {p.id for p in (*run.found, *run.standard)}
    alone = {a: min(math.dist(points[a], points[b]) for b in points if b != a) for a in points}
    apart = sorted(points, key=lambda name: -alone[name])
    tried = [*apart[:2], *(p.id for p in run.found if alone[p.id] > 4)]
    for name in tried:
        screen.tap(*points[name], touch=phone)
        assert screen.shown() == [name]
    lone = apart[0]
    beside = points[lone][0] - min(12.0, alone[lone] / 3), points[lone][1]
    screen.tap(*beside, touch=phone)  # fingers are wide
    assert screen.shown() == [lone]
    point = next(p for p in (*run.found, *run.standard) if p.id == apart[1])
    if not phone:
        screen.hover(*points[point.id])
        assert screen.shown() == [point.id]
    screen.tap(*points[point.id], touch=phone)
    words = screen.ask(f"return document.getElementById({point.id!r}).innerText")
    assert f"{point.bytes.value:,.0f} bytes a photo" in " ".join(words.split())
    for table in point.tables.values:
        assert " ".join(map(str, table.ravel().tolist())) in " ".join(words.split())
    screen.ask(f"document.querySelector('.over a[href=\"#{run.found[0].id}\"]').focus()")
    assert screen.shown() == [run.found[0].id]


def test_links_lead_to_the_tables_that_they_name(screen: Screen, pages: dict[str, Path], run: Run) -> None:
    def in_view(name: str) -> bool:
        box = screen.ask(f"return document.getElementById({name!r}).getBoundingClientRect().toJSON()")
        return bool(0 <= box["top"] < box["bottom"] <= DESKTOP[1])

    screen.open(pages["report"], DESKTOP)
    for name in (run.found[-1].id, run.standard[0].id):
        screen.driver.find_element("css selector", f'td a[href="#{name}"]').click()
        assert screen.shown() == [name]
        assert in_view(name)
    screen.driver.back()
    assert screen.shown() == [run.found[-1].id]
    screen.open(pages["report"], DESKTOP, f"#{run.standard[-1].id}")
    assert screen.shown() == [run.standard[-1].id]
    assert in_view(run.standard[-1].id)
    screen.open(pages["report"], DESKTOP, "#use")
    assert screen.shown() == [run.chosen.id]


def test_on_paper_nothing_is_hidden_in_a_scroller(screen: Screen, pages: dict[str, Path]) -> None:
    screen.open(pages["report"], (718, 1000))  # A4 within margins of 1 cm
    screen.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    hidden = """
    return [...document.body.querySelectorAll(".scroll, .wide, .code")].filter(
      (e) => e.scrollWidth > e.clientWidth || e.scrollHeight > e.clientHeight).map((e) => e.outerHTML.slice(0, 200));
    """
    assert screen.ask(hidden) == []
    assert screen.ask(OUTSIDE) == []
    assert screen.ask("return document.querySelector('.screen').getClientRects().length") == 0
