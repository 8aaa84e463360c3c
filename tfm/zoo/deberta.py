"""DeBERTa (He et al., 2020): BERT with disentangled attention over learned relative distances."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.base import Absolute
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.disentangled import Disentangled, Distances
from tfm.zoo import bert, deberta_v2
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'DeBERTa: Decoding-enhanced BERT with Disentangled Attention, arXiv:2006.03654'
#: Projections with a bias; keys have none.
_BIAS = 'qvo'


def deberta(layers: int, d: int, heads: int) -> Model:
  """Return a BERT with 512 relative distances each way, without positions or token types.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  spec: Any = bert.bert(layers, d, heads, 50_265, types=0, eps=1e-7)
  mixer = Disentangled(
    heads,
    mask=Mask(),
    bias=_BIAS,
    scale=(3 * d // heads) ** -0.5,
    dropout=0.1,
    distances=Distances(512),
    own=True,
  )
  return _with_mixer(dataclasses.replace(spec, absolute=Absolute()), mixer)


def _with_mixer(spec: Model, mixer: Any) -> Model:
  (block,) = spec.segments[0].pattern
  segment = dataclasses.replace(
    spec.segments[0], pattern=(dataclasses.replace(block, mixer=mixer),)
  )
  return dataclasses.replace(spec, segments=(segment,))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.only(
    talking_head=False,
    position_buckets=-1,
    share_att_key=False,
    norm_rel_ebd='none',
    conv_kernel_size=0,
  )
  c.skip('padding_idx', 'pos_ebd_type')
  spec: Any = deberta_v2.read(c)
  (block,) = spec.segments[0].pattern
  return _with_mixer(spec, dataclasses.replace(block.mixer, bias=_BIAS))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = deberta_v2.write(m)
  return {
    n: v
    for n, v in fields.items()
    if n not in ('position_buckets', 'share_att_key', 'norm_rel_ebd')
  }


MODELS = {
  'deberta-base': Entry(deberta(12, 768, 12), 139_244_121, '140M', PAPER),
  'deberta-large': Entry(deberta(24, 1024, 16), 406_264_921, '405M', PAPER),
  'deberta-xlarge': Entry(deberta(48, 1024, 16), 758_905_945, '750M', PAPER),
}
