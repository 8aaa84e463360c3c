"""Checkpoints of FSMT: BART's names, a token table per stack, and stored sinusoids."""

import numpy as np

from tfm.zoo import fsmt
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.weights.bart import NAMES
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.marian import POSITIONS, TABLES

_NAMES: Names = {**NAMES, **TABLES, 'head/head': 'model.decoder.output_projection'}


def sinusoids(m: FamilyModel) -> dict[str, np.ndarray]:
  """Return the position table of both stacks, computed in float32; the padding row is 0."""
  half, f = m.d_model // 2, np.float32
  w_H = np.exp(np.arange(half, dtype=f) * f(-np.log(10_000) / (half - 1)))
  angle_PH = np.arange(m.absolute.max_len + m.absolute.offset, dtype=f)[:, None] * w_H[None]
  table_PD = np.concatenate([np.sin(angle_PH), np.cos(angle_PH)], -1)
  table_PD[m.absolute.offset - 1] = 0
  return dict.fromkeys(POSITIONS, table_PD)


FAMILY = Family(
  'FSMT', fsmt.read, fsmt.write, _NAMES, 'model.', 'ForConditionalGeneration',
  tied=('model.encoder.embed_tokens.weight', 'model.decoder.output_projection.weight'),
  fixed=sinusoids,
)  # fmt: skip
