"""DeepSeek-V3's multi-token prediction layers: loading, drafting and export."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import tfm
from tfm import hub, zoo
from tfm.core import errors
from tfm.generate import MTPDraft
from tfm.hub.tensors import SAFE, open_tensors
from tfm.model.transformer import apply, param_shapes
from tfm.zoo import weights

_TINY = zoo.tiny(zoo.get('deepseek-v3-mtp'))
SPEC = dataclasses.replace(
  _TINY, segments=tuple(dataclasses.replace(s, repeats=1) for s in _TINY.segments)
)
N = 2  # The index of the layer, after two others.
IDS = np.random.default_rng(0).integers(1, 40, (2, 9)).astype(np.int32)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Write a folder with the published tensor names and random weights."""
  path, rng = tmp_path_factory.mktemp('later') / 'published', np.random.default_rng(1)
  drawn = lambda x: (
    rng.standard_normal(x.shape) * (0.3 if x.ndim > 1 else 0.1) + (x.ndim < 2)
  ).astype(np.float32)
  hub.export_hf(SPEC, jax.tree.map(drawn, param_shapes(SPEC)), path)
  return path


@pytest.fixture(scope='module')
def loaded(folder):
  return hub.load(folder)


def changed(folder, new, arrays=lambda found: None, **fields):
  """Copy a published folder with changes.

  Args:
    folder: The folder.
    new: The new folder.
    arrays: Changes the tensors by name in place.
    **fields: Changed fields of the config.

  Returns:
    The new folder.
  """
  tensors = safetensors.numpy.load_file(folder / SAFE)
  arrays(tensors)
  new.mkdir()
  safetensors.numpy.save_file(tensors, new / SAFE, metadata={'format': 'pt'})
  config = json.loads((folder / 'config.json').read_text()) | fields
  (new / 'config.json').write_text(json.dumps(config))
  return new


def test_tensors_have_their_published_names(folder, loaded):
  names = {
    n.removeprefix(f'model.layers.{N}.')
    for n in open_tensors(folder)
    if n.startswith(f'model.layers.{N}.')
  }
  names_of_layer = {
    'embed_tokens',
    'enorm',
    'hnorm',
    'eh_proj',
    'shared_head.norm',
    'shared_head.head',
  }
  assert {f'{n}.weight' for n in names_of_layer} <= names
  layer = {
    n.removeprefix(f'model.layers.{N - 1}.')
    for n in open_tensors(folder)
    if f'.layers.{N - 1}.' in n
  }
  assert names == layer | {f'{n}.weight' for n in names_of_layer}
  assert json.loads((folder / 'config.json').read_text())['num_nextn_predict_layers'] == 1
  assert loaded.spec.mtp == SPEC.mtp
  assert open_tensors(folder)[f'model.layers.{N}.eh_proj.weight'].shape == (
    SPEC.d_model,
    2 * SPEC.d_model,
  )


def test_tensor_names_match_the_deepseek_v3_index():
  """The index has `model.layers.61.*`: three tensors for 256 experts, and shared tensors."""
  found = weights.published(hub.class_of(zoo.get('deepseek-v3-mtp'))[0])
  names = [t.name for t in weights.tensor_map(found.family, found.spec, found.ending)]
  names += found.family.twins(found.spec)
  layer = [n.removeprefix('model.layers.61.') for n in names if n.startswith('model.layers.61.')]
  assert len(layer) == 3 * 256 + 20
  assert 'mlp.experts.255.down_proj.weight' in layer
  assert 'mlp.gate.e_score_correction_bias' in layer
  assert not [n for n in names if n.startswith('model.layers.62.')]


@pytest.mark.oracle
def test_mtp_logits_match_transformers(folder, loaded):
  """transformers reads the same files under other names.

  Its positions are larger by one, which does not change attention scores.
  """
  import torch
  import transformers
  from transformers.modeling_layers import MtpModel

  theirs = transformers.DeepseekV3ForCausalLM.from_pretrained(folder, attn_implementation='eager')
  # The default is layer 61, as in the released model.
  theirs._keys_to_ignore_on_load_unexpected = [rf'model\.layers\.{N}\.']
  ahead = MtpModel.from_pretrained(theirs).eval()
  ids = torch.tensor(IDS, dtype=torch.long)
  place = torch.arange(1, IDS.shape[1])[None].expand(2, -1)
  with torch.no_grad():
    out = theirs(ids, output_hidden_states=True)
    state = ahead.forward_layer(0, out.hidden_states[-1][:, :-1], place, None, input_ids=ids[:, 1:])
    expected = ahead._project_to_logits(state).numpy()
  ours = jax.jit(lambda p: apply(loaded.spec, p, input_ids=IDS, mtp=True))(loaded.params)
  np.testing.assert_allclose(
    ours['logits'], out.logits.numpy(), atol=2e-5 * np.abs(out.logits.numpy()).max()
  )
  np.testing.assert_allclose(
    ours['mtp_logits'][0][:, :-1], expected, atol=2e-5 * np.abs(expected).max(), rtol=0
  )


def test_mtp_drafts_do_not_change_greedy_text(loaded):
  """Each generated token is the most probable token of a full forward pass."""
  generated = tfm.generate(
    loaded.spec, loaded.params, IDS[:1].tolist(), max_new_tokens=6, temperature=0, draft=MTPDraft()
  )
  row = np.concatenate([IDS[:1], np.asarray(generated)], 1)
  logits = jax.jit(lambda p: apply(loaded.spec, p, input_ids=row)['logits'])(loaded.params)
  np.testing.assert_array_equal(np.argmax(logits, -1)[:, IDS.shape[1] - 1 : -1], generated)


def test_export_returns_the_same_tensors(folder, loaded, tmp_path):
  hub.export_hf(loaded.spec, loaded.params, tmp_path / 'back')
  assert (tmp_path / 'back' / SAFE).read_bytes() == (folder / SAFE).read_bytes()


def test_missing_mtp_layers_load_as_none(folder, loaded, tmp_path):
  def cut(arrays):
    for name in [n for n in arrays if n.startswith(f'model.layers.{N}.')]:
      del arrays[name]

  base = {k: v for k, v in loaded.params.items() if k != 'mtp'}
  # transformers saves such a folder: the config still has a layer.
  for new in (
    changed(folder, tmp_path / 'cut', cut),
    changed(folder, tmp_path / 'none', num_nextn_predict_layers=0),
  ):
    m = hub.load(new)
    assert m.spec == dataclasses.replace(loaded.spec, mtp=None)
    jax.tree.map(np.testing.assert_array_equal, m.params, base)


def test_incomplete_mtp_layers_raise_errors(folder, tmp_path):
  lacking = changed(
    folder, tmp_path / 'lacking', lambda a: a.pop(f'model.layers.{N}.eh_proj.weight')
  )
  with pytest.raises(
    errors.UserError, match=rf'missing \(1\):\n +model\.layers\.{N}\.eh_proj\.weight \[32, 64\]'
  ):
    tfm.load(lacking)
  for name, first in (('shared_head.head', 'lm_head'), ('embed_tokens', r'model\.embed_tokens')):
    change = lambda a, name=name: a.update(
      {f'model.layers.{N}.{name}.weight': a[f'model.layers.{N}.{name}.weight'] + 1}
    )
    new = changed(folder, tmp_path / name, change)
    with pytest.raises(
      errors.UserError, match=rf'{name}\.weight differs from {first}\.weight\. Expected equal'
    ):
      tfm.load(new)
