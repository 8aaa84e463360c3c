"""Gemma 3 (Google, 2025), text model: five local layers to one global, with separate RoPE bases."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.base import Scaling
from tfm.parts.relative.scaling.linear import Linear
from tfm.parts.residual_layout.sandwich import Sandwich
from tfm.zoo import gemma2, llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, rope_parameters
from tfm.zoo.gemma import scaled
from tfm.zoo.layers import (
  GLOBAL,
  LOCAL,
  causal_mask,
  choose,
  every_nth_global,
  layers_of,
  masks,
  segments,
)

PAPER = 'Gemma 3 Technical Report, arXiv:2503.19786'


def gemma3(
  depth: int,
  d: int,
  heads: int,
  kv_heads: int,
  d_ff: int,
  window: int,
  vocab: int,
  scaling: Scaling,
  head_dim: int = 256,
  query: int = 256,
) -> Model:
  """Return a decoder with norms around each branch, query/key norms and a tied, scaled table.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    window: number of tokens that a local layer attends to.
    vocab: size of the vocabulary.
    scaling: scaling of RoPE in the global layers.
    head_dim: width of a head.
    query: attention scores are multiplied by `query` ** -0.5.

  Returns:
    The spec of the model.
  """
  norm = scaled(1e-6)
  full = Attention(
    heads, kv_heads, head_dim, RoPE(1e6, scaling=scaling), qk_norm=norm, scale=query**-0.5
  )
  local = dataclasses.replace(full, relative=RoPE(1e4), mask=causal_mask(window))
  mixers = choose(((i + 1) % 6 for i in range(depth)), local, full)
  layers = [Block(mixer, Glu(d_ff, GeluTanh()), norm, Sandwich()) for mixer in mixers]
  return Model(
    Tokens(vocab, power=0.5), d, segments(layers), norm=norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.skip('hidden_act')
  norm = scaled(c.get('rms_norm_eps', 1e-6))
  ffn = Glu(c['intermediate_size'], c.act('hidden_activation', _ACT))
  every = c.get('_sliding_window_pattern', c.get('sliding_window_pattern', 6))
  types = c.get('layer_types', every_nth_global(c['num_hidden_layers'], every))
  window = c.given('sliding_window', 4096)
  layer_masks = masks(c, types, window)
  if c.get('use_bidirectional_attention', False):
    # Half of the window on each side.
    both_sides = Mask() if window is None else Window(window // 2 + 1, ahead=True)
    layer_masks = choose((t == LOCAL for t in types), both_sides, Mask())
  ropes = {GLOBAL: c.rope(1e6, kind=GLOBAL, partial=False), LOCAL: local_rope(c)}
  options = {
    'cap': c.given('attn_logit_softcapping'), 'scale': c.get('query_pre_attn_scalar', 256) ** -0.5,
    'qk_norm': norm,
  }  # fmt: skip
  attention = lambda mask, kind: llama.attention(
    c, 4, 256, mask=mask, relative=ropes[kind], **options
  )
  layers = [
    Block(attention(*each), ffn, norm, Sandwich()) for each in zip(layer_masks, types, strict=True)
  ]
  return llama.decoder(
    c, layers, norm, True, Tokens(power=0.5), cap=c.given('final_logit_softcapping')
  )


_ACT = 'gelu_pytorch_tanh'


def local_rope(c: Fields) -> RoPE:
  """Return the rotary position embedding of local layers.

  It never uses `rope_theta` and `rope_scaling` of older configs.
  """
  if LOCAL in c.get('rope_parameters', {}):
    return c.rope(
      kind=LOCAL, partial=False, fields=('rope_local_base_freq', 'partial_rotary_factor')
    )
  # Null is an error.
  base = c.given('rope_local_base_freq', 1e4) or c['rope_local_base_freq']
  return RoPE(float(base))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = gemma2.write(m)
  if not m.causal and fields['sliding_window'] is not None:
    fields['sliding_window'] = 2 * (fields['sliding_window'] - 1)
  pairs = zip(fields['layer_types'], layers_of(m), strict=True)
  ropes = {GLOBAL: RoPE(1e6), LOCAL: RoPE()} | {kind: b.mixer.relative for kind, b in pairs}
  return {
    **fields, 'rope_parameters': {kind: rope_parameters(rope) for kind, rope in ropes.items()},
    'use_bidirectional_attention': not m.causal,
  }  # fmt: skip


MODELS = {
  'gemma3-270m': Entry(
    gemma3(18, 640, 4, 1, 2048, 512, 262_144, Scaling()), 268_098_176, '0.27B', PAPER
  ),
  'gemma3-1b': Entry(
    gemma3(26, 1152, 4, 1, 6912, 512, 262_144, Scaling()), 999_885_952, '1B', PAPER
  ),
  'gemma3-4b': Entry(
    gemma3(34, 2560, 8, 4, 10_240, 1024, 262_208, Linear(8.0)), 3_880_263_168, '4B', PAPER
  ),
  'gemma3-12b': Entry(
    gemma3(48, 3840, 16, 8, 15_360, 1024, 262_208, Linear(8.0)), 11_766_034_176, '12B', PAPER
  ),
  'gemma3-27b': Entry(
    gemma3(62, 5376, 32, 16, 21_504, 1024, 262_208, Linear(8.0), 128, 168),
    27_009_346_304,
    '27B',
    PAPER,
  ),
}
