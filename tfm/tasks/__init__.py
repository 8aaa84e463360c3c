"""What a model is trained to do with text: every task."""

from tfm.core.registry import Table
from tfm.tasks.base import Features, Task, mean
from tfm.tasks.causal_lm import CausalLM
from tfm.tasks.classify import Classify
from tfm.tasks.masked_lm import MaskedLM
from tfm.tasks.permutation_lm import PermutationLM
from tfm.tasks.prefix_lm import PrefixLM
from tfm.tasks.span_corruption import SpanCorruption

__all__ = [
  'TABLE',
  'CausalLM',
  'Classify',
  'Features',
  'MaskedLM',
  'PermutationLM',
  'PrefixLM',
  'SpanCorruption',
  'Task',
  'mean',
]

TABLE = Table(
  'task',
  causal_lm=CausalLM,
  classify=Classify,
  masked_lm=MaskedLM,
  permutation_lm=PermutationLM,
  prefix_lm=PrefixLM,
  span_corruption=SpanCorruption,
)
