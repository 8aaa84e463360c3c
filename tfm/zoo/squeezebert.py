"""SqueezeBERT: BERT with grouped projections (Iandola et al., 2020)."""

import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model
from tfm.parts.ffn.grouped_mlp import GroupedMlp
from tfm.parts.mixer.grouped import GroupedAttention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = (
  'SqueezeBERT: What can computer vision teach NLP about efficient neural networks?, '
  'arXiv:2006.11316'
)

#: Config fields with the number of groups of each projection, and their defaults.
_GROUPS = {'q': 'q_groups', 'k': 'k_groups', 'v': 'v_groups', 'o': 'post_attention_groups'}
_DEFAULTS = {'q': 4, 'k': 4, 'v': 4, 'o': 1}


def squeezebert(layers: int, d: int, heads: int) -> Model:
  """Return a BERT with 4 groups in all projections except the output projection of attention.

  Args:
    layers: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return squeezed(bert.bert(layers, d, heads), _DEFAULTS, 4, 4)


def squeezed(spec: Any, groups: dict[str, int], up: int, down: int) -> Model:
  """Return a BERT with grouped projections.

  Args:
    spec: the BERT.
    groups: number of groups of the projections q, k, v and o.
    up: number of groups of the first projection of the feed-forward.
    down: number of groups of its second projection.

  Returns:
    The changed spec. The norms of the layers have an epsilon of 1e-12.
  """
  (block,) = spec.segments[0].pattern
  fields: dict[str, Any] = {f'{name}_groups': n for name, n in groups.items()}
  mixer = GroupedAttention(**vars(block.mixer), **fields)
  ffn = GroupedMlp(block.ffn.d_ff, block.ffn.act, up, down)
  block = dataclasses.replace(block, mixer=mixer, ffn=ffn, norm=LayerNorm(1e-12))
  segment = dataclasses.replace(spec.segments[0], pattern=(block,))
  return dataclasses.replace(spec, segments=(segment,), norm=block.norm)


def read(c: Fields) -> Model:
  """Return the spec of a published config, with a masked-LM head."""
  if (width := c.get('embedding_size', 768)) != c['hidden_size']:
    raise errors.UserError(
      f'{c.where}: embedding_size is {width}, and hidden_size is {c["hidden_size"]}. '
      'Expected the same size, as transformers has no projection between them.'
    )
  groups = {name: c.get(field, _DEFAULTS[name]) for name, field in _GROUPS.items()}
  return squeezed(bert.read(c), groups, c.get('intermediate_groups', 4), c.get('output_groups', 4))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  block = m.segments[0].pattern[0]
  return {
    **bert.write(m), 'embedding_size': m.d_model, 'layer_norm_eps': m.embed.norm.eps,
    **{field: getattr(block.mixer, f'{name}_groups') for name, field in _GROUPS.items()},
    'intermediate_groups': block.ffn.up_groups, 'output_groups': block.ffn.down_groups,
  }  # fmt: skip


MODELS = {'squeezebert': Entry(squeezebert(12, 768, 12), 51_121_722, '51M', PAPER)}
