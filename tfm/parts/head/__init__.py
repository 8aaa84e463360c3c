"""Every head; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.head.average import Average
from tfm.parts.head.base import Head as Head
from tfm.parts.head.classify import Classify
from tfm.parts.head.codes import CodeLogits
from tfm.parts.head.ctc import Ctc
from tfm.parts.head.lm import Lm
from tfm.parts.head.partly_tied import PartlyTied
from tfm.parts.head.probe import Probe
from tfm.parts.head.project import Project
from tfm.parts.head.regress import Regress
from tfm.parts.head.similarity import Similarity
from tfm.parts.head.unpatchify import Unpatchify

TABLE = Table(
  'head',
  average=Average,
  classify=Classify,
  codes=CodeLogits,
  ctc=Ctc,
  lm=Lm,
  partly_tied=PartlyTied,
  probe=Probe,
  project=Project,
  regress=Regress,
  similarity=Similarity,
  unpatchify=Unpatchify,
)
