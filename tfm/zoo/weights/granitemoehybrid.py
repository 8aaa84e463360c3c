"""Checkpoints of Granite 4: Granite mixtures with Mamba-2 mixers."""

from tfm.zoo import granitemoehybrid
from tfm.zoo.weights import granitemoe
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.mamba import mixer_names
from tfm.zoo.weights.rules import Fused

_LAYER = 'model.layers.*'
NAMES: Names = {
  **granitemoe.NAMES,
  **mixer_names('mamba2', f'{_LAYER}.mamba'),
  # Without experts, the shared feed-forward is the only one.
  ('*/ffn/gate', '*/ffn/up'): Fused(f'{_LAYER}.shared_mlp.input_linear'),
  '*/ffn/down': f'{_LAYER}.shared_mlp.output_linear',
}

FAMILY = Family('GraniteMoeHybrid', granitemoehybrid.read, granitemoehybrid.write, NAMES)
