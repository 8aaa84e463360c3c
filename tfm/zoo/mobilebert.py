"""MobileBERT: narrow layers with stacked feed-forwards (Sun et al., 2020)."""

from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.base import Act
from tfm.parts.act.relu import Relu
from tfm.parts.embed.trigrams import Trigrams
from tfm.parts.head.lm import Transform
from tfm.parts.head.partly_tied import PartlyTied
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.bottleneck import Bottleneck
from tfm.parts.norm.affine import Affine
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.post import Post
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'MobileBERT: a Compact Task-Agnostic BERT for Resource-Limited Devices, arXiv:2004.02984'


def mobilebert(
  layers: int = 24,
  d: int = 512,
  heads: int = 4,
  width: int = 128,
  d_ff: int = 512,
  ffns: int = 4,
  shared: bool = True,
) -> Model:
  """Return a post-norm encoder with bottlenecks, trigram embeddings, and norms without statistics.

  Args:
    layers: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    width: width inside the bottlenecks, and of the token table.
    d_ff: hidden width of the feed-forwards.
    ffns: number of feed-forwards per layer.
    shared: whether queries and keys share a second input projection.

  Returns:
    The spec of the model.
  """
  attention = Attention(heads, mask=Mask(), bias='qkvo', dropout=0.1)
  mixer = Bottleneck(width, attention, d_ff, Relu(), ffns, Affine(), shared)
  return _model(30_522, d, layers, mixer, width, Relu(), 0.0, Learned(512), 2, 1e-12)


def _model(
  vocab: int, d: int, layers: int, mixer: Bottleneck, dim: int, act: Act, dropout: float,
  absolute: Learned,
  types: int, eps: float,
) -> Model:  # fmt: skip
  block = Block(mixer, None, Affine(), Post(), dropout=dropout)
  return Model(
    Trigrams(vocab, types=types, norm=Affine(), dropout=dropout, dim=dim),
    d,
    (Segment((block,), layers),),
    absolute,
    Affine(),
    heads={'lm': PartlyTied(bias=True, transform=Transform(act, LayerNorm(eps)))},
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published config, with a masked-LM head.

  Models without bottlenecks or trigrams, with layer normalisation, or with a token table as wide as
  the model raise an error. None of them is published.
  """
  c.only(
    normalization_type='no_norm', use_bottleneck=True, trigram_input=True, tie_word_embeddings=True
  )
  c.skip('true_hidden_size', 'classifier_activation')
  width, d, shared = (
    c.get('intra_bottleneck_size', 128),
    c['hidden_size'],
    c.get('key_query_shared_bottleneck', True),
  )
  narrow = c.get('use_bottleneck_attention', False)
  if not (shared or narrow):
    raise errors.UserError(
      f'{c.where}: key_query_shared_bottleneck and use_bottleneck_attention are both false, so '
      f'the query projection takes {width} inputs, and hidden_size is {d}. '
      'Expected either to be true.'
    )
  if (dim := c.get('embedding_size', 128)) >= d:
    raise errors.UserError(
      f'{c.where}: embedding_size is {dim}. Expected less than hidden_size, {d}.'
    )
  act, dropout = c.act('hidden_act', 'relu'), c.get('hidden_dropout_prob', 0.0)
  attention_dropout = c.get('attention_probs_dropout_prob', 0.1)
  attention = Attention(
    c['num_attention_heads'], mask=Mask(), bias='qkvo', dropout=attention_dropout
  )
  ffns = c.get('num_feedforward_networks', 4)
  mixer = Bottleneck(width, attention, c['intermediate_size'], act, ffns, Affine(), not narrow)
  absolute, types = Learned(c['max_position_embeddings']), c.get('type_vocab_size', 2)
  eps = c.get('layer_norm_eps', 1e-12)
  return _model(
    c['vocab_size'], d, c['num_hidden_layers'], mixer, dim, act, dropout, absolute, types, eps
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  block = m.segments[0].pattern[0]
  mixer = block.mixer
  eps = {} if m.lm is None else {'layer_norm_eps': m.lm.transform.norm.eps}
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': mixer.attention.heads, 'intermediate_size': mixer.d_ff,
    'max_position_embeddings': m.max_positions, 'type_vocab_size': m.embed.types,
    'hidden_act': name_of(mixer.act),
    'hidden_dropout_prob': block.dropout, 'attention_probs_dropout_prob': mixer.attention.dropout,
    'embedding_size': m.embed.dim, 'intra_bottleneck_size': mixer.width,
    'num_feedforward_networks': mixer.ffns,
    'key_query_shared_bottleneck': mixer.shared, 'use_bottleneck_attention': not mixer.shared,
    **eps,
  }  # fmt: skip


MODELS = {'mobilebert': Entry(mobilebert(), 36_596_538, '37M', PAPER)}
