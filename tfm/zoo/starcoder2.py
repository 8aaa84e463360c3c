"""StarCoder2 (BigCode, 2024): a pre-norm decoder with biases and sliding-window attention."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import causal_mask, window_of

PAPER = 'StarCoder 2 and The Stack v2, arXiv:2402.19173'


def starcoder2(depth: int, d: int, heads: int, kv_heads: int, base: float) -> Model:
  """Return a tied pre-norm decoder with LayerNorm, tanh GELU and a window of 4096 tokens.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    base: base of the rotary position embedding.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-5)
  attention = Attention(heads, kv_heads, d // heads, RoPE(base), causal_mask(4096), bias='qkvo')
  segment = Segment((Block(attention, Mlp(4 * d, GeluTanh()), norm),), depth)
  return Model(Tokens(49_152), d, (segment,), norm=norm, init=Normal(depth_scaled=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(mlp_type='default', norm_type='layer_norm', scale_attn_weights=True)
  # Fields of the training library, which transformers ignores.
  c.skip(
    'activation_function',
    'layer_norm_epsilon',
    'attention_softmax_in_fp32',
    'scale_attention_softmax_in_fp32',
  )
  norm, bias = LayerNorm(c.get('norm_epsilon', 1e-5)), c.get('use_bias', True)
  attention = llama.attention(
    c, 2, mask=causal_mask(c.given('sliding_window')), bias='qkvo' if bias else ''
  )
  ffn = Mlp(c['intermediate_size'], c.act('hidden_act', 'gelu_pytorch_tanh'), bias)
  block = Block(attention, ffn, norm, dropout=c.get('residual_dropout', 0.0))
  embed = Tokens(dropout=c.get('embedding_dropout', 0.0))
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm, True, embed)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    **llama.sizes(m, 'norm_epsilon'), 'use_bias': block.ffn.bias, 'sliding_window': window_of(m),
    'hidden_act': name_of(block.ffn.act, 'gelu_pytorch_tanh'), 'residual_dropout': block.dropout,
    'embedding_dropout': m.embed.dropout,
  }  # fmt: skip


MODELS = {
  'starcoder2-3b': Entry(
    starcoder2(30, 3072, 24, 2, 999_999.4420358813), 3_030_371_328, '3B', PAPER
  ),
  'starcoder2-7b': Entry(starcoder2(32, 4608, 36, 4, 1e6), 7_173_923_840, '7B', PAPER),
}
