"""Checkpoints of GPT: GPT-2's, under other names."""

from tfm.zoo import gpt1
from tfm.zoo.weights import gpt2
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import DECODER

NAMES: Names = {
  **gpt2.NAMES,
  'embed': 'transformer.tokens_embed',
  'absolute': 'transformer.positions_embed',
}

FAMILY = Family(
  'OpenAIGPT', gpt1.read, gpt1.write, NAMES, 'transformer.', 'LMHeadModel',
  {'ForSequenceClassification': DECODER['ForSequenceClassification']}, ignored=(r'\.attn\.bias$',),
)  # fmt: skip
