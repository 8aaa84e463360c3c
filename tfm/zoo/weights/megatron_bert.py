"""Checkpoints of Megatron-BERT: BERT's names, except norms."""

from tfm.zoo import bert as zoo_bert
from tfm.zoo import megatron_bert
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names

NAMES: Names = {
  **bert.NAMES,
  '*/mixer_norm': 'bert.encoder.layer.*.attention.ln',
  '*/ffn_norm': 'bert.encoder.layer.*.ln',
  'norm': 'bert.encoder.ln',
}
FAMILY = Family(
  'MegatronBert', megatron_bert.read, zoo_bert.write, NAMES, 'bert.', 'ForMaskedLM', bert.TOPS,
  ('cls.predictions.decoder.weight',), bert.IGNORED,
)  # fmt: skip
