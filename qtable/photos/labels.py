"""Labels as they are written -> class indices: `numbered`. A class index is never guessed from a mixture."""

from __future__ import annotations

import json
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qtable.photos.files import DataError
from qtable.photos.where import RemotePath, Where, read_file, where
from qtable.storage import StorageError

MAX_LABEL: Final = (1 << 31) - 1
"""No model has more classes."""
MAX_LIST_BYTES: Final = 1 << 24
"""A class list is no larger."""
_INDEX: Final = re.compile(r"([0-9]+)(\.0*)?")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
WORDNET: Final = re.compile(r"n[0-9]{8}")
"""What ImageNet's class folders are called."""
IMAGENET: Final = 1000


@dataclass(frozen=True)
class ClassList:
    """The classes of a network in the order of their indices.

    names: one for each index. words: whatever a label may say for an index, in Unicode's form NFC; None where it would
    stand for two.
    """

    path: Where
    names: tuple[str, ...]
    words: Mapping[str, int | None]

    @classmethod
    def open(cls, path: str | Path) -> ClassList:
        """A text file with a name a line (index 0 first), or JSON: [name, ...], {name: index}, {index: name},
        {index: [WordNet id, name]} or a configuration with `id2label`.

        DataError in one line for anything else, for empty lines, for names that stand twice and for missing indices.
        """
        try:
            file = where(path)
            file = file.as_file() if isinstance(file, RemotePath) else file
            if not _may_be_list(file):
                raise DataError(f"{path}: no class list: not a file of at most {MAX_LIST_BYTES:,} bytes")
            text = read_file(file).decode("utf-8-sig")
        except StorageError as error:
            raise DataError(f"the class list cannot be read: {error}") from None
        except OSError as error:
            raise DataError(f"{path}: the class list cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not a class list in UTF-8: {error}") from None
        named = _of_json(file, text) if text.lstrip()[:1] in ("{", "[") else _of_lines(file, text)
        if len(named) < 2:
            raise DataError(f"{path}: {len(named)} class names; a class list has at least two")
        return cls(file, tuple(words[-1] for words in named), _words(file, named))


def _may_be_list(path: Where) -> bool:
    if isinstance(path, RemotePath):
        return path.store.size(path.inner) <= MAX_LIST_BYTES
    status = path.stat()
    return stat.S_ISREG(status.st_mode) and status.st_size <= MAX_LIST_BYTES


def _of_lines(path: Where, text: str) -> list[tuple[str, ...]]:
    lines = [line.strip() for line in text.splitlines()]
    for number, line in enumerate(lines, start=1):
        if not line:
            raise DataError(f"{path}: line {number} is empty; a class list has one name a line, that of index 0 first")
    pairs = [tuple(line.split(maxsplit=1)) for line in lines]
    if all(len(pair) == 2 and WORDNET.fullmatch(pair[0]) for pair in pairs):
        return pairs
    return [(line,) for line in lines]


def _of_json(path: Where, text: str) -> list[tuple[str, ...]]:
    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise DataError(f"{path}: {key!r:.60} stands twice")
            found[key] = value
        return found

    try:
        data = json.loads(text, object_pairs_hook=once)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from None
    if isinstance(data, dict) and isinstance(data.get("id2label"), dict):
        data = data["id2label"]
    if isinstance(data, dict) and data and all(type(value) is int for value in data.values()):
        data = _by_index(path, data)
    if isinstance(data, dict):
        missing = next((i for i in range(len(data)) if str(i) not in data), None)
        if missing is not None:
            raise DataError(f"{path}: {len(data)} classes, but none has index {missing}; indices are 0, 1, 2, ...")
        data = [data[str(i)] for i in range(len(data))]
    if not isinstance(data, list):
        raise DataError(f"{path}: a class list in JSON is a list of names, or an object of names and indices")
    named = [tuple(entry) if isinstance(entry, list) else (entry,) for entry in data]
    for i, words in enumerate(named):
        if not words or not all(isinstance(word, str) and word.strip() for word in words):
            raise DataError(f"{path}: class {i} is {data[i]!r:.60}; a name is text that is not empty")
    return [tuple(word.strip() for word in words) for words in named]


