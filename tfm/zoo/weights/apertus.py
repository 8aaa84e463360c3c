"""Checkpoints of Apertus: Llama's names except norms, and two numbers per layer for xIELU."""

import numpy as np

from tfm.model.spec import depth
from tfm.zoo import apertus
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.layers import layers_of
from tfm.zoo.weights import llama
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import DECODER

_LAYER = 'model.layers.*'
NAMES: Names = {
  **llama.NAMES,
  '*/mixer_norm': f'{_LAYER}.attention_layernorm',
  '*/ffn_norm': f'{_LAYER}.feedforward_layernorm',
  '*/ffn/alpha_p': Whole(f'{_LAYER}.mlp.act_fn.alpha_p', (1,)),
  '*/ffn/alpha_n': Whole(f'{_LAYER}.mlp.act_fn.alpha_n', (1,)),
}


def constants(m: FamilyModel) -> dict[str, np.ndarray]:
  """Return the constants of the activation, which checkpoints store as tensors."""
  ffn = layers_of(m)[0].ffn
  if not hasattr(ffn, 'beta'):
    return {}
  values = {'beta': np.float32(ffn.beta), 'eps': np.float32(ffn.eps)}
  return {
    f'model.layers.{i}.mlp.act_fn.{name}': np.asarray(value)
    for i in range(depth(m))
    for name, value in values.items()
  }


TOPS = {'ForTokenClassification': DECODER['ForTokenClassification']}
FAMILY = Family('Apertus', apertus.read, apertus.write, NAMES, tops=TOPS, fixed=constants)
