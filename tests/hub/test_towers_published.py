"""CLIP and SigLIP match transformers, and export returns their files bit for bit."""

import json

import jax
import numpy as np
import pytest

from tests.hub import published, towers
from tests.oracles import copying
from tfm import hub, zoo
from tfm.cli import main
from tfm.core import errors
from tfm.hub.spec_equivalence import normalised
from tfm.hub.tensors import open_tensors
from tfm.model.transformer import apply
from tfm.zoo import weights

pytestmark = pytest.mark.oracle


@pytest.fixture(scope='module', params=towers.CASES)
def both(request, tmp_path_factory):
  return towers.build(towers.CASES[request.param], tmp_path_factory.mktemp('published') / 'theirs')


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  return towers.build(towers.CASES['clip'], tmp_path_factory.mktemp('clip') / 'theirs')


def test_outputs_and_gradients_match(both, request):
  theirs, their_grads = towers.their_outputs(both)
  ours, grads = towers.our_outputs(both)
  named = lambda found: sorted(n for n in towers.NAMES if n in found)
  assert named(ours) == named(theirs)
  outputs = 0.0
  for name, value in theirs.items():
    np.testing.assert_allclose(
      ours[name], value, atol=1e-4 * np.abs(value).max(), rtol=0, err_msg=name
    )
    outputs = max(outputs, float(np.abs(ours[name] - value).max() / max(1.0, np.abs(value).max())))
  gradients = copying.assert_same_gradients(grads, published.as_ours(both, their_grads))
  case = request.node.callspec.params['both']
  published.reached(
    case, model_type=published.type_of(both.case), outputs=outputs, gradients=gradients
  )


