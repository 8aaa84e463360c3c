"""Checkpoints of Granite mixtures: Llama's attention, and all experts of a layer in one tensor."""

from tfm.zoo import granitemoe
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused, Stacked

_LAYER = 'model.layers.*'

#: Experts of a mixture, and its shared expert if it has one.
EXPERTS: Names = {
  '*/ffn/router/score': f'{_LAYER}.block_sparse_moe.router.layer',
  ('*/ffn/expert/gate', '*/ffn/expert/up'): Stacked(
    f'{_LAYER}.block_sparse_moe.input_linear.weight'
  ),
  '*/ffn/expert/down': Stacked(f'{_LAYER}.block_sparse_moe.output_linear.weight'),
  ('*/ffn/shared/gate', '*/ffn/shared/up'): Fused(f'{_LAYER}.shared_mlp.input_linear'),
  '*/ffn/shared/down': f'{_LAYER}.shared_mlp.output_linear',
}
NAMES: Names = {**llama.NAMES, **EXPERTS}

FAMILY = Family('GraniteMoe', granitemoe.read, granitemoe.write, NAMES)
SHARED = Family('GraniteMoeShared', granitemoe.read_shared, granitemoe.write_shared, NAMES)
