"""What differs between two runs, in the words of the command line."""

from __future__ import annotations

from typing import Any

import pytest

from qtable.measure.changes import changes

IDENTITY = {
    "data": "aa", "model": "m.py:net 11", "metric": "top-1 accuracy", "answers": "cc", "seed": 0, "racing": False,
    "effort": None, "codec": {"subsampling": "4:2:0", "libjpeg-turbo": "3.1"}, "judges": {"j.py:net": "77"},
    "through": [], "recipe": {"table_rate": 0.01}, "plan": "Plan(method='random', budget=9, count=2, start=None)",
}  # fmt: skip
HEADER = {
    "identity": IDENTITY,
    "command": "qtable optimize --data 'my photos' --resize 256 --seed 0",
    "photos": {"source": "my photos", "fit": 9, "search": 4, "test": 4},
    "versions": {"qtable": "1", "pillow": "11"},
}


@pytest.mark.parametrize(
    ("changed", "more", "phrases"),
    [
        ({}, {"command": "qtable optimize --workers 3"}, []),
        ({"seed": 1, "racing": True, "answers": "dd"}, {}, ["--racing was off, now on", "--seed was 0, now 1"]),
        ({"effort": "crop"}, {}, ["--encoder was tables, now task-aware"]),
        ({"data": "b", "answers": "d"}, {"command": "qtable train --data 'my photos'"}, ["--resize was 256, now none"]),
        (
            {"data": "bb", "model": "m.py:net 22", "answers": "dd"},
            {"command": "qtable optimize --data b --resize=256 --limit 9"},
            [
                "--data was my photos, now b", "--limit was none, now 9",
                "the weights or the layers of the model m.py:net differ",
            ],
        ),
        (
            {"data": "bb"},
            {"photos": {"source": "x", "fit": 8, "search": 4, "test": 4}},
            ["the photos are others: 9 fit, 4 search, 4 test then, 8 fit, 4 search, 4 test now"],
        ),
        (
            {"data": "bb"},
            {"versions": {"qtable": "1", "pillow": "13"}},
            ["the photos differ in their pixels, labels or order", "pillow was 11, now 13"],
        ),
        ({"model": "n.pt2 22"}, {}, ["--model was m.py:net, now n.pt2"]),
        ({"model": "n.pt2 11"}, {}, ["--model was m.py:net, now n.pt2 (with the same weights)"]),
        (
            {"answers": "dd"},
            {"versions": {"qtable": "2", "pillow": "11"}},
            [
                "the model answers otherwise on the same photos (its code or its preprocessing changed)",
                "qtable was 1, now 2",
            ],
        ),
        ({"judges": {"k.py:net": "88"}}, {}, ["--judge j.py:net is gone", "--judge k.py:net is new"]),
        ({"judges": {"j.py:net": "88"}}, {}, ["the weights of the judge j.py:net differ"]),
        ({"through": ["1"]}, {}, ["the networks that files are made for (--model) differ, or their weights do"]),
        ({"recipe": {"table_rate": 0.1}}, {}, ["--table-rate was 0.01, now 0.1"]),
        (
            {"codec": {"subsampling": "4:4:4", "libjpeg-turbo": "3.2"}},
            {},
            ["--subsampling was 4:2:0, now 4:4:4", "codec libjpeg-turbo was 3.1, now 3.2"],
        ),
        (
            {"plan": "Plan(method='random', budget=10, count=1, start='a b')"},
            {},
            ["--budget was 9, now 10", "--tables was 2, now 1", "--start was none, now a b"],
        ),
        ({"more": 1}, {}, ["more was none, now 1"]),
    ],
)  # fmt: skip
def test_changes(changed: dict[str, Any], more: dict[str, Any], phrases: list[str]) -> None:
    now = {**HEADER, **more, "identity": {**IDENTITY, **changed}}
    assert sorted(changes(HEADER, now)) == sorted(phrases)


@pytest.mark.parametrize("junk", [{}, {"command": "qtable 'torn", "photos": 3, "versions": []}, {"command": None}])
def test_headers_that_do_not_explain_themselves(junk: dict[str, Any]) -> None:
    now = {"identity": {**IDENTITY, "data": "bb"}}
    assert changes({"identity": IDENTITY, **junk}, now) == ["the photos differ in their pixels, labels or order"]
