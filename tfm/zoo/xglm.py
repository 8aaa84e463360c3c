"""XGLM (Lin et al., 2021): a multilingual decoder with sinusoidal positions."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.sinusoidal import Sinusoidal
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'Few-shot Learning with Multilingual Language Models, arXiv:2112.10668'
POSITIONS = Sinusoidal('t2t', offset=2)
NORM = LayerNorm(1e-5)


def xglm(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with erf GELU, biases and a tied, scaled token table.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  attention = Attention(heads, bias='qkvo', dropout=0.1)
  block = Block(attention, Mlp(d_ff, Gelu()), NORM, dropout=0.1)
  embed = Tokens(256_008, power=0.5, dropout=0.1)
  return Model(
    embed, d, (Segment((block,), depth),), POSITIONS, NORM, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(add_cross_attention=False, layerdrop=0.0)
  c.skip('max_position_embeddings', 'is_decoder')  # sinusoids have no maximum length
  dropout = c.get('dropout', 0.1)
  attention = Attention(c['attention_heads'], bias='qkvo', dropout=c.get('attention_dropout', 0.1))
  ffn = Mlp(
    c['ffn_dim'], c.act('activation_function', 'gelu'), dropout=c.get('activation_dropout', 0.0)
  )
  power = 0.5 if c.get('scale_embedding', True) else 0.0
  return Model(
    Tokens(c['vocab_size'], power=power, dropout=dropout),
    c['d_model'],
    (Segment((Block(attention, ffn, NORM, dropout=dropout),), c['num_layers']),),
    POSITIONS,
    NORM,
    heads={'lm': Lm(c.get('tie_word_embeddings', True))},
    init=Normal(depth_scaled=False),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'd_model': m.d_model, 'num_layers': depth(m),
    'attention_heads': block.mixer.heads,
    'ffn_dim': block.ffn.d_ff, 'activation_function': name_of(block.ffn.act, 'gelu'),
    'dropout': block.dropout,
    'attention_dropout': block.mixer.dropout, 'activation_dropout': block.ffn.dropout,
    'scale_embedding': m.embed.power == 0.5,
  }  # fmt: skip


MODELS = {
  'xglm-564m': Entry(xglm(24, 1024, 16, 4096), 564_463_616, '564M', PAPER),
  'xglm-1.7b': Entry(xglm(24, 2048, 16, 8192), 1_732_907_008, '1.7B', PAPER),
  'xglm-7.5b': Entry(xglm(32, 4096, 32, 16_384), 7_492_771_840, '7.5B', PAPER),
}
