"""DeBERTa v2 and v3 (He et al., 2020, 2021): disentangled attention with shared projections."""

import dataclasses
from typing import Any, cast

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.base import Absolute
from tfm.parts.act.gelu import Gelu
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.conv import Conv
from tfm.parts.mixer.disentangled import Disentangled, Distances
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

_V2 = 'DeBERTa: Decoding-enhanced BERT with Disentangled Attention, arXiv:2006.03654'
PAPER = 'DeBERTaV3: Improving DeBERTa using ELECTRA-Style Pre-Training, arXiv:2111.09543'
_TERMS = ('c2p', 'p2c')


def deberta_v3(depth: int, d: int, heads: int) -> Model:
  """Return a BERT with 512 distance embeddings, which all layers share and project like tokens.

  It has no absolute positions and no token types.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  spec = bert.bert(depth, d, heads, 128_100, types=0, eps=1e-7)
  mixer = Disentangled(
    heads, mask=Mask(), bias='qkvo', scale=(3 * d // heads) ** -0.5, dropout=0.1,
    distances=Distances(256, 512, LayerNorm(1e-7)),
  )  # fmt: skip
  return _with_mixer(dataclasses.replace(spec, absolute=Absolute()), mixer)


def deberta_v2(depth: int, d: int, heads: int) -> Model:
  """Return a DeBERTa v3 with a convolution over three tokens in the first layer.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  return _with_conv(deberta_v3(depth, d, heads), Conv(3, act=Gelu(), dropout=0.1))


def _with_conv(spec: Model, conv: Conv) -> Model:
  """Return the spec with a convolution as extra branch of the first layer."""
  (block,) = spec.segments[0].pattern
  first, rest = Segment((dataclasses.replace(block, extra_branch=conv),)), depth(spec) - 1
  return dataclasses.replace(spec, segments=(first, Segment((block,), rest)) if rest else (first,))


def _with_mixer(spec: Model, mixer: Attention) -> Model:
  (block,) = spec.segments[0].pattern
  segment = dataclasses.replace(
    spec.segments[0], pattern=(dataclasses.replace(block, mixer=mixer),)
  )
  return dataclasses.replace(spec, segments=(segment,))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.only(embedding_size=c['hidden_size'], pooler_hidden_size=c['hidden_size'])
  c.skip('pooler_hidden_act', 'pooler_dropout', 'cls_dropout', 'z_steps', 'legacy')
  spec = bert.read(c, eps=1e-7, types=0)
  given = c.get('pos_att_type', [])
  if isinstance(given, str):
    given = [x.strip() for x in given.lower().split('|')]
  terms = tuple(t for t in _TERMS if t in given)
  plain: Any = spec.segments[0].pattern[0].mixer
  size = spec.d_model // plain.heads
  c.only(attention_head_size=size)
  attention_fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
  attention_fields |= {'scale': (size * (1 + len(terms))) ** -0.5}
  mixer = Attention(**attention_fields)
  if c.get('relative_attention', False):
    far, span = c.get('max_relative_positions', -1), c.get('position_buckets', -1)
    far = far if far > 0 else c.get('max_position_embeddings', 512)
    norm = c.choice('norm_rel_ebd', {'none': None, 'layer_norm': spec.norm}, 'none')
    distances = Distances(span, far, norm) if span > 0 else Distances(far, None, norm)
    mixer = Disentangled(
      **attention_fields, distances=distances, terms=terms, own=not c.get('share_att_key', False)
    )
  else:
    c.skip('max_relative_positions', 'position_buckets', 'norm_rel_ebd', 'share_att_key')
  spec = _with_mixer(spec, mixer)
  if (size := c.get('conv_kernel_size', 0)) > 0:
    conv = Conv(
      size, c.get('conv_groups', 1), c.act('conv_act', 'tanh'), c.get('hidden_dropout_prob', 0.1)
    )
    spec = _with_conv(spec, conv)
  else:
    c.skip('conv_act', 'conv_groups')
  if not c.get('position_biased_input', True):
    spec = dataclasses.replace(spec, absolute=Absolute())
  return spec


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block: Block = m.segments[0].pattern[0]
  mixer: Any = block.mixer
  fields = {
    **bert.write(m), 'max_position_embeddings': m.max_positions or 512,
    'position_biased_input': m.max_positions is not None,
    'relative_attention': mixer.common is not None,
  }  # fmt: skip
  if (conv := cast(Conv | None, block.extra_branch)) is not None:
    fields |= {
      'conv_kernel_size': conv.size,
      'conv_groups': conv.groups,
      'conv_act': name_of(conv.act),
    }
  if mixer.common is None:
    return fields
  distances = mixer.distances
  norm = 'none' if distances.norm is None else 'layer_norm'
  return fields | {
    'pos_att_type': list(mixer.terms), 'share_att_key': not mixer.own,
    'position_buckets': distances.span if distances.far else -1,
    'max_relative_positions': distances.far or distances.span, 'norm_rel_ebd': norm,
  }  # fmt: skip


MODELS = {
  'deberta-v2-xlarge': Entry(deberta_v2(24, 1536, 24), 887_085_156, '900M', _V2),
  'deberta-v2-xxlarge': Entry(deberta_v2(48, 1536, 24), 1_567_041_636, '1.5B', _V2),
  'deberta-v3-small': Entry(deberta_v3(6, 768, 12), 142_024_548, '142M', PAPER),
  'deberta-v3-base': Entry(deberta_v3(12, 768, 12), 184_551_780, '184M', PAPER),
  'deberta-v3-large': Entry(deberta_v3(24, 1024, 16), 435_191_908, '435M', PAPER),
}
