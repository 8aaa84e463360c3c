"""Training objectives."""

from tfm.core.registry import Table
from tfm.tasks.base import Features, Forward, Generate, Ratio, Shown, Task, mean
from tfm.tasks.causal_lm import CausalLM
from tfm.tasks.classify import Classify
from tfm.tasks.contrastive import Contrastive
from tfm.tasks.ctc import Ctc
from tfm.tasks.denoising_mixture import Denoiser, DenoisingMixture
from tfm.tasks.distill import Distill
from tfm.tasks.dpo import Dpo
from tfm.tasks.grpo import Grpo
from tfm.tasks.infill import Infill
from tfm.tasks.masked_lm import MaskedLM
from tfm.tasks.model import TaskModel
from tfm.tasks.permutation_lm import PermutationLM
from tfm.tasks.prefix_lm import PrefixLM
from tfm.tasks.regress import Regress
from tfm.tasks.replaced_token import ReplacedToken
from tfm.tasks.sentence_pairs import SentencePairs
from tfm.tasks.seq2seq import Seq2Seq
from tfm.tasks.several import SeveralTasks
from tfm.tasks.span_corruption import SpanCorruption
from tfm.tasks.tagging import Tagging
from tfm.tasks.text import TextTask

__all__ = [
  'TABLE',
  'CausalLM',
  'Classify',
  'Contrastive',
  'Ctc',
  'Denoiser',
  'DenoisingMixture',
  'Distill',
  'Dpo',
  'Features',
  'Forward',
  'Generate',
  'Grpo',
  'Infill',
  'MaskedLM',
  'PermutationLM',
  'PrefixLM',
  'Ratio',
  'Regress',
  'ReplacedToken',
  'SentencePairs',
  'Seq2Seq',
  'SeveralTasks',
  'Shown',
  'SpanCorruption',
  'Tagging',
  'Task',
  'TaskModel',
  'TextTask',
  'mean',
]

TABLE = Table(
  'task',
  causal_lm=CausalLM,
  classify=Classify,
  contrastive=Contrastive,
  ctc=Ctc,
  denoising_mixture=DenoisingMixture,
  distill=Distill,
  dpo=Dpo,
  grpo=Grpo,
  infill=Infill,
  masked_lm=MaskedLM,
  permutation_lm=PermutationLM,
  prefix_lm=PrefixLM,
  regress=Regress,
  replaced_token=ReplacedToken,
  sentence_pairs=SentencePairs,
  seq2seq=Seq2Seq,
  several=SeveralTasks,
  span_corruption=SpanCorruption,
  tagging=Tagging,
)
