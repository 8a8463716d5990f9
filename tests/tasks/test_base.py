"""Arrays and trees of tasks, and outcomes as values: what is packed, joined or picked is what it was."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qtable.tasks.base import Indices, Outcomes, leaves, mapped, packed, unpacked
from qtable.tasks.classification import METRICS, ClassOutcomes
from qtable.tasks.several import SideBySide

Array = npt.NDArray[Any]
DTYPES = ("bool", "u1", "i2", ">i4", "i8", "f4", ">f4", "f8")

# ---- arrays in JSON -------------------------------------------------------------------------------------------


@given(st.sampled_from(DTYPES).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, min_side=0))))
def test_arrays_unpack_to_what_was_packed(array: Array) -> None:
    text = packed(array)
    again = unpacked(json.loads(json.dumps(text)), array.dtype, array.shape)
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()  # NaN and -0.0 too
    assert packed(again) == text


@pytest.mark.parametrize("array", [np.arange(12, dtype=np.int32).reshape(3, 4), np.arange(12).reshape(3, 4) % 3 == 0])
def test_arrays_are_packed_in_their_own_order_whatever_memory_has(array: Array) -> None:
    turned = np.asfortranarray(array)[::-1]
    assert np.array_equal(unpacked(packed(turned), array.dtype, turned.shape), turned)
    assert packed(np.asfortranarray(array)) == packed(array)


def test_a_bool_is_a_bit_and_equal_bytes_take_little() -> None:
    random = np.random.default_rng(0).random(8000) < 0.5
    assert len(base64.b64decode(packed(random))) < 1000 + 20
    assert len(packed(np.ones(8000, np.float32))) < 100


@given(st.sampled_from(DTYPES), st.integers(0, 40), st.integers(0, 40))
def test_another_number_of_items_is_refused(dtype: str, held: int, asked: int) -> None:
    text = packed(np.zeros(held, dtype))
    same = held == asked or (dtype == "bool" and (held + 7) // 8 == (asked + 7) // 8)  # bits come by the byte
    if same:
        assert unpacked(text, dtype, (asked,)).shape == (asked,)
        return
    with pytest.raises(ValueError, match=r"a packed array of .* bytes"):
        unpacked(text, dtype, (asked,))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@@@@",
        "\u00e4\u00f6",
        "x" * 9999,
        packed(np.zeros(4))[:-3],
        " " + packed(np.zeros(4)),
        base64.b64encode(b"not deflated, by far").decode(),
        base64.b64encode(zlib.compress(bytes(32))[:-6]).decode(),
        base64.b64encode(zlib.compress(bytes(32))[:-1]).decode(),
        base64.b64encode(zlib.compress(bytes(32))[:-4] + b"sums").decode(),
        base64.b64encode(zlib.compress(bytes(32)) + b"more").decode(),
        base64.b64encode(zlib.compress(bytes(31))).decode(),
        base64.b64encode(zlib.compress(bytes(33))).decode(),
    ],
)
def test_what_is_no_packed_array_is_refused_in_a_short_line(text: str) -> None:
    with pytest.raises(ValueError, match="packed array") as error:
        unpacked(text, np.float64, (4,))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def test_a_bomb_takes_no_memory() -> None:
    """64 MB in 64 KB: whatever it holds beyond what was asked for is never inflated."""
    text = base64.b64encode(zlib.compress(bytes(1 << 26), 9)).decode()
    for dtype, shape in (("f4", (1000,)), ("bool", (1000,)), ("f8", (0,))):
        tracemalloc.start()
        with pytest.raises(ValueError, match="bytes or more; expected"):
            unpacked(text, dtype, shape)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000


# ---- trees ----------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Any
    second: Any


trees = st.recursive(
    st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.tuples(inner, inner).map(lambda two: Pair(*two))
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


def kinds(tree: Any) -> Any:
    """A tree's types, without its leaves."""
    if isinstance(tree, dict):
        return dict, [(key, kinds(value)) for key, value in tree.items()]
    return type(tree), [kinds(value) for value in tree] if isinstance(tree, list | tuple) else []


@given(trees)
def test_a_mapped_tree_has_its_form_and_other_leaves(tree: Any) -> None:
    found = mapped(tree, lambda leaf: leaf + 1)
    assert kinds(found) == kinds(tree)
    assert leaves(found) == [leaf + 1 for leaf in leaves(tree)]
    assert mapped(tree, lambda leaf: leaf) == tree


def test_leaves_come_in_order() -> None:
    tree = {"a": [1, Pair(2, {"c": 3})], "b": (4, (), [5]), "": {}}
    assert leaves(tree) == [1, 2, 3, 4, 5]
    doubled = mapped(tree, lambda leaf: 2 * leaf)
    assert doubled == {"a": [2, Pair(4, {"c": 6})], "b": (8, (), [10]), "": {}}
    assert type(doubled["a"][1]) is Pair
    assert leaves(7) == [7]


# ---- outcomes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Levels(Outcomes, kind="test-levels"):
    """The smallest kind: a number a photo, scored by the median, which is no mean over photos."""

    levels: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.levels)

    def subset(self, indices: Sequence[int] | Indices) -> Self:
        return type(self)(tuple(self.levels[i] for i in indices))

    def score(self) -> float:
        return float(np.median(self.levels))

    @classmethod
    def join(cls, parts: Sequence[Self]) -> Self:
        return cls(sum((part.levels for part in parts), ()))

    def to_dict(self) -> dict[str, Any]:
        return {"levels": list(self.levels)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], photos: int) -> Self:
        return cls(tuple(data["levels"]))


