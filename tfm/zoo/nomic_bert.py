"""Nomic BERT (Nussbaum et al., 2024): BERT with RoPE and SwiGLU for long texts."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.absolute.base import Absolute
from tfm.parts.act.sigmoid import Swish
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Transform
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.post import Post
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, rope_parameters

PAPER = 'Nomic Embed: Training a Reproducible Long Context Text Embedder, arXiv:2402.01613'


def nomic_bert(depth: int, d: int, heads: int) -> Model:
  """Return a BERT with RoPE, SwiGLU and no biases except in norms.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  spec: Any = bert.bert(depth, d, heads, 30_528)
  # The head and the gate have the same activation.
  assert spec.lm is not None
  spec = spec.with_heads(lm=dataclasses.replace(spec.lm, transform=Transform(Swish(), spec.norm)))
  return _changed(spec, Attention(heads, relative=RoPE(1000.0), mask=Mask()), Glu(4 * d), 0.0)


def _changed(spec: Any, mixer: Attention, ffn: Glu, dropout: float) -> Model:
  block = Block(mixer, ffn, spec.norm, Post(), dropout=dropout)
  segment = dataclasses.replace(spec.segments[0], pattern=(block,))
  embed = dataclasses.replace(spec.embed, dropout=dropout)
  return dataclasses.replace(spec, segments=(segment,), absolute=Absolute(), embed=embed)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  heads = c['num_attention_heads']
  spec: Any = bert.read(c, 'silu', 0.0)
  size, drop = c.get('head_dim', spec.d_model // heads), c.get('attention_probs_dropout_prob', 0.0)
  mixer = Attention(
    heads, head_dim=size, relative=c.rope(1000.0, partial=False), mask=Mask(), dropout=drop
  )
  return _changed(
    spec, mixer, Glu(c['intermediate_size'], c.act('hidden_act', 'silu')), spec.embed.dropout
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  mixer = m.segments[0].pattern[0].mixer
  rope, size = rope_parameters(mixer.relative), mixer.size(m.d_model)
  return {
    **bert.write(m),
    'rope_parameters': rope,
    'head_dim': size,
    'max_position_embeddings': 2048,
  }


MODELS = {'nomic-bert-base': Entry(nomic_bert(12, 768, 12), 137_354_304, '137M', PAPER)}
