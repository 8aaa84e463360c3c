"""Falcon (Almazrouei et al., 2023): three architectures under one name."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.alibi import ALiBi
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.base import ResidualLayout
from tfm.parts.residual_layout.parallel import Parallel
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters

PAPER = 'The Falcon Series of Open Language Models, arXiv:2311.16867'

#: Sequential branches, parallel branches with one norm, and parallel branches with two norms.
STEPS, ONE_NORM, TWO_NORMS = Pre(), Parallel(), Parallel(norms_per_branch=True)


def falcon(
  depth: int,
  d: int,
  heads: int,
  kv_heads: int,
  residual_layout: ResidualLayout,
  vocab: int = 65_024,
) -> Model:
  """Return a decoder with RoPE, grouped-query attention, erf GELU, no biases and a tied head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    residual_layout: parallel branches with one norm or two, or one branch after the other.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm, attention = LayerNorm(1e-5), Attention(heads, kv_heads, relative=RoPE())
  block = Block(attention, Mlp(4 * d, Gelu(), bias=False), norm, residual_layout)
  return Model(
    Tokens(vocab), d, (Segment((block,), depth),), norm=norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`.

  Note:
    With `alibi`, transformers rounds the biases to bfloat16, which changes outputs from position
    257
    on. Without a fused kernel, it adds the biases twice.
  """
  c.only(apply_residual_connection_post_layernorm=False)
  c.skip('max_position_embeddings')
  d = c.get('n_embed') or c['hidden_size']
  heads = c['num_attention_heads']
  bias = c.get('bias', False)
  alibi = c.get('alibi', False)
  residual_layout: ResidualLayout
  if c.get('new_decoder_architecture', False):
    c.only(parallel_attn=True)
    c.skip('multi_query')
    kv_heads = c.get('num_kv_heads', heads)
    residual_layout = TWO_NORMS
    if c.get('num_ln_in_parallel_attn', 2) != 2:
      c.only(num_ln_in_parallel_attn=1)
      residual_layout = ONE_NORM
  else:
    kv_heads = 1 if c.get('multi_query', True) else heads
    residual_layout = ONE_NORM if c.get('parallel_attn', True) else STEPS
    if c.get('num_ln_in_parallel_attn', 1) != 1:
      c.only(num_ln_in_parallel_attn=1)
    c.skip('num_kv_heads')
  rope = c.rope(partial=False)
  relative: Relative = ALiBi(scale=(d // heads) ** -0.5) if alibi else rope
  norm, dropout = LayerNorm(c.get('layer_norm_epsilon', 1e-5)), c.get('hidden_dropout', 0.0)
  attention = Attention(
    heads,
    kv_heads,
    relative=relative,
    bias='qkvo' if bias else '',
    dropout=c.get('attention_dropout', 0.0),
  )
  ffn = Mlp(c.get('ffn_hidden_size', 4 * d), c.act('activation', 'gelu'), bias)
  return Model(
    Tokens(c['vocab_size']),
    d,
    (
      Segment(
        (Block(attention, ffn, norm, residual_layout, dropout=dropout),), c['num_hidden_layers']
      ),
    ),
    heads={'lm': Lm(c.get('tie_word_embeddings', True))},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  a = block.mixer
  heads, kv_heads, H = a.sizes(m.d_model)
  alibi = a.relative == ALiBi(scale=H**-0.5)
  new = block.residual_layout == TWO_NORMS or kv_heads not in (1, heads)
  norms = {TWO_NORMS: 2, ONE_NORM: 1}[block.residual_layout] if new else None
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': heads,
    'num_kv_heads': kv_heads, 'multi_query': kv_heads == 1, 'new_decoder_architecture': new,
    'num_ln_in_parallel_attn': norms, 'parallel_attn': block.residual_layout != STEPS,
    'ffn_hidden_size': block.ffn.d_ff,
    'activation': name_of(block.ffn.act), 'bias': block.ffn.bias,
    'layer_norm_epsilon': block.norm.eps,
    'alibi': alibi, 'hidden_dropout': block.dropout, 'attention_dropout': a.dropout,
    **({} if alibi else {'rope_parameters': rope_parameters(a.relative)}),
  }  # fmt: skip


MODELS = {
  'falcon-7b': Entry(falcon(32, 4544, 71, 1, ONE_NORM), 6_921_720_704, '7B', PAPER),
  'falcon-40b': Entry(falcon(60, 8192, 128, 8, TWO_NORMS), 41_303_293_952, '40B', PAPER),
  'falcon-180b': Entry(falcon(80, 14_848, 232, 8, TWO_NORMS), 178_557_088_768, '180B', PAPER),
}
