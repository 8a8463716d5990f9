"""qtable: JPEG quantization tables for the network that looks at the photos."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from qtable.codecs.plain import TableCoder
    from qtable.codecs.task_aware import TaskAware
    from qtable.jpeg.codec import Codec
    from qtable.jpeg.layer import JPEGLayer
    from qtable.jpeg.tables import QTables
    from qtable.measure.archive import Archive
    from qtable.measure.evaluate import Evaluator
    from qtable.photos.sets import ImageSet
    from qtable.tasks.classification import Classifier
    from qtable.tasks.preprocess import Preprocess

__all__ = [
    "Archive",
    "Classifier",
    "Codec",
    "Evaluator",
    "ImageSet",
    "JPEGLayer",
    "Preprocess",
    "QTables",
    "TableCoder",
    "TaskAware",
]

_HOMES: Final = {
    "Archive": "qtable.measure.archive",
    "Classifier": "qtable.tasks.classification",
    "Codec": "qtable.jpeg.codec",
    "Evaluator": "qtable.measure.evaluate",
    "ImageSet": "qtable.photos.sets",
    "JPEGLayer": "qtable.jpeg.layer",
    "Preprocess": "qtable.tasks.preprocess",
    "QTables": "qtable.jpeg.tables",
    "TableCoder": "qtable.codecs.plain",
    "TaskAware": "qtable.codecs.task_aware",
}
"""The module of each name, imported when the name is first asked for (PEP 562): most of them need torch."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
