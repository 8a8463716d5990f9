"""Files made by looking through networks: plain JPEG, the same bytes each time, no network but the lent one."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from qtable.codecs import task_aware
from qtable.codecs.base import Coder
from qtable.codecs.looking import Look, squared_gradients
from qtable.codecs.plain import TableCoder, open_coder, save_coder
from qtable.codecs.task_aware import EFFORTS, Effort, Network, Prepared, TaskAware, lend
from qtable.jpeg.codec import RGB, SUBSAMPLINGS, Codec, Subsampling, decode
from qtable.jpeg.coefficients import exact_size, read_coefficients
from qtable.jpeg.header import read_header
from qtable.jpeg.tables import QTables
from qtable.jpeg.trellis import code_lengths, objective, optimal_levels, rounded
from qtable.tasks.base import ModelError
from qtable.tasks.classification import Classifier
from qtable.tasks.opening import TaskSpec, weights_digest
from qtable.tasks.programs import Program
from tests.codecs.networks import SIZES, Broken, Corner, Cut, Small, coder, photos, small, usual

every_subsampling = pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
every_effort = pytest.mark.parametrize("effort", EFFORTS)
THREE = QTables(np.stack([np.full((8, 8), step) for step in (11, 17, 23)]))


@pytest.fixture(autouse=True)
def nothing_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test lends is lent to it alone, and nothing is known of its photos."""
    monkeypatch.setattr(task_aware, "_lent", {})
    monkeypatch.setattr(task_aware, "_kept", task_aware._Kept())
    task_aware._seen.cache_clear()


# ---- files ----------------------------------------------------------------------------------------------------


@every_effort
@every_subsampling
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_files_are_baseline_jpegs_that_decode_to_what_the_coder_said(
    height: int, width: int, subsampling: Subsampling, effort: Effort
) -> None:
    tables = THREE if effort == "crop" else QTables.standard(40)
    made = coder(effort=effort, codec=Codec(subsampling), tables=tables)
    images = photos(height, width, 2)
    for image, file, prepared in zip(images, made.encode_all(images), made.prepared(images), strict=True):
        levels, header = made.levels(prepared), read_header(file)
        assert (header.height, header.width, header.subsampling) == (height, width, subsampling)
        assert header.tables == tables
        assert (header.frame, header.precision, len(header.scans)) == (0, 8, 1)  # baseline
        for ours, stored in zip(levels, read_coefficients(file), strict=True):
            assert np.array_equal(ours, stored)
        assert len(file) == exact_size(levels, tables.count, subsampling)
        with Image.open(io.BytesIO(file)) as opened:
            assert opened.format == "JPEG"
            assert np.array_equal(np.asarray(opened), decode(file))
        assert np.array_equal(made.decode(file), decode(file))
        assert decode(file).shape == image.shape
        assert made.encode(image) == file


@every_subsampling
def test_worth_nothing_a_bit_levels_are_nearly_those_of_rounding(subsampling: Subsampling) -> None:
    image = photos(33, 50, 1)[0]
    made = coder(multiplier=0.0, effort="frequency", codec=Codec(subsampling))
    (prepared,) = made.prepared([image])
    for ours, plain in zip(made.levels(prepared), rounded(prepared.planes, made.quantization), strict=True):
        assert np.abs(ours.astype(int) - plain).max() <= 1
        assert (ours == plain).mean() > 0.99
    none = replace(made, iterations=0)
    assert none.encode(image) == Codec(subsampling).encode(image, made.quantization)  # byte for byte the plain file


@every_effort
@every_subsampling
def test_dearer_bits_make_smaller_files_and_no_larger_objective_than_rounding(
    subsampling: Subsampling, effort: Effort
) -> None:
    image = photos(131, 93, 1)[0]
    sizes = []
    for price in (0.0, 0.003, 0.03, 0.3, 3.0):
        made = coder(multiplier=price, effort=effort, codec=Codec(subsampling))
        (prepared,) = made.prepared([image])
        sizes.append(len(made.encode(image)))
        plain = rounded(prepared.planes, made.quantization)
        lengths = code_lengths(plain, subsampling)
        best = optimal_levels(*prepared, made.quantization, price, subsampling, lengths)
        costs = [
            objective(*prepared, made.quantization, price, levels, subsampling, lengths) for levels in (best, plain)
        ]
        assert costs[0] <= costs[1] * (1 + 1e-9)
        assert replace(made, iterations=1).levels(prepared)[0].tolist() == best[0].tolist()
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 0.6 * sizes[0]


