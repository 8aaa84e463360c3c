"""Data sources and the datasets that they open. Batches are pure functions of (seed, step)."""

from tfm.core.registry import Table
from tfm.data.arrays import Arrays
from tfm.data.augment import Augment
from tfm.data.base import Data
from tfm.data.conversations import Conversations
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.folders import Folders
from tfm.data.hf_dataset import HfDataset
from tfm.data.images import Images
from tfm.data.labelled_text import LabelledText
from tfm.data.listops import ListOps
from tfm.data.mixture import Mixture
from tfm.data.pairs import PairCorpus, Pairs
from tfm.data.preferences import Preferences
from tfm.data.problems import Problems
from tfm.data.records import RecordData, Records
from tfm.data.several import SeveralSources
from tfm.data.stdlib import Stdlib
from tfm.data.tagged import Tagged
from tfm.data.text import Text
from tfm.data.textdata import TextData
from tfm.data.tfds import Tfds
from tfm.data.weighted import Weighted

__all__ = [
  'TABLE', 'ArraySpec', 'Arrays', 'Augment', 'Conversations', 'Corpus', 'Data', 'Dataset',
  'Folders', 'HfDataset', 'Images', 'LabelledText', 'ListOps', 'Mixture', 'PairCorpus', 'Pairs',
  'Preferences', 'Problems', 'RawBatch', 'RecordData', 'Records', 'SeveralSources', 'Stdlib',
  'Tagged', 'Text', 'TextData', 'Tfds', 'Weighted',
]  # fmt: skip

TABLE = Table(
  'data',
  arrays=Arrays,
  conversations=Conversations,
  folders=Folders,
  hf_dataset=HfDataset,
  images=Images,
  labelled_text=LabelledText,
  listops=ListOps,
  mixture=Mixture,
  pairs=Pairs,
  several=SeveralSources,
  text=Text,
  stdlib=Stdlib,
  tagged=Tagged,
  tfds=Tfds,
  preferences=Preferences,
  problems=Problems,
  weighted=Weighted,
)
