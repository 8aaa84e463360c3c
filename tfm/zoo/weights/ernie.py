"""Checkpoints of ERNIE: BERT's names and a table of task types."""

from tfm.zoo import ernie
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole, renamed

NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'ernie.'),
  'embed/tasks': Whole('ernie.embeddings.task_type_embeddings.weight'),
}
FAMILY = Family(
  'Ernie', ernie.read, ernie.write, NAMES, 'ernie.', 'ForMaskedLM', bert.TOPS,
  ('cls.predictions.decoder.weight',),
  bert.IGNORED,
)  # fmt: skip
