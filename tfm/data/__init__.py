"""Batches as a pure function of (seed, step): every source of text, and what a corpus is made of."""

from tfm.core.registry import Table
from tfm.data.ahead import prefetch
from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.folders import Folders
from tfm.data.stdlib import Stdlib
from tfm.data.text import Text
from tfm.data.tfds import Tfds

__all__ = ['TABLE', 'Corpus', 'Data', 'Folders', 'RawBatch', 'Stdlib', 'Text', 'Tfds', 'prefetch']

TABLE = Table('data', folders=Folders, text=Text, stdlib=Stdlib, tfds=Tfds)
