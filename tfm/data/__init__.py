"""Data sources and the datasets that they open. Batches are pure functions of (seed, step)."""

from tfm.core.registry import Table
from tfm.data.arrays import Arrays
from tfm.data.augment import Augment
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.folders import Folders
from tfm.data.images import Images
from tfm.data.listops import ListOps
from tfm.data.pairs import PairCorpus, Pairs
from tfm.data.stdlib import Stdlib
from tfm.data.text import Text
from tfm.data.textdata import TextData
from tfm.data.tfds import Tfds

__all__ = [
  'TABLE', 'ArraySpec', 'Arrays', 'Augment', 'Corpus', 'Data', 'Dataset', 'Folders', 'Images',
  'ListOps', 'PairCorpus', 'Pairs', 'RawBatch', 'Stdlib',
  'Text', 'TextData', 'Tfds',
]  # fmt: skip

TABLE = Table(
  'data',
  arrays=Arrays,
  folders=Folders,
  images=Images,
  listops=ListOps,
  pairs=Pairs,
  text=Text,
  stdlib=Stdlib,
  tfds=Tfds,
)
