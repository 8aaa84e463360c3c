"""OLMo 3 (AI2, 2025): OLMo 2's block, three local layers to one global."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.yarn import Yarn
from tfm.parts.residual_layout.after import After
from tfm.zoo import llama, olmo2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, rope_parameters
from tfm.zoo.layers import (
  GLOBAL,
  LOCAL,
  causal_mask,
  choose,
  every_nth_global,
  layers_of,
  masks,
  segments,
  types_of,
  window_of,
)

PAPER = 'Olmo 3, arXiv:2512.13961'
_BASE = 5e5


def olmo3(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a decoder with norms after each branch and query/key norms.

  Global layers scale RoPE by YaRN.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6, scale_first=True)
  yarn = Yarn(8.0, 8192, attention=1.2079441541679836)
  full = Attention(
    heads, kv_heads, d // heads, RoPE(_BASE, scaling=yarn), qk_norm=norm, qk_norm_over='all'
  )
  local = dataclasses.replace(full, relative=RoPE(_BASE), mask=causal_mask(4096))
  mixers = choose(((i + 1) % 4 for i in range(depth)), local, full)
  layers = [Block(mixer, Glu(d_ff), norm, After()) for mixer in mixers]
  lm = Lm(tied=False)
  return Model(
    Tokens(100_278),
    d,
    segments(layers),
    heads={'lm': lm},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, ffn = RMSNorm(c.get('rms_norm_eps', 1e-5), scale_first=True), llama.glu(c)
  n = c['num_hidden_layers']
  types = c.get('layer_types', every_nth_global(n, 4))
  layer_masks = masks(c, types, c.given('sliding_window', 4096))
  # `rope_scaling` of older configs applies to global layers only.
  per_type = LOCAL in c.get('rope_parameters', {})
  ropes = {
    GLOBAL: c.rope(_BASE, kind=GLOBAL),
    LOCAL: c.rope(_BASE, kind=LOCAL) if per_type else RoPE(_BASE),
  }
  options: dict[str, Any] = {'qk_norm': norm, 'qk_norm_over': 'all'}
  attention = lambda mask, kind: llama.attention(c, mask=mask, relative=ropes[kind], **options)
  layers = [
    Block(attention(*each), ffn, norm, After()) for each in zip(layer_masks, types, strict=True)
  ]
  return llama.decoder(c, layers, norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  types = types_of(m)
  pairs = zip(types, layers_of(m), strict=True)
  ropes = {GLOBAL: RoPE(_BASE), LOCAL: RoPE(_BASE)} | {kind: b.mixer.relative for kind, b in pairs}
  return {
    **olmo2.write(m),
    'rope_parameters': {kind: rope_parameters(rope) for kind, rope in ropes.items()},
    'sliding_window': window_of(m), 'layer_types': types,
  }  # fmt: skip


MODELS = {
  'olmo3-7b': Entry(olmo3(32, 4096, 32, 32, 11_008), 7_298_011_136, '7.3B', PAPER),
  'olmo3-32b': Entry(olmo3(64, 5120, 40, 8, 27_648), 32_233_522_176, '32.2B', PAPER),
}