def test_another_kind_is_found_by_its_name_alone_and_beside_others() -> None:
    mine = Levels((0.25, 0.75, 1.0))
    assert mine.written()["kind"] == Levels.kind == "test-levels"
    assert Outcomes.read(mine.written(), 3) == mine
    assert (mine.right(), mine.losses(), mine.meaning) == (None, None, "")
    both = SideBySide((mine, some(3)))
    again = Outcomes.read(json.loads(json.dumps(both.written())), 3)
    assert isinstance(again, SideBySide)
    assert again.parts[0] == mine
    assert again.written() == both.written()
    assert again.score() == 0.75
    assert again.right() is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"kind": "never"},
            "outcomes of kind 'never': unknown here; known: classes, several, test-levels",
        ),
        ({"kind": 9999 * "x"}, ": unknown here; known: classes"),
        ({"kind": {"a": [1]}}, ": unknown here; known: classes"),
        ({"kind": "several", "parts": []}, "outcomes of no task"),
        ({"kind": "several", "parts": [{"kind": "none"}]}, "outcomes of kind 'none': unknown"),
        ({"kind": "classes", "metric": "mAP", "hits": {}}, "metric 'mAP' is unknown; allowed: top-1, top-5, agreement"),
    ],
)
def test_unknown_outcomes_are_refused_in_a_short_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        Outcomes.read(data, 2)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 200


def some(photos: int, seed: int = 0, metric: str = "top-1") -> ClassOutcomes:
    rng = np.random.default_rng(seed)
    hits = {name: rng.random(photos) < share for name, share in zip(METRICS, (0.4, 0.8, 0.6), strict=True)}
    return ClassOutcomes(metric, hits, rng.exponential(1, photos).astype(np.float32))


def columns(outcomes: ClassOutcomes) -> Array:
    """float64 [n, 4]."""
    return np.column_stack([*(outcomes.hits[name] for name in METRICS), outcomes.cross_entropy])


@pytest.mark.parametrize("metric", METRICS)
def test_the_score_of_class_outcomes_is_the_mean_of_their_hits(metric: str) -> None:
    outcomes = some(50, metric=metric)
    assert outcomes.score() == outcomes.hits[metric].mean() == outcomes.right().mean()
    assert outcomes.right().dtype == np.float64
    assert set(outcomes.right()) == {0.0, 1.0}
    assert outcomes.losses().tolist() == outcomes.cross_entropy.tolist()
    assert len({outcomes.by(name).score() for name in METRICS}) == 3


def test_by_another_metric_only_the_score_is_another() -> None:
    outcomes = some(50)
    other = outcomes.by("agreement")
    assert (outcomes.metric, other.metric) == ("top-1", "agreement")
    assert np.array_equal(columns(other), columns(outcomes))
    assert other.score() == outcomes.hits["agreement"].mean() != outcomes.score()
    assert outcomes.meaning == ""
    assert "uncompressed" in other.meaning


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.booleans())
def test_a_subset_has_photos_in_the_order_asked_for_as_often_as_asked_for(indices: list[int], as_array: bool) -> None:
    outcomes = some(10)
    found = outcomes.subset(np.array(indices) if as_array else indices)
    assert len(found) == len(indices)
    assert found.metric == outcomes.metric
    assert np.array_equal(columns(found), columns(outcomes)[indices])
    assert found.score() == pytest.approx(np.mean([outcomes.hits["top-1"][i] for i in indices]))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_joined_parts_come_one_after_the_other(sizes: list[int]) -> None:
    parts = [some(photos, seed, "top-5") for seed, photos in enumerate(sizes)]
    whole = ClassOutcomes.join(parts)
    assert len(whole) == sum(sizes)
    assert whole.metric == "top-5"
    assert np.array_equal(columns(whole), np.concatenate([columns(part) for part in parts]))
    ends = np.cumsum([0, *sizes])
    for part, a, b in zip(parts, ends[:-1], ends[1:], strict=True):
        assert whole.subset(range(a, b)).written() == part.written()
    both = SideBySide.join([SideBySide((part, part.by("agreement"))) for part in parts])
    assert [part.written() for part in both.parts] == [whole.written(), whole.by("agreement").written()]


@given(st.integers(1, 40), st.sampled_from(list(METRICS)))
def test_class_outcomes_read_back_as_they_were(photos: int, metric: str) -> None:
    outcomes = some(photos, photos, metric)
    again = ClassOutcomes.from_dict(json.loads(json.dumps(outcomes.to_dict())), photos)
    assert again.metric == metric
    assert np.array_equal(columns(again), columns(outcomes))
    assert all(again.hits[name].dtype == np.bool_ for name in METRICS)
    assert again.cross_entropy.dtype == np.float32
    assert again.written() == outcomes.written()
    for other in (photos + 8, 8 * photos + 1):
        with pytest.raises(ValueError, match="a packed array of"):
            ClassOutcomes.from_dict(outcomes.to_dict(), other)


@pytest.mark.parametrize("name", ["metric", "hits", "cross_entropy"])
def test_class_outcomes_without_a_part_are_refused(name: str) -> None:
    data = some(3).written()
    del data[name]
    with pytest.raises(KeyError, match=name):
        Outcomes.read(data, 3)