def test_export_returns_the_same_file(both, tmp_path):
  import torch
  import transformers

  name = hub.export_hf(
    both.ours.spec, both.ours.params, tmp_path / 'back', architecture=both.case.model
  )
  assert name == both.case.model
  old, new = open_tensors(both.folder), open_tensors(tmp_path / 'back')
  assert sorted(new) == sorted(old)
  for tensor in old:
    assert new[tensor].shape == old[tensor].shape, tensor
    np.testing.assert_array_equal(new[tensor], old[tensor], err_msg=tensor)
  again, info = getattr(transformers, name).from_pretrained(
    tmp_path / 'back', attn_implementation='eager', output_loading_info=True
  )
  assert not any(info[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), (
    info
  )
  with torch.no_grad():
    first, second = (model.eval()(**towers.their_inputs(both)) for model in (both.theirs, again))
  for one, other in zip(first.to_tuple()[:2], second.to_tuple()[:2], strict=True):
    if isinstance(one, torch.Tensor):
      np.testing.assert_allclose(
        other.numpy(), one.numpy(), atol=1e-6 * float(one.abs().max()), rtol=0
      )


def test_class_is_found_without_its_name(clip, tmp_path):
  assert hub.export_hf(clip.ours.spec, clip.ours.params, tmp_path / 'back') == 'CLIPModel'


def test_one_tower_runs_alone(clip):
  spec, params, given = clip.ours.spec, clip.ours.params, clip.inputs
  run = jax.jit(lambda p, given, tower: apply(spec, p, tower=tower, **given), static_argnums=2)
  whole = run(params, given, None)
  image = run(params, {'pixel_values': given['pixel_values']}, 'vision')
  text = run(params, {'input_ids': given['input_ids']}, '')
  assert sorted(image) == ['aux', 'image_embeds', 'vision_last_hidden_state']
  assert sorted(text) == ['aux', 'last_hidden_state', 'text_embeds']
  for name, value in {**image, **text}.items():
    np.testing.assert_allclose(value, whole[name], atol=1e-6, err_msg=name)


def test_position_ids_in_old_files_are_ignored(clip, tmp_path):
  from safetensors.numpy import load_file, save_file

  folder = tmp_path / 'old'
  folder.mkdir()
  (folder / 'config.json').write_text((clip.folder / 'config.json').read_text())
  arrays = load_file(clip.folder / 'model.safetensors')
  ids = {
    f'{tower}.embeddings.position_ids': np.arange(5)[None]
    for tower in ('text_model', 'vision_model')
  }
  save_file({**arrays, **ids}, folder / 'model.safetensors')
  jax.tree.map(np.testing.assert_array_equal, hub.load(folder).params, clip.ours.params)


def test_old_names_of_a_single_tower_load(tmp_path):
  """Version 4 of transformers wrote the prefix of the tower in files of one tower."""
  from safetensors.numpy import load_file, save_file

  found = towers.build(towers.CASES['clip-text-body'], tmp_path / 'theirs')
  arrays = load_file(found.folder / 'model.safetensors')
  save_file(
    {f'text_model.{name}': a for name, a in arrays.items()}, found.folder / 'model.safetensors'
  )
  jax.tree.map(np.testing.assert_array_equal, hub.load(found.folder).params, found.ours.params)


_TEXT = {
  'hidden_size': 768,
  'intermediate_size': 3072,
  'num_attention_heads': 12,
  'eos_token_id': 2,
}
_IMAGE = {
  'hidden_size': 1024, 'intermediate_size': 4096, 'num_attention_heads': 16,
  'num_hidden_layers': 24, 'patch_size': 14,
}  # fmt: skip
#: Fields that version 4 of transformers added to the config of each tower.
_FILLER = {
  'dropout': 0.0,
  'tie_word_embeddings': True,
  'add_cross_attention': False,
  'bad_words_ids': None,
}
CONFIGS = {
  'clip-vit-base-patch32': {
    'model_type': 'clip', 'architectures': ['CLIPModel'], 'projection_dim': 512,
    'text_config_dict': None,
    'text_config': {**_FILLER, 'eos_token_id': 2, 'model_type': 'clip_text_model'},
    'vision_config': _FILLER,
  },
  'clip-vit-large-patch14': {
    'model_type': 'clip', 'architectures': ['CLIPModel'], 'projection_dim': 768,
    'text_config_dict': {**_TEXT, 'projection_dim': 768},
    'vision_config_dict': {**_IMAGE, 'projection_dim': 768},
    'text_config': {'hidden_size': 1}, 'vision_config': {'hidden_size': 1},
  },
  'siglip-base-patch16-224': {
    'model_type': 'siglip', 'architectures': ['SiglipModel'], 'initializer_factor': 1.0,
    'text_config': {'model_type': 'siglip_text_model'},
    'vision_config': {'model_type': 'siglip_vision_model'},
  },
}  # fmt: skip


@pytest.mark.parametrize('name', CONFIGS)
def test_published_configs_match_the_zoo(name):
  assert normalised(weights.published(CONFIGS[name]).spec) == normalised(zoo.get(name))


def test_unknown_tower_fields_raise_errors():
  config = {**CONFIGS['siglip-base-patch16-224'], 'vision_config': {'surprise': 3}}
  with pytest.raises(errors.UserError, match=r'vision_config\.surprise=3: unknown'):
    weights.published(config)
  config = {**CONFIGS['clip-vit-base-patch32'], 'text_config': {'eos_token_id': [2, 3]}}
  with pytest.raises(
    errors.UserError, match=r'text_config: eos_token_id is \[2, 3\]\. Expected one number'
  ):
    weights.published(config)


@pytest.mark.parametrize('command', ['generate', 'eval'])
def test_text_commands_list_the_outputs_in_errors(clip, command, tmp_path, capsys):
  folder = clip.folder
  if command == 'eval':
    folder = tmp_path / 'ours'
    hub.save(clip.ours.spec, clip.ours.params, folder)
  more = ['--prompt=a'] if command == 'generate' else []
  assert main.run([command, f'--checkpoint={folder}', *more]) == 2
  message = capsys.readouterr().err
  assert (
    'is no language model: it returns image_embeds, text_embeds, logits_per_text, logits_per_image'
    in message
  )
  assert 'Expected a model with the head lm.' in message


def test_config_nests_the_towers(clip, tmp_path):
  hub.export_hf(clip.ours.spec, clip.ours.params, tmp_path / 'back')
  config = json.loads((tmp_path / 'back' / 'config.json').read_text())
  assert config['text_config']['model_type'] == 'clip_text_model'
  assert config['vision_config']['patch_size'] == 8
  assert 'hidden_size' not in config