def _by_index(path: Where, indices: Mapping[str, int]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name, index in indices.items():
        if str(index) in names:
            raise DataError(f"{path}: {names[str(index)]!r:.60} and {name!r:.60} both have index {index}")
        names[str(index)] = name
    return names


def _words(path: Where, named: Sequence[tuple[str, ...]]) -> dict[str, int | None]:
    """By word the index. The first word of each class is its own; others that two classes share stand for neither."""
    own: dict[str, int | None] = {}
    for i, (word, *_) in enumerate(named):
        word = _composed(word)
        if word in own:
            raise DataError(f"{path}: {word!r:.60} stands for index {own[word]} and for {i}; each name stands once")
        own[word] = i
    others: dict[str, int | None] = {}
    for i, (_, *more) in enumerate(named):
        for word in map(_composed, more):
            others[word] = None if others.get(word, i) != i else i
    return others | own


@dataclass(frozen=True)
class Numbered:
    """The index of each label, names of the indices where known, and one line on how they were numbered."""

    indices: Sequence[int]
    classes: tuple[str, ...]
    said: str


Telling = Callable[[int], str]
"""Of the i-th label, whose it is: "line 7 has label 'cat'"."""


def numbered(source: object, words: Sequence[str], tell: Telling, classes: ClassList | None = None) -> Numbered:
    """Class indices of labels: by the class list; else themselves if all are whole numbers, else in alphabetical order.

    DataError, naming the label's place, for labels of which some are numbers and some are not, for numbers that are no
    index, for what is not in the class list, and for words that differ in their Unicode form alone; also for fewer than
    two classes.
    """
    first: dict[str, int] = {}
    for i, word in enumerate(words):
        first.setdefault(word, i)
    composed: dict[str, str] = {}
    for word, i in first.items():
        other = composed.setdefault(_composed(word), word)
        if other != word:
            raise DataError(
                f"{source}: {tell(i)}, which is {other!r:.40} in another Unicode form ({word!a:.60}, {other!a:.60});"
                " a class has one name"
            )
    if len(first) < 2:
        raise DataError(f"{source}: {len(first)} different labels; accuracy needs at least two")
    if classes is not None:
        return _by_list(source, words, first, tell, classes)
    numbers = {word for word in first if _NUMBER.fullmatch(word)}
    if not numbers:
        names = tuple(sorted(first))
        index = {name: i for i, name in enumerate(names)}
        said = f"{_in_order(names)}{_wordnet(names)}{_in_case_alone(names)}"
        return Numbered([index[word] for word in words], names, said)
    if len(numbers) < len(first):
        rest = [word for word in first if word not in numbers]
        few, many = (rest, numbers) if len(rest) <= len(numbers) else (numbers, rest)
        odd = min(few, key=first.__getitem__)
        kind = "class indices" if many is numbers else "names"
        raise DataError(
            f"{source}: {tell(first[odd])} among {kind} such as {min(many, key=first.__getitem__)!r:.40}; a class index"
            " is a whole number from 0 on, and labels are all indices or all names (--classes FILE numbers names)"
        )
    index = {word: _index(source, word, tell(first[word])) for word in first}
    low, high = min(index.values()), max(index.values())
    return Numbered([index[word] for word in words], (), f"class indices as they stand there, {low} to {high}")


def _by_list(
    source: object, words: Sequence[str], first: Mapping[str, int], tell: Telling, classes: ClassList
) -> Numbered:
    known = {word: classes.words.get(_composed(word)) for word in first}
    if not any(_composed(word) in classes.words for word in first) and all(_NUMBER.fullmatch(word) for word in first):
        known = {word: _index(source, word, tell(i)) for word, i in first.items()}
    for word, i in first.items():
        index = known[word]
        if index is None:
            why = "stands for two of the" if _composed(word) in classes.words else "is none of the"
            raise DataError(f"{source}: {tell(i)}, which {why} {len(classes.names)} in {classes.path}")
        if index >= len(classes.names):
            raise DataError(f"{source}: {tell(i)}; {classes.path} has the classes 0 to {len(classes.names) - 1}")
    said = f"{len(set(known.values()))} of the {len(classes.names)} classes in {classes.path}"
    return Numbered([known[word] or 0 for word in words], classes.names, said)


def _index(source: object, word: str, told: str) -> int:
    match = _INDEX.fullmatch(word)
    if match is None:
        raise DataError(f"{source}: {told}; a class index is a whole number from 0 on")
    digits = match[1].lstrip("0") or "0"
    if len(digits) > 10 or int(digits) > MAX_LABEL:
        raise DataError(f"{source}: class index {word:.40} is too large; at most {MAX_LABEL:,} is allowed")
    return int(digits)


def _composed(word: str) -> str:
    """In the form NFC: file systems and editors write one letter in several ways."""
    return unicodedata.normalize("NFC", word)


def _in_case_alone(names: Sequence[str]) -> str:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            return f"; {other!r:.40} and {name!r:.40} differ in case alone and are two classes"
    return ""


def _in_order(names: Sequence[str]) -> str:
    shown = ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:3])} ... {names[-1]}"
    return f"classes 0 to {len(names) - 1} in alphabetical order: {shown:.200}"


def _wordnet(names: Sequence[str]) -> str:
    if len(names) >= IMAGENET or not all(WORDNET.fullmatch(name) for name in names):
        return ""
    return (
        f" (WordNet ids: a network of all {IMAGENET} classes of ImageNet numbers them otherwise; give --classes FILE)"
    )
