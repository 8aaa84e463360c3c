"""Checkpoints of Marian: BART's names, stored sinusoids, and one or two token tables."""

import numpy as np

from tfm.zoo import marian
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.weights.bart import NAMES, TIED
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole

POSITIONS = ('model.encoder.embed_positions.weight', 'model.decoder.embed_positions.weight')
#: One token table per stack.
TABLES: Names = {
  'embed/table': Whole('model.decoder.embed_tokens.weight'),
  'encoder/embed/table': Whole('model.encoder.embed_tokens.weight'),
  'head/head': 'lm_head',
}


def names(m: FamilyModel) -> Names:
  """Return BART's names, with one token table or one per stack."""
  return NAMES if m.encoder.shares else {**NAMES, **TABLES}


def sinusoids(m: FamilyModel) -> dict[str, np.ndarray]:
  """Return the position table of both stacks, computed in float64 and rounded to float32."""
  half = np.arange(m.d_model // 2) * 2 / m.d_model
  angle_PH = np.arange(m.absolute.max_len)[:, None] / np.power(10_000, half)[None]
  table_PD = np.concatenate([np.sin(angle_PH), np.cos(angle_PH)], -1).astype(np.float32)
  return dict.fromkeys(POSITIONS, table_PD)


FAMILY = Family(
  'Marian', marian.read, marian.write, names, 'model.', 'MTModel',
  tied=TIED, ignored=(r'^final_logits_bias$',), fixed=sinusoids,
)  # fmt: skip
