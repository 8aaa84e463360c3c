"""Ministral (Mistral AI, 2024): Mistral's block with local and global layers."""

from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.norm.rms import RMSNorm
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, LOCAL, masks, types_of, window_of
from tfm.zoo.mistral import mistral

CARD = 'Ministral-8B-Instruct-2410, model card, Mistral AI 2024'


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, ffn = RMSNorm(c.get('rms_norm_eps', 1e-6)), llama.glu(c)
  window = c.given('sliding_window', 4096)
  layer_masks = masks(c, [GLOBAL if window is None else LOCAL] * c['num_hidden_layers'], window)
  return llama.decoder(
    c, [Block(llama.attention(c, 8, mask=mask), ffn, norm) for mask in layer_masks], norm
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**llama.sizes(m), 'sliding_window': window_of(m), 'layer_types': types_of(m)}


MODELS = {
  'ministral-8b': Entry(
    mistral(36, 4096, 32, 12_288, 131_072, 1e8, 32_768), 8_019_808_256, '8.0B', CARD
  ),
}
