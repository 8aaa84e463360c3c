"""Checkpoints of ViT."""

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import vit
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Row, Taps
from tfm.zoo.weights.tops import with_classifier

#: The input layer and the attention of many vision models.
STEM: Names = {
  'embed/patches': Taps('vit.embeddings.patch_embeddings.projection'),
  'embed/class': Row('vit.embeddings.cls_token', ones=2),
  'embed/positions': Row('vit.embeddings.position_embeddings'),
  '*/mixer/q': 'vit.encoder.layer.*.attention.attention.query',
  '*/mixer/k': 'vit.encoder.layer.*.attention.attention.key',
  '*/mixer/v': 'vit.encoder.layer.*.attention.attention.value',
  '*/mixer/o': 'vit.encoder.layer.*.attention.output.dense',
  'norm': 'vit.layernorm',
}
NAMES: Names = {
  **STEM,
  '*/mixer_norm': 'vit.encoder.layer.*.layernorm_before',
  '*/ffn_norm': 'vit.encoder.layer.*.layernorm_after',
  '*/ffn/up': 'vit.encoder.layer.*.intermediate.dense',
  '*/ffn/down': 'vit.encoder.layer.*.output.dense',
  'classifier/hidden': 'vit.pooler.dense',
  'classifier/out': 'classifier',
}


def pooled(c: Fields, spec: Model) -> Model:
  """Return `spec` with the pooler of the body as its only head."""
  c.only(pooler_output_size=spec.d_model)
  return with_classifier(spec, Classify(0, hidden=c.act('pooler_act', 'tanh')))


FAMILY = Family(
  'ViT', vit.read, vit.write, NAMES, 'vit.', 'ForImageClassification', {'Model': Top(pooled)}, (),
  (r'pooler\.dense\.',),
)  # fmt: skip