def test_nothing_is_spent_where_the_network_does_not_look() -> None:
    image = photos(131, 93, 2)[0]
    at_corner = Classifier(Corner(0, 0, 16), "agreement")
    for effort in ("crop", "photo"):
        y, cb, cr = read_coefficients(coder(at_corner, effort=effort, multiplier=1e-5).encode(image))
        assert np.ptp(y[4:, :, 0, 0]) == np.ptp(cb[2:, :, 0, 0]) == 0  # what is unseen costs no difference
        for plane in (y, cb, cr):
            ac = plane.copy()
            ac[..., 0, 0] = 0
            assert not ac[2:].any()
            assert not ac[:, 2:].any()
        ac = y[:2, :2].copy()
        ac[..., 0, 0] = 0
        assert ac.any()


def test_weights_of_several_networks_are_averaged() -> None:
    image, tasks = photos(33, 50, 2)[0], (small(), small(1))
    both = coder(*tasks).prepared([image])[0].weights
    alone = [coder(task).prepared([image])[0].weights for task in tasks]
    for ours, one, two in zip(both, *alone, strict=True):
        np.testing.assert_allclose(ours, (one + two) / 2, rtol=1e-5)


# ---- the same bytes -------------------------------------------------------------------------------------------


@every_effort
@every_subsampling
def test_a_photos_file_does_not_depend_on_its_company(
    subsampling: Subsampling, effort: Effort, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = photos(40, 48, 6)
    made = coder(effort=effort, codec=Codec(subsampling))

    def fresh() -> None:
        monkeypatch.setattr(task_aware, "_kept", task_aware._Kept())

    together, weights = made.encode_all(images), [each.weights for each in made.prepared(images)]
    fresh()
    alone = [made.encode(image) for image in images]
    weights_alone = [made.prepared([image])[0].weights for image in images]
    fresh()
    turned = made.encode_all(images[::-1])[::-1]
    assert together == alone == turned
    for one, other in zip(weights, weights_alone, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert made.encode_all([images[2], images[0]]) == [together[2], together[0]]  # found again, in their order


REMAKE = """
import sys
from pathlib import Path
import numpy as np, torch
torch.set_num_threads(1)
from qtable.codecs.plain import open_coder
from qtable.codecs.task_aware import lend
from qtable.jpeg.codec import Codec
from tests.codecs.networks import photos, small
lend(small())
coder = open_coder(sys.argv[1], Codec())
for i, photo in enumerate(photos(40, 48, 3)):
    Path(sys.argv[2], f"{i}.jpg").write_bytes(coder.encode(photo))
"""


@every_effort
def test_another_process_makes_the_same_bytes_of_the_table_file(tmp_path: Path, effort: Effort) -> None:
    made = coder(effort=effort, codec=Codec("4:2:2"))
    save_coder(made, tmp_path / "coder.json")
    subprocess.run([sys.executable, "-c", REMAKE, tmp_path / "coder.json", tmp_path], check=True, timeout=120)
    files = [(tmp_path / f"{i}.jpg").read_bytes() for i in range(3)]
    assert files == made.encode_all(photos(40, 48, 3))


def test_photos_of_the_same_bytes_and_another_shape_are_not_taken_for_each_other() -> None:
    image = photos(16, 32, 2)[0]
    other = image.reshape(32, 16, 3)
    made = coder()
    assert decode(made.encode(image)).shape == (16, 32, 3)
    assert decode(made.encode(other)).shape == (32, 16, 3)


# ---- written and read -----------------------------------------------------------------------------------------


@every_effort
def test_a_coder_in_words_is_the_coder(tmp_path: Path, effort: Effort) -> None:
    look = Look(20, 2, 0.5, 0.7, 0.3, 4)
    made = replace(coder(small(), small(1), effort=effort, codec=Codec("4:4:4"), tables=THREE, look=look), iterations=3)
    read = Coder.read(json.loads(json.dumps(made.written())))
    assert read == made
    assert hash(read) == hash(made)
    assert read.written() == made.written()
    image = photos(33, 50, 1)[0]
    assert read.encode(image) == made.encode(image)
    save_coder(made, tmp_path / "coder.json")
    assert open_coder(str(tmp_path / "coder.json"), Codec()) == made
    assert QTables.load(tmp_path / "coder.json") == THREE
    assert QTables.parse(str(tmp_path / "coder.json")) == THREE


def test_coders_that_differ_in_anything_are_not_equal() -> None:
    one = coder()
    others = [
        replace(one, multiplier=0.03),
        replace(one, effort="crop"),
        replace(one, iterations=1),
        replace(one, look=Look(seed=1)),
        replace(one, codec=Codec("4:4:4")),
        replace(one, quantization=THREE),
        replace(one, networks=coder(small(1)).networks),
    ]
    assert len({json.dumps(each.written(), sort_keys=True) for each in (one, *others)}) == 1 + len(others)
    assert all(each != one for each in others)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.pop("networks"),
        lambda data: data.update(networks=[]),
        lambda data: data.update(networks=[{**data["networks"][0], "feeling": [1.0] * 191}]),
        lambda data: data.update(networks=[{**data["networks"][0], "feeling": [-1.0] * 192}]),
        lambda data: data.update(networks=[{**data["networks"][0], "error": [float("nan")] * 192}]),
        lambda data: data.update(networks=[{**data["networks"][0], "code": "os.system"}]),
        lambda data: data.update(networks=7),
        lambda data: data.update(effort="all"),
        lambda data: data.update(multiplier=-1),
        lambda data: data.update(multiplier="x"),
        lambda data: data.update(iterations=-1),
        lambda data: data.update(subsampling="4:1:1"),
        lambda data: data.update(look={"quality": 0}),
        lambda data: data.update(look={"depth": 3}),
        lambda data: data.update(look={**data["look"], "more\nwords": 3}),
        lambda data: data.update(tables=[[[0] * 8] * 8]),
        lambda data: data.update(kind="mine"),
    ],
)
def test_files_that_hold_no_coder_get_one_clear_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    file = tmp_path / "coder.json"
    save_coder(coder(), file)
    data = json.loads(file.read_bytes())
    change(data["coder"])
    file.write_text(json.dumps(data))
    with pytest.raises(ValueError, match="not a coder that qtable wrote") as error:
        open_coder(str(file), Codec())
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effort": "all"}, "effort 'all' is unknown; allowed: frequency, crop, photo"),
        ({"codec": Codec(entropy="progressive")}, "optimized Huffman tables, not entropy coding progressive"),
        ({"codec": Codec(entropy="standard")}, "not entropy coding standard"),
        ({"multiplier": -0.1}, "multiplier -0.1"),
        ({"multiplier": float("nan")}, "multiplier nan"),
        ({"multiplier": float("inf")}, "multiplier inf"),
        ({"networks": ()}, "0 networks"),
        ({"iterations": -1}, "-1 iterations"),
    ],
)
def test_coders_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(coder(), **change)


