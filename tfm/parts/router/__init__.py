"""Table of routers of mixtures of experts. To add one, add a file and a table entry."""

from tfm.core.registry import Table
from tfm.parts.router.base import Router as Router
from tfm.parts.router.expert_choice import ExpertChoice
from tfm.parts.router.grouped import Grouped
from tfm.parts.router.language import Language
from tfm.parts.router.sparse_mixer import SparseMixer
from tfm.parts.router.top_k import TopK

TABLE = Table(
  'router',
  expert_choice=ExpertChoice,
  grouped=Grouped,
  language=Language,
  sparse_mixer=SparseMixer,
  top_k=TopK,
)
