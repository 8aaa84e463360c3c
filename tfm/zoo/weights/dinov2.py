"""Checkpoints of DINOv2, with or without registers."""

from collections.abc import Callable
import functools

from tfm.model.spec import Model
from tfm.parts.ffn.glu import Glu
from tfm.zoo import dinov2
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.weights import vit
from tfm.zoo.weights.family import Family, Names, Top
from tfm.zoo.weights.rules import Fused, Row, Whole, renamed
from tfm.zoo.weights.tops import with_classifier

_NAMES: Names = {
  **vit.STEM,
  'embed/mask': Row('vit.embeddings.mask_token'),
  'embed/registers': Row('vit.embeddings.register_tokens'),
  '*/mixer_norm': 'vit.encoder.layer.*.norm1',
  '*/ffn_norm': 'vit.encoder.layer.*.norm2',
  '*/mixer_gain/scale': Whole('vit.encoder.layer.*.layer_scale1.lambda1'),
  '*/ffn_gain/scale': Whole('vit.encoder.layer.*.layer_scale2.lambda1'),
  'classifier/out': 'classifier',
}
_PLAIN: Names = {
  '*/ffn/up': 'vit.encoder.layer.*.mlp.fc1',
  '*/ffn/down': 'vit.encoder.layer.*.mlp.fc2',
}
_GATED: Names = {
  ('*/ffn/gate', '*/ffn/up'): Fused('vit.encoder.layer.*.mlp.weights_in'),
  '*/ffn/down': 'vit.encoder.layer.*.mlp.weights_out',
}


def _family(stem: str, prefix: str, read: Callable[..., Model]) -> Family:
  def names(spec: FamilyModel) -> Names:
    gated = isinstance(spec.segments[0].pattern[0].ffn, Glu)
    return renamed({**_NAMES, **(_GATED if gated else _PLAIN)}, 'vit.', prefix)

  body = Top(lambda c, spec: with_classifier(spec, dinov2.POOLER))
  return Family(
    stem, read, dinov2.write, names, prefix, 'ForImageClassification', {'Model': body}, ()
  )


FAMILY = _family('Dinov2', 'dinov2.', dinov2.read)
REGISTERS = _family(
  'Dinov2WithRegisters', 'dinov2_with_registers.', functools.partial(dinov2.read, registers=4)
)