# ---- networks -------------------------------------------------------------------------------------------------


def test_a_network_that_was_not_lent_is_named_and_no_code_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef net(): pass\n")
    made = coder(small(), model=f"{tmp_path / 'mine.py'}:net")
    image = photos(16, 16, 2)[0]
    for effort in ("photo", "crop"):
        monkeypatch.setattr(task_aware, "_lent", {})
        with pytest.raises(
            ModelError, match=r"looking through .*mine\.py:net \(weights [0-9a-f]{8}\): name that model$"
        ):
            replace(made, effort=effort).encode(image)
        other = lend(small(1))
        with pytest.raises(ModelError, match=rf"name that model; given are others, of weights {other[:8]}"):
            replace(made, effort=effort).encode(image)
    assert not (tmp_path / "ran").exists()
    lend(small())
    assert made.encode(image)


def test_one_changed_weight_is_another_network() -> None:
    made, changed = coder(small()), Small()
    task_aware._lent.clear()
    with torch.no_grad():
        changed.head.bias[0] += 1e-6
    lend(Classifier(changed, "agreement"))
    with pytest.raises(ModelError, match="given are others"):
        made.encode(photos(16, 16, 2)[0])


def test_frequencies_alone_ask_no_network() -> None:
    made = coder(effort="frequency")
    task_aware._lent.clear()
    assert made.encode(photos(33, 50, 2)[0])
    assert not task_aware._lent


