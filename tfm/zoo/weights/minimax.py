"""Checkpoints of MiniMax: Mixtral's names, and fused projections of lightning attention."""

import numpy as np

from tfm.parts.mixer.lightning import Lightning, rates
from tfm.zoo import minimax
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.layers import layers_of
from tfm.zoo.weights import mixtral
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import ByHead
from tfm.zoo.weights.tops import DECODER

_MIXER = 'model.layers.*.self_attn'

NAMES: Names = {
  **mixtral.NAMES,
  ('*/lightning/q', '*/lightning/k', '*/lightning/v'): ByHead(f'{_MIXER}.qkv_proj'),
  '*/lightning/gate': f'{_MIXER}.output_gate',
  '*/lightning/norm': f'{_MIXER}.norm',
  '*/lightning/o': f'{_MIXER}.out_proj',
}


def slopes(m: FamilyModel) -> dict[str, np.ndarray]:
  """Return the decay rates that checkpoints store, by tensor name."""
  layers = layers_of(m)
  heads = {i: b.mixer.heads for i, b in enumerate(layers) if isinstance(b.mixer, Lightning)}
  table = {i: np.asarray(rates(N, i, len(layers))) for i, N in heads.items()}
  return {f'model.layers.{i}.self_attn.slope_rate': a[:, None, None] for i, a in table.items()}


FAMILY = Family(
  'MiniMax', minimax.read, minimax.write, NAMES, tops=DECODER, fixed=slopes,
  # Powers of the rates.
  ignored=(r'self_attn\.(query|key|diagonal)_decay$',),
)  # fmt: skip
