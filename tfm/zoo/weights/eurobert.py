"""Checkpoints of EuroBERT: Llama's names, with classifiers of sequences and of tokens."""

from typing import Literal

from tfm.model.spec import Model
from tfm.parts.act.gelu import Gelu
from tfm.parts.head.classify import Classify
from tfm.zoo import eurobert
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.llama import NAMES as LLAMA
from tfm.zoo.weights.rules import Whole
from tfm.zoo.weights.tops import n_labels, with_classifier

NAMES: Names = {
  **LLAMA, 'head/bias': Whole('lm_head.bias'), 'classifier/hidden': 'dense',
  'classifier/out': 'classifier',
}  # fmt: skip
_POOLING: dict[str, tuple[Literal['first', 'mean'], bool]] = {
  'bos': ('first', False), 'mean': ('mean', False), 'late': ('mean', True),
}  # fmt: skip


def _sequence(c: Fields, m: Model) -> Model:
  pick, late = c.choice('classifier_pooling', _POOLING, 'late')
  return with_classifier(m, Classify(n_labels(c), pick, Gelu(), late=late))


TOPS = {
  'ForSequenceClassification': Top(_sequence),
  'ForTokenClassification': Top(lambda c, m: with_classifier(m, Classify(n_labels(c), 'each'))),
}
FAMILY = Family(
  'EuroBert', eurobert.read, eurobert.write, NAMES, head='ForMaskedLM', tops=TOPS,
  ignored=(r'rotary_emb\.inv_freq$',),
)  # fmt: skip
