"""Checkpoints of ModernBERT decoders: ModernBERT's names, with separate q, k and v."""

from typing import Any

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import modernbert_decoder
from tfm.zoo.fields import Fields
from tfm.zoo.weights import modernbert
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.tops import n_labels, with_classifier

_LAYER = 'model.layers.*'
_FUSED = ('*/mixer/q', '*/mixer/k', '*/mixer/v')
NAMES: Names = {
  **{path: name for path, name in modernbert.NAMES.items() if path != _FUSED},
  '*/mixer/q': f'{_LAYER}.attn.q_proj',
  '*/mixer/k': f'{_LAYER}.attn.k_proj',
  '*/mixer/v': f'{_LAYER}.attn.v_proj',
  'head/transform': 'lm_head.dense',
  'head/norm': 'lm_head.norm',
}


def _last_token(c: Fields, m: Model) -> Model:
  top: Any = m.lm and m.lm.transform
  dropout, bias = c.get('classifier_dropout', 0.0), top.bias
  head = Classify(
    n_labels(c), 'last', top.act, bias=bias, dropout=dropout, hidden_bias=bias, norm=top.norm
  )
  return with_classifier(m, head)


FAMILY = Family(
  'ModernBertDecoder', modernbert_decoder.read, modernbert_decoder.write, NAMES,
  tops={'ForSequenceClassification': Top(_last_token)}, tied=('decoder.weight',),
)  # fmt: skip