def test_the_embedded_network_is_lent_when_it_is_needed() -> None:
    digest = weights_digest(TaskSpec(metric="agreement").open().model)
    network = Network(None, digest, tuple(usual().feeling.ravel()), tuple(usual().error.ravel()))
    assert replace(coder(), networks=(network,)).encode(photos(33, 50, 2)[0])
    with pytest.raises(ModelError, match="looking through the embedded network"):
        replace(network, weights="0" * 64).task()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Cut(), "the model gives no gradients to the pixels"),
        (lambda: Program(lambda rgb: rgb.detach().mean((2, 3)), (None, 3, None, None), "x"), "gives no gradients"),
        (lambda: Broken(), "the model answers NaN or infinity"),
    ],
)
def test_networks_that_cannot_be_looked_through(model: Callable[[], torch.nn.Module], message: str) -> None:
    made = coder(Classifier(model(), "agreement"))
    dark = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ModelError, match=message) as error:
        made.encode(dark)
    assert "\n" not in str(error.value)


def test_gradients_that_are_no_numbers() -> None:
    class Root(torch.nn.Module):
        def forward(self, rgb: Tensor) -> Tensor:
            return (rgb - rgb.detach()).abs().sqrt().mean((2, 3))

    with pytest.raises(ModelError, match="gradient to the pixels is NaN or infinite"):
        coder(Classifier(Root(), "agreement")).encode(photos(16, 16, 2)[0])


@every_effort
def test_labels_are_never_looked_at(effort: Effort) -> None:
    class Blind(Classifier):
        def refuse(self, *_: Any) -> Any:
            raise AssertionError("labels")

        log_likelihood = targets = outcomes = crop = divergence = refuse  # type: ignore[assignment]

    image = photos(33, 50, 2)[0]
    assert coder(Blind(Small(), "top-1"), effort=effort).encode(image) == coder(small(), effort=effort).encode(image)


# ---- what is kept ---------------------------------------------------------------------------------------------


def prepared(size: int) -> Prepared:
    plane = np.zeros((size, 1, 8, 8), np.float32)
    return Prepared((plane, plane, plane), (plane, plane, plane))


def test_the_latest_weights_are_kept_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    one = 6 * 256 * 4
    monkeypatch.setattr(task_aware, "MOST_KEPT", 3 * one)
    kept = task_aware._Kept()
    for key in "abc":
        kept.put(key, prepared(4))
    assert kept.get("a") is not None  # used: "b" is now the oldest
    kept.put("a", prepared(4))  # once more: counted once
    kept.put("d", prepared(4))
    assert [key for key in "abcd" if kept.get(key) is not None] == ["a", "c", "d"]
    assert kept._bytes == 3 * one
    kept.put("large", prepared(100))
    assert kept.get("large") is None
    assert kept._bytes == 0


def test_many_threads_may_ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_aware, "MOST_KEPT", 6 * 64 * 4 * 40)
    made, images = coder(), photos(16, 16, 12)
    expected = [made.encode(image) for image in images]
    monkeypatch.setattr(task_aware, "_kept", task_aware._Kept())

    def ask(i: int) -> tuple[RGB | int, bytes]:
        return i % 12, made.encode(images[i % 12])

    with ThreadPoolExecutor(8) as pool:
        for i, file in pool.map(ask, range(240)):
            assert file == expected[int(i)]
    held = task_aware._kept
    assert 0 < held._bytes <= task_aware.MOST_KEPT
    assert held._bytes == sum(task_aware._size(each) for each in held._items.values())


def test_the_network_is_asked_once_for_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(task: Any, images: Any, codec: Codec, look: Look) -> Any:
        asked.append(len(images))
        return original(task, images, codec, look)

    original = squared_gradients
    monkeypatch.setattr(task_aware, "squared_gradients", counted)
    images = photos(16, 16, 4)
    for price, tables in itertools.product((0.01, 0.1), (THREE, QTables.standard(30))):
        coder(multiplier=price, tables=tables).encode_all(images)
    assert sum(asked) == 4
    coder(look=Look(mix=0.5)).encode_all(images)
    assert sum(asked) == 8


def test_names_for_people() -> None:
    assert coder().name == "task-aware (photo), 4:2:0"
    assert isinstance(coder().tables, QTables)
    assert not isinstance(coder(), TableCoder)
    assert isinstance(Coder.read(coder().written()), TaskAware)
