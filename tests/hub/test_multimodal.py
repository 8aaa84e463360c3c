"""The language model of a vision-language folder matches the full model without images."""

import json

import numpy as np
import pytest
import safetensors.numpy

from tests.hub import decoders_mixtures
from tests.hub.published import SIZES, D, K, V
import tfm
from tfm.core import errors
from tfm.hub.multimodal import MULTIMODAL, text_config
from tfm.hub.tensors import SAFE

_TEXT = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0, 'head_dim': 8}
_VISION = {
  'hidden_size': 16, 'intermediate_size': 24, 'num_hidden_layers': 1, 'num_attention_heads': 2,
  'image_size': 28, 'patch_size': 14,
}  # fmt: skip
_YARN = {
  'rope_type': 'yarn', 'rope_theta': 1e4, 'factor': 4.0, 'original_max_position_embeddings': 4,
  'beta_fast': 32.0, 'beta_slow': 1.0, 'mscale': 1.0, 'mscale_all_dim': 1.0,
}  # fmt: skip
_GEMMA = {**_TEXT, 'model_type': 'gemma3_text', 'num_hidden_layers': 7, 'sliding_window': 4}
_MISTRAL = {**_TEXT, 'model_type': 'mistral', 'sliding_window': None}
_MINISTRAL = {
  **_TEXT, 'model_type': 'ministral3', 'rope_parameters': {**_YARN, 'llama_4_scaling_beta': 0.5},
}  # fmt: skip
_LLAMA4 = {**decoders_mixtures.CASES['llama4'].fields, 'model_type': 'llama4_text'}
_QWEN = {**decoders_mixtures.CASES['qwen3.5'].fields, 'model_type': 'qwen3_5_text'}
_QWEN_MOE = {**decoders_mixtures.CASES['qwen3.5-moe'].fields, 'model_type': 'qwen3_5_moe_text'}
#: Fields of the vision model and of the outer config that differ from Llava.
_OTHER_VISION = {
  'llama4': {
    'image_size': 28, 'patch_size': 14, 'vision_output_dim': 16, 'projector_input_dim': 16,
    'projector_output_dim': 16, 'intermediate_size': 64,
  },
  'qwen3_5': {'depth': 1, 'num_heads': 2, 'out_hidden_size': D},
  'qwen3_5_moe': {'depth': 1, 'num_heads': 2, 'out_hidden_size': D},
}  # fmt: skip
CASES = {
  'llama4': ('llama4', {'text_config': _LLAMA4}),
  'qwen3.5': ('qwen3_5', {'text_config': _QWEN}),
  'qwen3.5-moe': ('qwen3_5_moe', {'text_config': _QWEN_MOE, 'tie_word_embeddings': True}),
  'gemma3': ('gemma3', {'text_config': _GEMMA, 'mm_tokens_per_image': 1}),
  'llava': ('llava', {'text_config': {**_TEXT, 'model_type': 'llama'}}),
  'llava-tied': ('llava', {'text_config': {**_MISTRAL, 'tie_word_embeddings': True}}),
  'llava-next': ('llava_next', {'text_config': _MISTRAL}),
  'mistral3': ('mistral3', {'text_config': _MISTRAL, 'tie_word_embeddings': False}),
  'mistral3-tied-outside': (
    'mistral3',
    {'text_config': {**_MISTRAL, 'tie_word_embeddings': False}},
  ),
  'mistral3-ministral3': ('mistral3', {'text_config': _MINISTRAL, 'tie_word_embeddings': False}),
}


def _made(case, folder):
  """Write the folder of a case with random weights, and return the model of transformers."""
  import torch
  import transformers

  from tests.oracles import copying

  kind, fields = CASES[case]
  of_images = {'gemma3': 'siglip_vision_model', 'mistral3': 'pixtral'}.get(
    kind, 'clip_vision_model'
  )
  vision = {**_VISION, 'model_type': of_images, 'head_dim': 8}
  if kind in _OTHER_VISION:
    vision = {**{n: v for n, v in _VISION.items() if n != 'image_size'}, **_OTHER_VISION[kind]}
  torch.manual_seed(0)
  stem = MULTIMODAL[kind].architecture.removesuffix('ForConditionalGeneration')
  config = getattr(transformers, f'{stem}Config')(
    vision_config=vision, **_image_token(kind), **fields
  )
  theirs = getattr(transformers, MULTIMODAL[kind].architecture)(config)
  copying.randomized(theirs, 0.1)
  theirs.save_pretrained(folder)
  return theirs.eval()


