"""Published configs of image models match the models of the zoo."""

import pytest

from tfm import zoo
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.zoo import weights

_LABELS = {'id2label': {str(i): f'LABEL_{i}' for i in range(1000)}}
_VIT = {
  'attention_probs_dropout_prob': 0.0, 'encoder_stride': 16, 'hidden_act': 'gelu',
  'hidden_dropout_prob': 0.0, 'hidden_size': 768, 'image_size': 224, 'initializer_range': 0.02,
  'intermediate_size': 3072, 'layer_norm_eps': 1e-12, 'num_attention_heads': 12, 'num_channels': 3,
  'num_hidden_layers': 12, 'patch_size': 16, 'qkv_bias': True,
  'transformers_version': '4.13.0.dev0', **_LABELS,
}  # fmt: skip
_DINO = {
  'apply_layernorm': True, 'architectures': ['Dinov2Model'], 'attention_probs_dropout_prob': 0.0,
  'drop_path_rate': 0.0, 'hidden_act': 'gelu', 'hidden_dropout_prob': 0.0, 'hidden_size': 768,
  'image_size': 518, 'initializer_range': 0.02, 'layer_norm_eps': 1e-06, 'layerscale_value': 1.0,
  'mlp_ratio': 4, 'model_type': 'dinov2', 'num_attention_heads': 12, 'num_channels': 3,
  'num_hidden_layers': 12, 'out_features': ['stage12'], 'out_indices': [12], 'patch_size': 14,
  'qkv_bias': True, 'reshape_hidden_states': True,
  'stage_names': ['stem', *(f'stage{i}' for i in range(1, 13))], 'torch_dtype': 'float32',
  'transformers_version': '4.32.0.dev0', 'use_swiglu_ffn': False,
}  # fmt: skip
CONFIGS = {
  'vit-base-16': {**_VIT, 'architectures': ['ViTForImageClassification'], 'model_type': 'vit'},
  'vit-huge-14': {
    **_VIT, 'hidden_size': 1280, 'intermediate_size': 5120, 'model_type': 'vit',
    'num_attention_heads': 16, 'num_hidden_layers': 32, 'patch_size': 14,
  },
  'deit-base': {**_VIT, 'architectures': [
    'DeiTForImageClassificationWithTeacher',
  ], 'model_type': 'deit'},
  'dinov2-base': _DINO,
  'dinov2-giant': {
    **_DINO, 'hidden_size': 1536, 'num_attention_heads': 24, 'num_hidden_layers': 40,
    'use_swiglu_ffn': True,
  },
  'dinov2-base-registers': {
    **_DINO, 'architectures': ['Dinov2WithRegistersModel'], 'interpolate_antialias': True,
    'interpolate_offset': 0.0, 'model_type': 'dinov2_with_registers', 'num_register_tokens': 4,
  },
}  # fmt: skip


@pytest.mark.parametrize('name', CONFIGS)
def test_published_config_matches_the_zoo(name):
  read = weights.published(CONFIGS[name]).spec
  assert flattened(normalised(read)) == flattened(normalised(zoo.get(name)))
