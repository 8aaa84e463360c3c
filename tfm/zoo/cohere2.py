"""Command R7B and Command A (Cohere, 2024): Cohere's block, three local layers to one global."""

from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.parallel import Parallel
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import (
  causal_mask,
  every_nth_global,
  masks,
  segments,
  types_of,
  window_of,
)
from tfm.zoo.phi import sizes

PAPER = 'Command R7B, model card, Cohere 2024'


def cohere2(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a decoder with three local RoPE layers to one global layer without positions.

  A local layer attends to 4096 tokens.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5, bias=False)

  def block(relative: Relative, mask: Mask) -> Block:
    return Block(
      Attention(heads, kv_heads, d // heads, relative, mask), Glu(d_ff), norm, Parallel()
    )

  local = block(RoPE(5e4, 'interleaved'), causal_mask(4096))
  full = block(Relative(), causal_mask(None))
  layers = segments([local, local, local, full] * (depth // 4))
  return Model(
    Tokens(256_000),
    d,
    layers,
    heads={'lm': Lm(scale=0.25)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  # Fields of the first release.
  c.only(
    rotary_pct=1.0,
    use_gated_activation=True,
    use_parallel_block=True,
    position_embedding_type='rope_gptj',
  )
  c.only(use_qk_norm=False, order_of_interleaved_layers='local_attn_first')
  c.skip('layer_switch', 'use_embedding_sharing', 'use_parallel_embedding')
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5), bias=False)
  rope = c.rope(layout='interleaved', partial=False)
  ffn = llama.glu(c)
  every = c.get('sliding_window_pattern', c.get('_sliding_window_pattern', 4))
  types = every_nth_global(c['num_hidden_layers'], every)
  layers = []
  for mask in masks(c, types, c.given('sliding_window', 4096)):
    relative = Relative() if mask == causal_mask(None) else rope
    attention = llama.attention(c, relative=relative, mask=mask)
    layers.append(Block(attention, ffn, norm, Parallel()))
  return llama.decoder(c, layers, norm, True, scale=c.get('logit_scale', 0.0625))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {
    **sizes(m), 'attention_bias': bool(m.segments[0].pattern[0].mixer.bias),
    'layer_types': types_of(m),
    'sliding_window': window_of(m), 'logit_scale': 0.0625 if m.lm is None else m.lm.scale,
  }  # fmt: skip


MODELS = {'command-r7b': Entry(cohere2(32, 4096, 32, 8, 14_336), 8_028_033_024, '8.03B', PAPER)}
