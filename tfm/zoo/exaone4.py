"""EXAONE 4 (LG AI Research, 2025): norms after the branches, and local layers with RoPE."""

from collections.abc import Sequence
from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.parts.residual_layout.after import After
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import (
  GLOBAL,
  causal_mask,
  choose,
  every_nth_global,
  masks,
  segments,
  types_of,
  window_of,
)

PAPER = 'EXAONE 4.0, arXiv:2507.11407'


def exaone4(
  depth: int, d: int, heads: int, d_ff: int, head_dim: int, window: int | None, tied: bool
) -> Model:
  """Return a decoder with norms after the branches, SwiGLU and 8 key/value heads.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    head_dim: width of a head.
    window: number of tokens that a local layer attends to. Then every fourth layer is global and
      has no positions. None makes all layers global, with RoPE.
    tied: whether the head shares the token table.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  rope = RoPE(1e6, scaling=Llama3(16.0))
  local = Attention(heads, 8, head_dim, rope, causal_mask(window), qk_norm=norm)
  full = Attention(heads, 8, head_dim, qk_norm=norm)
  mixers = choose((window is None or (i + 1) % 4 for i in range(depth)), local, full)
  layers = [Block(mixer, Glu(d_ff), norm, After()) for mixer in mixers]
  m = Model(Tokens(102_400), d, segments(layers), norm=norm, init=Normal(depth_scaled=False))
  return m if tied else m.with_heads(lm=Lm(tied=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, ffn = RMSNorm(c.get('rms_norm_eps', 1e-5)), llama.glu(c)
  window = c.given('sliding_window', 4096)
  layer_masks = masks(c, _types(c, window), window)
  rope = c.rope(partial=False)
  # If some layers are local, the global layers have no positions.
  relative_of = lambda mask: rope if window is None or mask.lookback is not None else Relative()
  attention = lambda mask: llama.attention(
    c, 32, qk_norm=norm, mask=mask, relative=relative_of(mask)
  )
  return llama.decoder(
    c, [Block(attention(mask), ffn, norm, After()) for mask in layer_masks], norm
  )


def _types(c: Fields, window: int | None) -> Sequence[str]:
  every = c.get('sliding_window_pattern', 4)
  if window is None or not isinstance(every, int):  # a text such as 'LLLG' duplicates `layer_types`
    return c.get('layer_types', [GLOBAL] * c['num_hidden_layers'])
  return every_nth_global(c['num_hidden_layers'], every)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**llama.sizes(m), 'sliding_window': window_of(m), 'layer_types': types_of(m)}


MODELS = {
  'exaone4-1.2b': Entry(exaone4(30, 2048, 32, 4096, 64, None, True), 1_279_391_488, '1.28B', PAPER),
  'exaone4-32b': Entry(
    exaone4(64, 5120, 40, 27_392, 128, 4096, False), 32_003_216_384, '32B', PAPER
  ),
}
