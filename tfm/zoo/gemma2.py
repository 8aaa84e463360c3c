"""Gemma 2 (Google, 2024): sandwich norms, alternating local layers, capped scores and logits."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.sandwich import Sandwich
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.gemma import scaled
from tfm.zoo.layers import causal_mask, every_nth_global, masks, types_of, window_of

PAPER = 'Gemma 2: Improving Open Language Models at a Practical Size, arXiv:2408.00118'


def gemma2(
  depth: int, d: int, heads: int, kv_heads: int, d_ff: int, head_dim: int = 256, per: int = 256
) -> Model:
  """Return a decoder with norms around each branch; every other layer attends to 4096 tokens.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    head_dim: width of a head.
    per: attention scores are divided by the square root of this number.

  Returns:
    The spec of the model.
  """
  norm = scaled(1e-6)
  attention = Attention(heads, kv_heads, head_dim, RoPE(1e4), cap=50.0, scale=per**-0.5)
  block = Block(attention, Glu(d_ff, GeluTanh()), norm, Sandwich())
  local = dataclasses.replace(block, mixer=dataclasses.replace(attention, mask=causal_mask(4096)))
  return Model(
    Tokens(256_000, power=0.5),
    d,
    (Segment((local, block), depth // 2),),
    heads={'lm': Lm(cap=30.0)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(use_bidirectional_attention=False)
  # transformers reads `hidden_activation`.
  c.skip('hidden_act', 'sliding_window_size')
  norm = scaled(c.get('rms_norm_eps', 1e-6))
  ffn = Glu(c['intermediate_size'], c.act('hidden_activation', _ACT))
  types = every_nth_global(c['num_hidden_layers'], 2)
  options = {
    'cap': c.given('attn_logit_softcapping', 50.0),
    'scale': c.get('query_pre_attn_scalar', 256) ** -0.5,
  }
  attention = lambda mask: llama.attention(c, 4, 256, mask=mask, **options)
  layer_masks = masks(c, types, c.given('sliding_window', 4096))
  cap = c.given('final_logit_softcapping', 30.0)
  layers = [Block(attention(mask), ffn, norm, Sandwich()) for mask in layer_masks]
  return llama.decoder(c, layers, norm, True, Tokens(power=0.5), cap=cap)


_ACT = 'gelu_pytorch_tanh'


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  scale = block.mixer.scale or block.mixer.size(m.d_model) ** -0.5
  sizes = {name: value for name, value in llama.sizes(m).items() if name != 'hidden_act'}
  return {
    **sizes, 'hidden_activation': name_of(block.ffn.act, _ACT),
    'attention_bias': bool(block.mixer.bias),
    'attn_logit_softcapping': block.mixer.cap, 'final_logit_softcapping': m.lm and m.lm.cap,
    'query_pre_attn_scalar': round(scale**-2),
    'sliding_window': window_of(m), 'layer_types': types_of(m),
  }  # fmt: skip


MODELS = {
  'gemma2-2b': Entry(gemma2(26, 2304, 8, 4, 9216), 2_614_341_888, '2.6B', PAPER),
  'gemma2-9b': Entry(gemma2(42, 3584, 16, 8, 14_336), 9_241_705_984, '9.2B', PAPER),
  'gemma2-27b': Entry(gemma2(46, 4608, 32, 16, 36_864, 128, 144), 27_227_128_320, '27.2B', PAPER),
}