def _image_token(kind):
  return {'image_token_id' if kind.startswith('qwen') else 'image_token_index': V - 1}


def _their_logits(theirs, ids):
  import torch

  with torch.no_grad():
    return theirs(input_ids=torch.tensor(ids, dtype=torch.long)).logits.numpy()


@pytest.mark.oracle
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('older', [False, True])
def test_language_model_logits_match_the_full_model(case, older, tmp_path, capsys):
  theirs = _made(case, tmp_path / 'theirs')
  tensors = safetensors.numpy.load_file(tmp_path / 'theirs' / SAFE)
  if older:
    tensors = {_older(name): value for name, value in tensors.items()}
  else:
    tensors = {_newer(name): value for name, value in tensors.items()}
  safetensors.numpy.save_file(tensors, tmp_path / 'theirs' / SAFE)
  ids = np.random.default_rng(0).integers(1, V - 1, (2, 12))
  ours = tfm.load(tmp_path / 'theirs')
  assert capsys.readouterr().err.count('image tensors') == 1
  logits = tfm.apply(ours.spec, ours.params, input_ids=ids)['logits']
  expected = _their_logits(theirs, ids)
  np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


def _older(name):
  """Return the tensor name in folders of 2025."""
  for new, old in {
    'model.language_model.': 'language_model.model.',
    'lm_head.': 'language_model.lm_head.',
  }.items():
    if name.startswith(new):
      return old + name.removeprefix(new)
  return (
    name.removeprefix('model.')
    if name.startswith(('model.vis', 'model.multi', 'model.image'))
    else name
  )


def _newer(name):
  """Return the parameter name in transformers 5."""
  if name.startswith('language_model.lm_head.'):
    return name.removeprefix('language_model.')
  if name.startswith('language_model.'):
    return 'model.' + name.replace('language_model.model.', 'language_model.')
  return f'model.{name}' if name.startswith(('vis', 'multi_modal', 'image_newline')) else name


def test_sparse_text_config_has_published_defaults():
  inner = {
    'hidden_size': 2560,
    'intermediate_size': 10_240,
    'num_hidden_layers': 34,
    'sliding_window': 1024,
  }
  scaling = {'factor': 8.0, 'rope_type': 'linear'}
  values = {
    'architectures': ['Gemma3ForConditionalGeneration'], 'model_type': 'gemma3',
    'boi_token_index': 255_999, 'eoi_token_index': 256_000, 'eos_token_id': [1, 106],
    'image_token_index': 262_144, 'initializer_range': 0.02, 'mm_tokens_per_image': 256,
    'torch_dtype': 'bfloat16', 'transformers_version': '4.50.0.dev0',
    'text_config': {**inner, 'model_type': 'gemma3_text', 'rope_scaling': scaling},
    'vision_config': {'hidden_size': 1152, 'model_type': 'siglip_vision_model'},
  }  # fmt: skip
  found = tfm.zoo.weights.published(text_config(values))
  assert found.architecture == 'Gemma3ForCausalLM'
  assert found.spec == tfm.zoo.get('gemma3-4b')


def test_llava_has_the_sizes_of_llama_2():
  inner = {
    'max_position_embeddings': 4096,
    'model_type': 'llama',
    'rms_norm_eps': 1e-05,
    'vocab_size': 32_064,
  }
  values = {
    'architectures': ['LlavaForConditionalGeneration'], 'model_type': 'llava', 'ignore_index': -100,
    'image_token_index': 32_000, 'pad_token_id': 32_001, 'projector_hidden_act': 'gelu',
    'text_config': inner, 'vision_config': {'hidden_size': 1024}, 'vision_feature_layer': -2,
    'vision_feature_select_strategy': 'default',
  }  # fmt: skip
  found = tfm.zoo.weights.published(text_config(values)).spec
  assert found.vocab == 32_064
  assert found.segments == tfm.zoo.get('llama2-7b').segments


def test_unknown_outer_field_raises_an_error():
  values = {'model_type': 'mistral3', 'text_config': {**_MISTRAL}, 'surprise': 3}
  with pytest.raises(errors.UserError, match='surprise=3'):
    tfm.zoo.weights.published(text_config(values))


def test_class_without_text_raises_an_error():
  values = {
    'model_type': 'gemma3',
    'architectures': ['Gemma3ForSequenceClassification'],
    'text_config': _GEMMA,
  }
  with pytest.raises(errors.UserError, match='unknown class'):
    text_config(values)


def test_other_configs_are_unchanged(tmp_path):
  values = {'model_type': 'llama', 'hidden_size': D}
  assert text_config(json.loads(json.dumps(values))) == values
