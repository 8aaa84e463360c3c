"""Checkpoints of CLIP: both towers, or a single tower."""

from tfm.model.spec import Model
from tfm.parts.head.classify import Classify
from tfm.zoo import clip
from tfm.zoo.fields import Fields
from tfm.zoo.weights.family import Family, Names, Top, nested
from tfm.zoo.weights.rules import Taps, Whole

LAYER = {
  **{f'*/mixer/{n}': f'encoder.layers.*.self_attn.{n}_proj' for n in 'qkv'},
  '*/mixer/o': 'encoder.layers.*.self_attn.out_proj',
  '*/mixer_norm': 'encoder.layers.*.layer_norm1',
  '*/ffn/up': 'encoder.layers.*.mlp.fc1',
  '*/ffn/down': 'encoder.layers.*.mlp.fc2',
  '*/ffn_norm': 'encoder.layers.*.layer_norm2',
}
TEXT: Names = {
  'embed': 'text_model.embeddings.token_embedding',
  'absolute': 'text_model.embeddings.position_embedding',
  **nested(LAYER, '', 'text_model.'),
  'norm': 'text_model.final_layer_norm',
}
IMAGE: Names = {
  'embed/patches': Taps('vision_model.embeddings.patch_embedding'),
  'embed/positions': Whole('vision_model.embeddings.position_embedding.weight'),
  **nested(LAYER, '', 'vision_model.'),
}
_TEXT: Names = {**TEXT, 'text_head/out': 'text_projection'}
_IMAGE: Names = {
  **IMAGE,
  'embed/class': Whole('vision_model.embeddings.class_embedding'),
  'embed/norm': 'vision_model.pre_layrnorm',
  'image_head/norm': 'vision_model.post_layernorm',
  'image_head/out': 'visual_projection',
  'classifier/norm': 'vision_model.post_layernorm',
}
IGNORED = (r'embeddings\.position_ids$',)


def in_tower(names: Names, tower: str) -> Names:
  """Return names of a single model for the same modules in a tower."""
  return {f'{tower}/{path}': name for path, name in names.items() if isinstance(path, str)}


def _pooled_text(c: Fields, spec: Model) -> Model:
  return spec.with_heads(text=None, classify=Classify(0, clip.pick_of(c)))


def _pooled_image(c: Fields, spec: Model) -> Model:
  return spec.with_heads(image=None, classify=Classify(0, norm=spec.heads['image'].norm))  # type: ignore[attr-defined]


FAMILY = Family(
  'CLIP', clip.read, clip.write,
  {**_TEXT, **in_tower(_IMAGE, 'vision'), 'similarity_head/scale': Whole('logit_scale')},
  prefix='', head='Model', tied=(), ignored=IGNORED,
)  # fmt: skip
TEXT_MODEL = Family(
  'CLIPText', clip.read_text, clip.write_text, _TEXT, 'text_model.', 'ModelWithProjection',
  {'Model': Top(_pooled_text)}, (), IGNORED,
)  # fmt: skip
IMAGE_MODEL = Family(
  'CLIPVision', clip.read_image, clip.write_image, _IMAGE, 'vision_model.', 'ModelWithProjection',
  {'Model': Top(_pooled_image)}, (), IGNORED,
)  # fmt: skip
