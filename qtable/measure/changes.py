"""What a user changed between two runs in one folder, in the words of the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

_OPTIONS: Final = ("metric", "method", "tables", "seed", "start", "racing", "subsampling", "entropy")
"""What of an identity has the name of an option; all of a training's recipe and family has."""
_OF_PHOTOS: Final = ("data", "resize", "limit", "thin", "classes")
"""Options that choose photos and labels."""


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A phrase for each thing that differs between the identities of two headers; none if they are equal.

    before, now: {"identity": {...}}, and where known "command", "photos", "versions", which explain a digest. What only
    follows from another difference (other photos have other answers) is left out.
    """
    old, new = _flat(before.get("identity", {})), _flat(now["identity"])
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    unexplained = not {"data", "model", "--racing"} & set(keys)
    phrases: list[str] = []
    for key in keys:
        was, is_now = old.get(key), new.get(key)
        if key == "data":
            phrases += _photos(before, now)
        elif key == "model":
            phrases.append(_model(str(was), str(is_now)))
        elif key == "plan":
            phrases += _plan(str(was), str(is_now))
        elif key == "through":
            phrases.append("the networks that files are made for (--model) differ, or their weights do")
        elif key.startswith("judges "):
            phrases.append(_judge(key.removeprefix("judges "), was, is_now))
        elif key == "effort" and None in (was, is_now):
            phrases.append(_phrase("--encoder", *("task-aware" if value else "tables" for value in (was, is_now))))
        elif key != "answers":
            phrases.append(_phrase(key, was, is_now))
        elif unexplained:
            phrases.append("the model answers otherwise on the same photos (its code or its preprocessing changed)")
            phrases += _versions(before, now)
    return phrases


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Values by the names that people know: options with their dashes, "judges NAME" and so on for nested ones."""
    flat: dict[str, Any] = {}
    for key, value in identity.items():
        for inner, leaf in value.items() if isinstance(value, Mapping) else [("", value)]:
            name = inner or key
            option = key in ("recipe", "family") or (key != "judges" and name in _OPTIONS)
            flat[_option(name) if option else f"{key} {inner}".strip()] = leaf
    return flat


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _phrase(name: str, was: Any, now: Any) -> str:
    """ "--seed was 0, now 1"."""
    return f"{name} was {_value(was)}, now {_value(now)}"


def _value(value: Any) -> str:
    words = {"None": "none", "True": "on", "False": "off"}
    return words.get(str(value), f"{value!s:.200}")


def _photos(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Why the photos or their labels are others."""
    old, new = (_options(header.get("command")) for header in (before, now))
    asked = [name for name in _OF_PHOTOS if old.get(name) != new.get(name)]
    yield from (_phrase(_option(name), old.get(name), new.get(name)) for name in asked)
    if asked:
        return
    then, later = (_counts(header.get("photos")) for header in (before, now))
    if then and later and then != later:
        yield f"the photos are others: {then} then, {later} now"
    else:
        yield "the photos differ in their pixels, labels or order"
        yield from _versions(before, now)


def _options(command: Any) -> dict[str, str]:
    """The last value of each option of a recorded command."""
    try:
        words = shlex.split(str(command or ""))
    except ValueError:
        return {}
    options: dict[str, str] = {}
    for word, value in zip(words, [*words[1:], ""], strict=False):
        name, equals, given = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            options[name] = given if equals else value
    return options


def _counts(photos: Any) -> str:
    if not isinstance(photos, Mapping):
        return ""
    return ", ".join(f"{count} {name}" for name, count in photos.items() if isinstance(count, int))


def _model(was: str, now: str) -> str:
    """Of "NAME DIGEST"."""
    (name, _, weights), (new_name, _, new_weights) = was.rpartition(" "), now.rpartition(" ")
    if name == new_name:
        return f"the weights or the layers of the model {name} differ"
    same = " (with the same weights)" if weights == new_weights else ""
    return f"--model was {name}, now {new_name}{same}"


def _judge(name: str, was: Any, now: Any) -> str:
    if was is None or now is None:
        return f"--judge {name} is {'new' if was is None else 'gone'}"
    return f"the weights of the judge {name} differ"


def _plan(was: str, now: str) -> Iterator[str]:
    """Of the `repr` of two plans."""
    old, new = (dict(re.findall(r"(\w+)='?([^,')]+)", text)) for text in (was, now))
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            yield _phrase(_option("tables" if name == "count" else name), old.get(name), new.get(name))


def _versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Of libraries that may explain other answers and pixels."""
    old, new = before.get("versions"), now.get("versions")
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in new:
            if old.get(name) != new[name]:
                yield f"{name} was {_value(old.get(name))}, now {new[name]}"
