"""qtable: JPEG quantization tables for the network that looks at the photos."""

from qtable.jpeg.codec import Codec
from qtable.jpeg.layer import JPEGLayer
from qtable.jpeg.tables import QTables
from qtable.measure.archive import Archive
from qtable.measure.evaluate import Evaluator
from qtable.photos.sets import ImageSet
from qtable.tasks.classification import Classifier
from qtable.tasks.preprocess import Preprocess

__all__ = ["Archive", "Classifier", "Codec", "Evaluator", "ImageSet", "JPEGLayer", "Preprocess", "QTables"]
