"""Checkpoints of Nomic BERT with its heads."""

from tfm.zoo import nomic_bert
from tfm.zoo.weights import bert
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Fused, renamed

_LAYER = 'nomic_bert.encoder.layers.*'
NAMES: Names = {
  **{k: v for k, v in renamed(bert.NAMES, 'bert.', 'nomic_bert.').items() if '*/' not in k},
  'embed/norm': 'nomic_bert.emb_ln',
  ('*/mixer/q', '*/mixer/k', '*/mixer/v'): Fused(f'{_LAYER}.attn.Wqkv'),
  '*/mixer/o': f'{_LAYER}.attn.out_proj',
  '*/mixer_norm': f'{_LAYER}.norm1',
  '*/ffn/gate': f'{_LAYER}.mlp.fc12',
  '*/ffn/up': f'{_LAYER}.mlp.fc11',
  '*/ffn/down': f'{_LAYER}.mlp.fc2',
  '*/ffn_norm': f'{_LAYER}.norm2',
  'head/norm': 'cls.predictions.transform.layer_norm',
}
TOPS = {
  name: bert.CLASSES[name] for name in ('ForSequenceClassification', 'ForTokenClassification')
}
FAMILY = Family(
  'NomicBert', nomic_bert.read, nomic_bert.write, NAMES, 'nomic_bert.', 'ForMaskedLM', TOPS,
  ('cls.predictions.decoder.weight',), bert.IGNORED,
)  # fmt: skip
