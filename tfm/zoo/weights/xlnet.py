"""Checkpoints of XLNet: projections with three axes."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import xlnet
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Shape, Slot, Whole
from tfm.zoo.weights.tops import n_labels, with_classifier


@dataclasses.dataclass(frozen=True)
class ModelFirst(Whole):
  """A projection from heads, stored as `[D, N, H]`."""

  def shape(self, slots: Sequence[Slot]) -> Shape:
    N, H, D = slots[0].shape
    return D, N, H

  def cut(self, tensor: np.ndarray, slots: Sequence[Slot]) -> list[np.ndarray]:
    return [np.moveaxis(tensor, 0, -1)]

  def join(self, arrays: Sequence[np.ndarray], slots: Sequence[Slot]) -> np.ndarray:
    return np.moveaxis(arrays[0], -1, 0)


@dataclasses.dataclass(frozen=True)
class OfAll(Whole):
  """A vector, stored as `[1, 1, D]`."""

  def shape(self, slots: Sequence[Slot]) -> Shape:
    return 1, 1, *slots[0].shape


_LOOK, _FEED = 'transformer.layer.*.rel_attn', 'transformer.layer.*.ff'
NAMES: Names = {
  'embed': 'transformer.word_embedding',
  'embed/query': OfAll('transformer.mask_emb'),
  **{f'*/mixer/{n}': Whole(f'{_LOOK}.{n}') for n in 'qkv'},
  '*/mixer/o': ModelFirst(f'{_LOOK}.o'),
  '*/mixer/relative/u': Whole(f'{_LOOK}.r_w_bias'),
  '*/mixer/relative/v': Whole(f'{_LOOK}.r_r_bias'),
  '*/mixer/relative/t': Whole(f'{_LOOK}.r_s_bias'),
  '*/mixer/relative/distance': Whole(f'{_LOOK}.r'),
  '*/mixer/relative/types': Whole(f'{_LOOK}.seg_embed'),
  '*/mixer_norm': f'{_LOOK}.layer_norm',
  '*/ffn/up': f'{_FEED}.layer_1',
  '*/ffn/down': f'{_FEED}.layer_2',
  '*/ffn_norm': f'{_FEED}.layer_norm',
  'head/head': 'lm_loss',
  'head/bias': Whole('lm_loss.bias'),
  'classifier/hidden': 'sequence_summary.summary',
  'classifier/out': 'classifier',
}


def _sequence(c: Fields, m: Model) -> Model:
  c.only(summary_type='last', summary_use_proj=True)
  act, dropout = c.act('summary_activation', 'tanh'), c.get('summary_last_dropout', 0.1)
  return with_classifier(m, Classify(n_labels(c), 'last', act, dropout=dropout))


TOPS = {
  'ForSequenceClassification': Top(_sequence, {'classifier/out': 'logits_proj'}),
  'ForTokenClassification': Top(lambda c, m: with_classifier(m, Classify(n_labels(c), 'each'))),
  'ForQuestionAnsweringSimple': Top(
    lambda c, m: with_classifier(m, Classify(2, 'each')), {'classifier/out': 'qa_outputs'}
  ),
}
FAMILY = Family(
  'XLNet', xlnet.read, xlnet.write, NAMES, 'transformer.', 'LMHeadModel', TOPS, ('lm_loss.weight',)
)
