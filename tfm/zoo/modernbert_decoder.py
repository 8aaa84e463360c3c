"""ModernBERT as a decoder, from the Ettin suite (Weller et al., 2025)."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.zoo import modernbert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import causal_mask, layers_of, segments, window_of

PAPER = 'Seq vs Seq: An Open Suite of Paired Encoders and Decoders, arXiv:2507.11412'


def causal(spec: Model, window: int) -> Model:
  """Return a ModernBERT with causal attention masks.

  Args:
    spec: a ModernBERT.
    window: number of tokens that a local layer attends to.

  Returns:
    The causal spec.
  """
  layers = []
  for block in layers_of(spec):
    far = block.mixer.mask.lookback is None
    mixer = dataclasses.replace(block.mixer, mask=causal_mask(None if far else window))
    layers.append(dataclasses.replace(block, mixer=mixer))
  return dataclasses.replace(spec, segments=segments(layers))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  # The window is half of ModernBERT's, because it extends to the left only.
  window = c.get('sliding_window', (c.given('local_attention', 128) or 0) // 2)
  if window < 1:
    raise errors.UserError(
      f'{c.where}: sliding_window is {window} (half of local_attention). Expected at least 1 token.'
    )
  return causal(modernbert.read(c), window)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = modernbert.write(m)
  fields.pop('classifier_pooling', None)
  window = window_of(m)
  # The config requires a padding token; a small vocabulary lacks the usual one.
  fields['pad_token_id'] = fields['pad_token_id'] or 0
  return {**fields, 'local_attention': 128 if window is None else 2 * window}


MODELS = {
  'ettin-decoder-150m': Entry(
    causal(modernbert.modernbert(22, 768, 12, 1152), 64), 149_655_232, '150M', PAPER
  ),
  'ettin-decoder-400m': Entry(
    causal(modernbert.modernbert(28, 1024, 16, 2624), 64), 395_881_664, '400M', PAPER
  ),
}
