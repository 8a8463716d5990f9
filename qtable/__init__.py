"""qtable: JPEG quantization tables for the network that looks at the photos."""

from qtable.archive import Archive
from qtable.codec import Codec
from qtable.data import ImageSet
from qtable.evaluate import Evaluator
from qtable.layer import JPEGLayer
from qtable.models import Preprocess
from qtable.tables import QTables
from qtable.task import Classifier

__all__ = ["Archive", "Classifier", "Codec", "Evaluator", "ImageSet", "JPEGLayer", "Preprocess", "QTables"]
