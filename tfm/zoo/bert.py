"""BERT (Devlin et al., 2018): a post-norm encoder with a masked-LM head."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.post import Post
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'BERT: Pre-training of Deep Bidirectional Transformers, arXiv:1810.04805'


def bert(
  depth: int, d: int, heads: int, vocab: int = 30_522, types: int = 2, eps: float = 1e-12
) -> Model:
  """Return a post-norm encoder with erf GELU, learned positions and token types.

  The vocabulary is the uncased one. The embeddings are normalised.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.
    types: number of token types.
    eps: epsilon of the norms.

  Returns:
    The spec of the model.

  Note:
    It has no pooler and no next-sentence head.
  """
  norm = LayerNorm(eps)
  attention = Attention(heads, mask=Mask(), bias='qkvo', dropout=0.1)
  block = Block(attention, Mlp(4 * d, Gelu()), norm, Post(), dropout=0.1)
  return Model(
    Tokens(vocab, types=types, norm=norm, dropout=0.1),
    d,
    (Segment((block,), depth),),
    Learned(512),
    norm,
    heads={'lm': Lm(bias=True, transform=Transform(Gelu(), norm))},
    init=Normal(depth_scaled=False, truncated=True),
  )


def read(
  c: Fields, act: str = 'gelu', drop: float = 0.1, eps: float = 1e-12, types: int = 2
) -> Model:
  """Return the spec of a published `config.json`, with its masked-LM head.

  Args:
    c: fields of the config.
    act: activation if the config has none.
    drop: dropout rate if the config has none.
    eps: epsilon of the norms if the config has none.
    types: number of token types if the config has none.

  Returns:
    The spec of the model.
  """
  c.only(
    position_embedding_type='absolute',
    is_decoder=False,
    add_cross_attention=False,
    tie_word_embeddings=True,
  )
  c.only(directionality='bidi', pooler_type='first_token_transform')
  c.skip(
    'pooler_fc_size', 'pooler_num_attention_heads', 'pooler_num_fc_layers', 'pooler_size_per_head'
  )
  kind, dropout = c.act('hidden_act', act), c.get('hidden_dropout_prob', drop)
  norm = LayerNorm(c.get('layer_norm_eps', eps))
  heads, attention_dropout = c['num_attention_heads'], c.get('attention_probs_dropout_prob', drop)
  attention = Attention(heads, mask=Mask(), bias='qkvo', dropout=attention_dropout)
  block = Block(attention, Mlp(c['intermediate_size'], kind), norm, Post(), dropout=dropout)
  return Model(
    Tokens(c['vocab_size'], types=c.get('type_vocab_size', types), norm=norm, dropout=dropout),
    c['hidden_size'],
    (Segment((block,), c['num_hidden_layers']),),
    Learned(c['max_position_embeddings']),
    norm,
    heads={'lm': Lm(bias=True, transform=Transform(kind, norm))},
    init=Normal(depth_scaled=False, truncated=True),
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads, 'intermediate_size': block.ffn.d_ff,
    'max_position_embeddings': m.max_positions, 'type_vocab_size': m.embed.types,
    'layer_norm_eps': block.norm.eps,
    'hidden_act': name_of(block.ffn.act), 'hidden_dropout_prob': block.dropout,
    'attention_probs_dropout_prob': block.mixer.dropout,
  }  # fmt: skip


MODELS = {
  'bert-base': Entry(bert(12, 768, 12), 109_514_298, '110M', PAPER),
  'bert-large': Entry(bert(24, 1024, 16), 335_174_458, '340M', PAPER),
}
