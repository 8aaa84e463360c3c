"""BLOOM (BigScience, 2022): a pre-norm decoder with ALiBi and normalised embeddings."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.alibi import ALiBi
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'BLOOM: A 176B-Parameter Open-Access Multilingual Language Model, arXiv:2211.05100'


def bloom(
  depth: int, d: int, heads: int, vocab: int = 250_880, eps: float = 1e-5, tied: bool = True,
  dropout: float = 0.0, attention_dropout: float = 0.0,
) -> Model:  # fmt: skip
  """Return a pre-norm decoder with ALiBi, tanh GELU, biases and a norm on the embeddings.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.
    eps: epsilon of the norms.
    tied: whether the head shares the token table.
    dropout: dropout rate of the residual branches.
    attention_dropout: dropout rate of the attention weights.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(eps)
  attention = Attention(heads, relative=ALiBi(), bias='qkvo', dropout=attention_dropout)
  block = Block(attention, Mlp(4 * d, GeluTanh()), norm, dropout=dropout)
  return Model(
    Tokens(vocab, norm=norm),
    d,
    (Segment((block,), depth),),
    heads={'lm': Lm(tied)},
    norm=norm,
    init=Normal(),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(apply_residual_connection_post_layernorm=False, skip_bias_add_qkv=False)
  # Kernel fusion, splits over devices, and unused sizes.
  c.skip(
    'pretraining_tp',
    'slow_but_exact',
    'attention_softmax_in_fp32',
    'bias_dropout_fusion',
    'offset_alibi',
  )
  c.skip('masked_softmax_fusion', 'seq_length', 'skip_bias_add')
  d = c.get('n_embed') or c['hidden_size']
  heads = c.get('num_attention_heads') or c['n_head']
  depth = c.get('num_hidden_layers') or c['n_layer']
  eps, tied = c.get('layer_norm_epsilon', 1e-5), c.get('tie_word_embeddings', True)
  dropouts = c.get('hidden_dropout', 0.0), c.get('attention_dropout', 0.0)
  return bloom(depth, d, heads, c['vocab_size'], eps, tied, *dropouts)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'n_layer': depth(m),
    'n_head': block.mixer.heads,
    'layer_norm_epsilon': block.norm.eps, 'hidden_dropout': block.dropout,
    'attention_dropout': block.mixer.dropout,
  }  # fmt: skip


MODELS = {
  'bloom-560m': Entry(bloom(24, 1024, 16), 559_214_592, '559M', PAPER),
  'bloom-7b1': Entry(bloom(30, 4096, 32), 7_069_016_064, '7.1B', PAPER),
  'bloom-176b': Entry(bloom(70, 14_336, 112), 176_247_271_424, '176.2B', PAPER),
}
