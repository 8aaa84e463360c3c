"""Toy configs of image models in transformers, with their heads."""

from tests.hub.published import Case, D, F, L, N

_VIT = {
  'hidden_size': D, 'num_hidden_layers': L, 'num_attention_heads': N, 'intermediate_size': F,
  'image_size': 24, 'patch_size': 8, 'num_labels': 5,
}  # fmt: skip
_ODD = {**_VIT, 'qkv_bias': False, 'num_channels': 1, 'patch_size': [8, 4]}
_DINO = {n: x for n, x in _VIT.items() if n != 'intermediate_size'} | {'mlp_ratio': 2}

CASES = {
  'vit': Case('ViTConfig', 'ViTForImageClassification', _VIT, merged=True),
  'vit-body': Case('ViTConfig', 'ViTModel', _ODD, merged=True, whole=True),
  'vit-resized': Case('ViTConfig', 'ViTForImageClassification', _VIT, merged=True, image=(32, 16)),
  'deit': Case('DeiTConfig', 'DeiTForImageClassificationWithTeacher', _VIT, merged=True),
  'deit-plain': Case('DeiTConfig', 'DeiTForImageClassification', _VIT, merged=True),
  'deit-body': Case('DeiTConfig', 'DeiTModel', _VIT, merged=True, image=(32, 16)),
  'dinov2': Case(
    'Dinov2Config', 'Dinov2ForImageClassification', _DINO, merged=True, image=(16, 40),
  ),
  'dinov2-body': Case('Dinov2Config', 'Dinov2Model', {
    **_DINO, 'use_swiglu_ffn': True,
  }, merged=True, whole=True),
  'dinov2-registers': Case(
    'Dinov2WithRegistersConfig', 'Dinov2WithRegistersForImageClassification',
    {**_DINO, 'num_register_tokens': 3}, image=(16, 40), merged=True,
  ),
  'dinov2-registers-body': Case('Dinov2WithRegistersConfig', 'Dinov2WithRegistersModel', _DINO),
}  # fmt: skip
