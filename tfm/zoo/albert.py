"""ALBERT (Lan et al., 2019): BERT with shared layers and narrow token embeddings."""

import dataclasses
from typing import Any

from tfm.model.spec import Model, Segment, depth
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.head.lm import Lm, Transform
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'ALBERT: A Lite BERT for Self-supervised Learning of Language Representations, arXiv:1909.11942'
)


def albert(depth: int, d: int, heads: int) -> Model:
  """Return a BERT with shared layers, embeddings of width 128 and tanh GELU.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return shared(bert.bert(depth, d, heads, 30_000), [depth], 1, 128, GeluTanh())


def shared(spec: Any, repeats: list[int], inner: int, width: int, act: Act) -> Model:
  """Return a BERT with layers that share parameters within groups.

  Args:
    spec: a BERT with one segment.
    repeats: number of times that each group is applied.
    inner: number of distinct layers in a group.
    width: width of the token embeddings.
    act: activation of the feed-forward and of the head.

  Returns:
    The spec of the model.
  """
  (block,) = spec.segments[0].pattern
  block = dataclasses.replace(block, ffn=dataclasses.replace(block.ffn, act=act))
  groups = tuple(Segment((block,) * inner, n, shared=True) for n in repeats)
  head = Lm(bias=True, transform=Transform(act, spec.norm))
  embed = dataclasses.replace(spec.embed, dim=width)
  return dataclasses.replace(spec, embed=embed, segments=groups, heads={**spec.heads, 'lm': head})


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.only(down_scale_factor=1, gap_size=0, net_structure_type=0, num_memory_blocks=0)
  c.skip('classifier_dropout_prob')
  layers, groups = c.get('num_hidden_layers', 12), c.get('num_hidden_groups', 1)
  of_layer = [int(i / (layers / groups)) for i in range(layers)]
  repeats = [of_layer.count(g) for g in range(groups)]
  inner, width = c.get('inner_group_num', 1), c.get('embedding_size', 128)
  return shared(
    bert.read(c, 'gelu_new', 0.0), repeats, inner, width, c.act('hidden_act', 'gelu_new')
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  inner = len(m.segments[0].pattern)
  return {
    **bert.write(m), 'embedding_size': m.embed.dim, 'num_hidden_layers': depth(m) // inner,
    'num_hidden_groups': len(m.segments), 'inner_group_num': inner,
  }  # fmt: skip


MODELS = {
  'albert-base': Entry(albert(12, 768, 12), 11_221_680, '12M', PAPER),
  'albert-large': Entry(albert(24, 1024, 16), 16_795_824, '18M', PAPER),
}
