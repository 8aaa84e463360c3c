"""Checkpoints of SigLIP: both towers, or a single tower."""

from tfm.zoo import siglip
from tfm.zoo.weights.clip import IGNORED, IMAGE, TEXT, in_tower
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import InProj, Row

_HEAD = 'vision_model.head'
_TEXT: Names = {**TEXT, 'text_head/out': 'text_model.head'}
_IMAGE: Names = {
  **IMAGE,
  'norm': 'vision_model.post_layernorm',
  'image_head/query': Row(f'{_HEAD}.probe', ones=2),
  'image_head/attention/o': f'{_HEAD}.attention.out_proj',
  'image_head/norm': f'{_HEAD}.layernorm',
  'image_head/ffn/up': f'{_HEAD}.mlp.fc1',
  'image_head/ffn/down': f'{_HEAD}.mlp.fc2',
}


def _qkv(tower: str) -> Names:
  return {
    tuple(f'{tower}image_head/attention/{n}' for n in 'qkv'): InProj(f'{_HEAD}.attention.in_proj')
  }


_BOTH: Names = {
  **_TEXT,
  **in_tower(_IMAGE, 'vision'),
  **_qkv('vision/'),
  'similarity_head/scale': Row('logit_scale'),
  'similarity_head/bias': Row('logit_bias'),
}
FAMILY = Family(
  'Siglip', siglip.read, siglip.write, _BOTH, prefix='', head='Model', tied=(), ignored=IGNORED,
)  # fmt: skip
TEXT_MODEL = Family(
  'SiglipText', siglip.read_text, siglip.write_text, _TEXT, 'text_model.', 'Model', tied=(),
  ignored=IGNORED,
)  # fmt: skip
IMAGE_MODEL = Family(
  'SiglipVision', siglip.read_image, siglip.write_image, {**_IMAGE, **_qkv('')}, 'vision_model.',
  'Model', tied=(),
  ignored=IGNORED,
)  # fmt: skip
