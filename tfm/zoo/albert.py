"""ALBERT: one layer's parameters in every layer, and embeddings narrower than the model (2019)."""

import dataclasses
from typing import Any

from tfm.model.spec import Model, Segment, depth
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.head.lm import Lm, Transform
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.fields import Fields

PAPER = (
  'ALBERT: A Lite BERT for Self-supervised Learning of Language Representations, arXiv:1909.11942'
)


def albert(depth: int, d: int, heads: int) -> Model:
  """BERT with tanh GELU and embeddings of 128, whose layers share their parameters; SentencePiece
  vocabulary.
  """
  return shared(bert.bert(depth, d, heads, 30_000), [depth], 1, 128, GeluTanh())


def shared(spec: Any, repeats: list[int], inner: int, width: int, act: Act) -> Model:
  """A BERT as groups of `inner` layers, each repeated so many times, over embeddings of `width`."""
  (block,) = spec.segments[0].pattern
  block = dataclasses.replace(block, ffn=dataclasses.replace(block.ffn, act=act))
  groups = tuple(Segment((block,) * inner, n, shared=True) for n in repeats)
  head = Lm(bias=True, transform=Transform(act, spec.norm))
  embed = dataclasses.replace(spec.embed, dim=width)
  return dataclasses.replace(spec, embed=embed, segments=groups, heads={**spec.heads, 'lm': head})


def read(c: Fields) -> Model:
  """The spec of a published config, of a masked language model."""
  c.only(down_scale_factor=1, gap_size=0, net_structure_type=0, num_memory_blocks=0)
  c.skip('classifier_dropout_prob')
  layers, groups = c.get('num_hidden_layers', 12), c.get('num_hidden_groups', 1)
  of_layer = [int(i / (layers / groups)) for i in range(layers)]
  repeats = [of_layer.count(g) for g in range(groups)]
  inner, width = c.get('inner_group_num', 1), c.get('embedding_size', 128)
  return shared(
    bert.read(c, 'gelu_new', 0.0), repeats, inner, width, c.act('hidden_act', 'gelu_new')
  )


def write(m: Any) -> dict[str, Any]:
  """The published fields of a spec."""
  inner = len(m.segments[0].pattern)
  return {
    **bert.write(m), 'embedding_size': m.embed.dim, 'num_hidden_layers': depth(m) // inner,
    'num_hidden_groups': len(m.segments), 'inner_group_num': inner,
  }  # fmt: skip


MODELS = {
  'albert-base': Entry(albert(12, 768, 12), 11_221_680, '12M', PAPER),
  'albert-large': Entry(albert(24, 1024, 16), 16_795_824, '18M', PAPER),
}
