"""Marian's checkpoints: BART's names, sinusoids saved, one token table or two."""

from typing import Any

import numpy as np

from tfm.zoo import marian
from tfm.zoo.weights.bart import NAMES, TIED
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole

POSITIONS = ('model.encoder.embed_positions.weight', 'model.decoder.embed_positions.weight')
#: A token table for each stack.
TABLES: Names = {
  'embed/table': Whole('model.decoder.embed_tokens.weight'),
  'encoder/embed/table': Whole('model.encoder.embed_tokens.weight'),
  'head/head': 'lm_head',
}


def names(m: Any) -> Names:
  """BART's names; where the tables differ there is none that is shared."""
  return NAMES if m.encoder.shares else {**NAMES, **TABLES}


def sinusoids(m: Any) -> dict[str, np.ndarray]:
  """The table of both stacks, in double precision until it is rounded."""
  half = np.arange(m.d_model // 2) * 2 / m.d_model
  angle_PH = np.arange(m.absolute.max_len)[:, None] / np.power(10_000, half)[None]
  table_PD = np.concatenate([np.sin(angle_PH), np.cos(angle_PH)], -1).astype(np.float32)
  return dict.fromkeys(POSITIONS, table_PD)


FAMILY = Family(
  'Marian', marian.read, marian.write, names, 'model.', 'MTModel',
  tied=TIED, ignored=(r'^final_logits_bias$',), fixed=sinusoids,
)  # fmt: skip
