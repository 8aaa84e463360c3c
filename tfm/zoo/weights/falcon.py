"""Checkpoints of Falcon: BLOOM's names, except norms of layers with two norms."""

from tfm.model.spec import Model, blocks
from tfm.zoo import falcon
from tfm.zoo.weights import bloom
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.tops import GPT

ONE_NORM: Names = {**bloom.NAMES, '*/norm': 'transformer.h.*.input_layernorm'}
TWO_NORMS: Names = {
  **bloom.NAMES,
  '*/mixer_norm': 'transformer.h.*.ln_attn',
  '*/ffn_norm': 'transformer.h.*.ln_mlp',
}


def names(spec: Model) -> Names:
  """Return the names of a spec."""
  return TWO_NORMS if blocks(spec)[0].residual_layout == falcon.TWO_NORMS else ONE_NORM


FAMILY = Family(
  'Falcon', falcon.read, falcon.write, names, 'transformer.', tops=GPT, ignored=(r'\.inv_freq$',)
)
