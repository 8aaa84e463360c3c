"""Checkpoints of FNet with all of BERT's heads."""

from tfm.zoo import fnet
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed

NAMES: Names = {
  **renamed(bert.NAMES, 'bert.', 'fnet.'),
  'embed/project': 'fnet.embeddings.projection',
  '*/mixer_norm': 'fnet.encoder.layer.*.fourier.output.LayerNorm',
}
FAMILY = Family(
  'FNet', fnet.read, fnet.write, NAMES, 'fnet.', 'ForMaskedLM', bert.TOPS,
  ('cls.predictions.decoder.weight',),
  bert.IGNORED,
)  # fmt: skip
