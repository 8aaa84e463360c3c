"""SmolLM3 (Hugging Face, 2025): Llama's block; every fourth layer has no positions."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama, qwen2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, LOCAL, choose, layers_of, masks

POST = 'SmolLM3: smol, multilingual, long-context reasoner, Hugging Face 2025'


def smollm3(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a tied decoder with three RoPE layers to one without positions (NoPE, arXiv:2501.18795).

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6)
  block = Block(Attention(heads, kv_heads, d // heads, RoPE(5e6)), Glu(d_ff), norm)
  no_rope = dataclasses.replace(block, mixer=Attention(heads, kv_heads, d // heads))
  segment = Segment((block, block, block, no_rope), depth // 4)
  return Model(Tokens(128_256), d, (segment,), norm=norm, init=Normal(depth_scaled=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, ffn, n = RMSNorm(c.get('rms_norm_eps', 1e-6)), llama.glu(c), c['num_hidden_layers']
  every = c.get('no_rope_layer_interval', 4)
  rotated = c.get('no_rope_layers', [(i + 1) % every for i in range(n)])
  window = c.get('sliding_window') if c.get('use_sliding_window') else None
  c.skip('sliding_window', 'max_window_layers')
  types = choose((window is None or rotates for rotates in rotated), GLOBAL, LOCAL)
  layer_masks = masks(c, types, window)
  rope = c.rope(2e6, partial=False)
  relatives = choose(rotated, rope, Relative())
  pairs = zip(layer_masks, relatives, strict=True)
  layers = [
    Block(llama.attention(c, 4, mask=mask, relative=relative), ffn, norm)
    for mask, relative in pairs
  ]
  return llama.decoder(c, layers, norm, True)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  rotated = [int(hasattr(b.mixer.relative, 'base')) for b in layers_of(m)]
  return {
    **llama.write(m),
    **llama.padding(m, 128_004),
    **qwen2.mask_fields(m),
    'no_rope_layers': rotated,
  }


MODELS = {'smollm3-3b': Entry(smollm3(36, 2048, 16, 4, 11_008), 3_075_098_624, '3.1B', POST)}
