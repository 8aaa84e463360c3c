"""Llama 2, 3, 3.1 and 3.2 (Touvron et al., 2023; Meta, 2024).

A pre-norm decoder with RMSNorm, rotary position embeddings, SwiGLU and grouped-query attention.
Read `model/spec.py` next: it defines the parts of a model.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.base import Norm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters
from tfm.zoo.layers import layers_of, segments

PAPER_2 = 'Llama 2: Open Foundation and Fine-Tuned Chat Models, arXiv:2307.09288'
PAPER_3 = 'The Llama 3 Herd of Models, arXiv:2407.21783'
PAPER_3_2 = 'Llama 3.2, model card, Meta 2024'


def llama(
  depth: int,
  d: int,
  heads: int,
  kv_heads: int,
  d_ff: int,
  vocab: int,
  rope: RoPE,
  tied: bool = False,
) -> Model:
  """Return a pre-norm decoder with RMSNorm, RoPE, SwiGLU, grouped-query attention and no biases.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.
    vocab: size of the vocabulary.
    rope: rotary position embedding.
    tied: whether the head shares the token table.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  block = Block(Attention(heads, kv_heads, d // heads, rope), Glu(d_ff), norm)
  return Model(
    Tokens(vocab),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(tied=tied)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6))
  return decoder(c, [Block(attention(c), glu(c), norm)] * c['num_hidden_layers'], norm)


def attention(
  c: Fields, kv_heads: int | None = None, head_dim: int | None = None, **changes: Any
) -> Attention:
  """Return the attention of a config with Llama's fields.

  Args:
    c: fields of the config.
    kv_heads: number of key/value heads if the config has no such field; None is the number of
      heads.
    head_dim: width of a head if the config has none; None is hidden_size / heads.
    **changes: fields of the attention that the family sets.

  Returns:
    The attention mixer.
  """
  d, heads = c['hidden_size'], c['num_attention_heads']
  rope = changes.pop('relative') if 'relative' in changes else c.rope(partial=False)
  fields = {
    'bias': 'qkvo' if c.get('attention_bias') else '',
    'dropout': c.get('attention_dropout', 0.0),
    **changes,
  }
  kv_heads = c.given('num_key_value_heads', kv_heads) or heads
  return Attention(heads, kv_heads, c.get('head_dim', head_dim or d // heads), rope, **fields)


def glu(c: Fields, **changes: Any) -> Glu:
  """Return the gated feed-forward of a config with Llama's fields.

  Args:
    c: fields of the config.
    **changes: fields of the feed-forward that the family sets.

  Returns:
    The feed-forward.
  """
  fields = {'bias': c.get('mlp_bias', False), **changes}
  d_ff, act = c['intermediate_size'], c.act('hidden_act', 'silu')
  return Glu(**{'d_ff': d_ff, 'act': act, **fields})


def decoder(
  c: Fields,
  layers: Sequence[Block],
  norm: Norm,
  tied: bool = False,
  embed: Tokens | None = None,
  **head: Any,
) -> Model:
  """Return a decoder with the given layers and the sizes of a config.

  Args:
    c: fields of the config.
    layers: blocks of the decoder, in order.
    norm: final norm.
    tied: whether the head shares the token table if the config does not specify it.
    embed: input layer; its vocabulary is that of the config.
    **head: fields of the language-model head.

  Returns:
    The spec of the model.
  """
  top = Lm(tied=c.get('tie_word_embeddings', tied), **head)
  return Model(
    dataclasses.replace(embed or Tokens(), vocab=c['vocab_size']),
    c['hidden_size'],
    segments(layers),
    heads={'lm': top},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {**sizes(m), 'attention_bias': bool(block.mixer.bias), 'mlp_bias': block.ffn.bias}


def sizes(m: FamilyModel, eps: str | None = 'rms_norm_eps') -> dict[str, Any]:
  """Return the config fields that almost every relative of Llama has.

  Args:
    m: spec of the model.
    eps: name of the field for the norms' epsilon; None leaves it out.

  Returns:
    The fields and their values.
  """
  block = m.segments[0].pattern[0]
  a, dense = block.mixer, [b.ffn for b in layers_of(m) if hasattr(b.ffn, 'act')]
  heads, kv_heads, head_dim = a.sizes(m.d_model)
  # A layer without positions (NoPE) has no base.
  rope = next(r for b in layers_of(m) if hasattr(r := b.mixer.relative, 'base'))
  fields = {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': heads, 'num_key_value_heads': kv_heads, 'head_dim': head_dim,
    'rope_parameters': rope_parameters(rope),
    'max_position_embeddings': getattr(rope.scaling, 'length', 131_072),
    'attention_dropout': a.dropout, 'tie_word_embeddings': m.lm is None or m.lm.tied,
  }  # fmt: skip
  if eps:
    fields[eps] = m.norm.eps
  if dense:
    fields |= {'intermediate_size': dense[0].d_ff, 'hidden_act': name_of(dense[0].act)}
  return fields


def padding(m: FamilyModel, usual: int) -> dict[str, Any]:
  """Return a null `pad_token_id` if the family's usual id is outside the vocabulary."""
  return {} if usual < m.vocab else {'pad_token_id': None}


_V2, _V3 = RoPE(1e4), RoPE(5e5)
_V3_1, _V3_2 = RoPE(5e5, scaling=Llama3(8.0)), RoPE(5e5, scaling=Llama3(32.0))

MODELS = {
  'llama2-7b': Entry(llama(32, 4096, 32, 32, 11_008, 32_000, _V2), 6_738_415_616, '7B', PAPER_2),
  'llama2-13b': Entry(llama(40, 5120, 40, 40, 13_824, 32_000, _V2), 13_015_864_320, '13B', PAPER_2),
  'llama2-70b': Entry(llama(80, 8192, 64, 8, 28_672, 32_000, _V2), 68_976_648_192, '70B', PAPER_2),
  'llama3-8b': Entry(llama(32, 4096, 32, 8, 14_336, 128_256, _V3), 8_030_261_248, '8B', PAPER_3),
  'llama3-70b': Entry(llama(80, 8192, 64, 8, 28_672, 128_256, _V3), 70_553_706_496, '70B', PAPER_3),
  'llama3.1-8b': Entry(
    llama(32, 4096, 32, 8, 14_336, 128_256, _V3_1), 8_030_261_248, '8B', PAPER_3
  ),
  'llama3.1-70b': Entry(
    llama(80, 8192, 64, 8, 28_672, 128_256, _V3_1), 70_553_706_496, '70B', PAPER_3
  ),
  'llama3.1-405b': Entry(
    llama(126, 16_384, 128, 8, 53_248, 128_256, _V3_1), 405_853_388_800, '405B', PAPER_3
  ),
  'llama3.2-1b': Entry(
    llama(16, 2048, 32, 8, 8192, 128_256, _V3_2, True), 1_235_814_400, '1.23B', PAPER_3_2
  ),
  'llama3.2-3b': Entry(
    llama(28, 3072, 24, 8, 8192, 128_256, _V3_2, True), 3_212_749_824, '3.21B', PAPER_3_2
  ),
}
