"""Checkpoints of MPNet with all of its heads."""

from tfm.zoo import mpnet
from tfm.zoo.weights import roberta
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole, renamed

_ATTENTION = 'mpnet.encoder.layer.*.attention'
NAMES: Names = {
  **renamed(roberta.NAMES, 'roberta.', 'mpnet.'),
  **{f'*/mixer/{n}': f'{_ATTENTION}.attn.{n}' for n in 'qkvo'},
  '*/mixer_norm': f'{_ATTENTION}.LayerNorm',
  'shared_relative/table': Whole('mpnet.encoder.relative_attention_bias.weight'),
}
FAMILY = Family(
  'MPNet', mpnet.read, mpnet.write, NAMES, 'mpnet.', 'ForMaskedLM', roberta.TOPS,
  ('lm_head.decoder.weight',),
  roberta.IGNORED,
)  # fmt: skip
