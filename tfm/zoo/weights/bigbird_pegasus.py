"""Checkpoints of BigBird-Pegasus, with BART's names except for a few modules."""

from tfm.zoo import bigbird_pegasus
from tfm.zoo.weights import bart
from tfm.zoo.weights.family import Family, Names

_LAYER = 'model.encoder.layers.*.self_attn'
NAMES: Names = {
  **bart.NAMES,
  'norm': 'model.decoder.layernorm_embedding',
  'encoder/norm': 'model.encoder.layernorm_embedding',
  **{
    f'encoder/*/mixer/{n}': f'{_LAYER}.self.{word}'
    for n, word in {'q': 'query', 'k': 'key', 'v': 'value'}.items()
  },
  'encoder/*/mixer/o': f'{_LAYER}.output',
}
FAMILY = Family(
  'BigBirdPegasus', bigbird_pegasus.read, bigbird_pegasus.write, NAMES, 'model.',
  'ForConditionalGeneration',
  bart.TOPS, bart.TIED, (r'^final_logits_bias$',),
)  # fmt: skip
