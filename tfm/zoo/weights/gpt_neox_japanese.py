"""Checkpoints of GPT-NeoX Japanese: GPT-NeoX's names, with a separate name for the bias."""

from tfm.zoo import gpt_neox_japanese
from tfm.zoo.weights import gpt_neox
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole, renamed

_STEM = 'gpt_neox_japanese.'
NAMES: Names = {
  **renamed(gpt_neox.NAMES, 'gpt_neox.', _STEM),
  '*/mixer/o/bias': Whole(f'{_STEM}layers.*.attention.dense_bias'),
}

FAMILY = Family(
  'GPTNeoXJapanese', gpt_neox_japanese.read, gpt_neox_japanese.write, NAMES, _STEM,
  tied=('embed_out.weight',), ignored=(r'rotary_emb\.inv_freq$',),
)  # fmt: skip
