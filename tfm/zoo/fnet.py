"""FNet (Lee-Thorp et al., 2021): BERT with Fourier transforms in place of attention."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.act.tanh import Tanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.classify import Classify
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.fourier import Fourier
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.post import Post
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'FNet: Mixing Tokens with Fourier Transforms, arXiv:2105.03824'


def fnet(depth: int, d: int) -> Model:
  """Return a BERT without attention, with tanh GELU, projected embeddings and four token types."""
  norm, init = LayerNorm(1e-12), Normal(depth_scaled=False, truncated=True)
  block = Block(Fourier(), Mlp(4 * d, GeluTanh()), norm, Post(), dropout=0.1)
  return Model(
    Tokens(32_000, types=4, norm=norm, dropout=0.1, dim=d),
    d,
    (Segment((block,), depth),),
    Learned(512),
    norm,
    heads={'lm': Lm(bias=True, transform=Transform(GeluTanh(), norm))},
    init=init,
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with its masked-LM head and pooler."""
  c.only(use_tpu_fourier_optimizations=False, tie_word_embeddings=True)
  c.skip('tpu_short_seq_length')
  spec = fnet(c['num_hidden_layers'], c['hidden_size'])
  act, norm = c.act('hidden_act', 'gelu_new'), LayerNorm(c.get('layer_norm_eps', 1e-12))
  dropout = c.get('hidden_dropout_prob', 0.1)
  block = Block(Fourier(), Mlp(c['intermediate_size'], act), norm, Post(), dropout=dropout)
  embed = Tokens(types=c.get('type_vocab_size', 4), norm=norm, dropout=dropout, dim=spec.d_model)
  return dataclasses.replace(
    spec,
    embed=dataclasses.replace(embed, vocab=c['vocab_size']),
    segments=(Segment((block,), depth(spec)),),
    norm=norm,
    absolute=Learned(c['max_position_embeddings']),
    heads={
      **spec.heads,
      'lm': Lm(bias=True, transform=Transform(act, norm)),
      'classify': Classify(0, hidden=Tanh()),
    },
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'intermediate_size': block.ffn.d_ff, 'max_position_embeddings': m.max_positions,
    'type_vocab_size': m.embed.types,
    'layer_norm_eps': block.norm.eps, 'hidden_act': name_of(block.ffn.act),
    'hidden_dropout_prob': block.dropout,
  }  # fmt: skip


MODELS = {
  'fnet-base': Entry(fnet(12, 768), 82_894_592, '83M', PAPER),
  'fnet-large': Entry(fnet(24, 1024), 236_979_456, '238M', PAPER),
}
