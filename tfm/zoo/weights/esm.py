"""Checkpoints of ESM-1b and ESM-2 with their heads, except the contact head."""

from tfm.zoo import esm
from tfm.zoo.weights import bert, roberta
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import renamed

NAMES: Names = {
  **renamed(roberta.NAMES, 'roberta.', 'esm.'),
  'embed/norm': 'esm.embeddings.layer_norm',
  '*/mixer_norm': 'esm.encoder.layer.*.attention.LayerNorm',
  '*/ffn_norm': 'esm.encoder.layer.*.LayerNorm',
  'norm': 'esm.encoder.emb_layer_norm_after',
}
TOPS = {
  'ForSequenceClassification': roberta.SEQUENCE,
  **{name: bert.CLASSES[name] for name in ('ForTokenClassification', 'Model')},
}
FAMILY = Family(
  'Esm', esm.read, esm.write, NAMES, 'esm.', 'ForMaskedLM', TOPS, ('lm_head.decoder.weight',),
  (*roberta.IGNORED, r'contact_head\.', r'rotary_embeddings\.inv_freq$',
   r'position_embeddings\.weight$'),
)  # fmt: skip
