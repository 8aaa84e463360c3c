"""Paths without a loadable model: the error names the kind and the next step."""

import json

import jax
import numpy as np
import pytest
import safetensors.numpy

import tfm
from tfm import hub, zoo
from tfm.core import errors
from tfm.hub.path_kinds import LFS, MISSING_PATHS, PATH_KINDS, UNREADABLE_WEIGHTS
from tfm.hub.tensors import SAFE
from tfm.model.transformer import param_shapes

POINTER = LFS + b'/v1\noid sha256:00\nsize 1\n'

#: Kind -> files of a folder, the path in it that is loaded, and part of the message.
PLACES = {
  'part': (
    ['config.json', 'model.safetensors'],
    'model.safetensors',
    r'one file of a published folder\. Expected the',
  ),
  'state': (
    ['about/experiment.json', 'state/_METADATA'],
    'state',
    r'is part of a tfm checkpoint\. Expected the',
  ),
  'peft': (
    ['adapter_config.json', 'adapter_model.safetensors'],
    '',
    r'PEFT adapter .*adapter=FOLDER.*where BASE is org/b',
  ),
  'lfs': (['model.gguf.pointer'], '', 'Git LFS pointers instead of files .*git lfs pull'),
  'partial': (
    ['.cache/huggingface/download/x.incomplete'],
    '',
    'partial download .*same download command again',
  ),
  'safetensors': (['model.safetensors'], 'model.safetensors', 'in a folder without config.json'),
  'pickle': (['model.pt'], 'model.pt', r'is a pickle \(\.pt\).*save_pretrained'),
  'foreign file': (['model.onnx'], 'model.onnx', r'file of another framework \(\.onnx\)'),
  'archive': (['model.tar.gz'], 'model.tar.gz', 'is an archive .*unpack the archive first'),
  'file': (['notes.txt'], 'notes.txt', 'is a file in an unknown format'),
  'diffusers': (['model_index.json', 'unet/config.json'], '', 'is a diffusers pipeline'),
  'sentence-transformers': (
    ['modules.json', '0_Transformer/config.json'],
    '',
    'subfolder of its transformer',
  ),
  'cache': (['models--a--b/refs/main'], '', 'is a Hugging Face cache.*models--a--b'),
  'workdir': (['checkpoints/notes.txt'], '', 'without a saved checkpoint'),
  'inner': (
    ['checkpoint-5/config.json', 'trainer_state.json'],
    '',
    r'Expected a subfolder: checkpoint-5\.',
  ),
  'saved model': (['saved_model.pb'], '', 'is a TensorFlow SavedModel'),
  'orbax': (
    ['_CHECKPOINT_METADATA', 'default/_METADATA'],
    '',
    'Orbax checkpoint of another program',
  ),
  'distributed': (['__0_0.distcp'], '', 'sharded training state of PyTorch'),
  'safetensors folder': (
    ['model.safetensors'],
    '',
    r'holds weights \(model.safetensors\) and no config.json',
  ),
  'tokenizer': (['tokenizer.json'], '', 'holds a tokenizer .*and no model'),
  'empty': ([], '', 'is an empty folder'),
}

#: Kind -> files in a folder with config.json, and part of the message.
WITHOUT_WEIGHTS = {
  'lfs': (['model-Q4.pointer'], 'Git LFS pointers'),
  'partial': (['model.safetensors.part'], 'is a partial download'),
  'gguf': (['x-Q4_K_M.gguf'], 'Expected the path of that file: x-Q4_K_M.gguf'),
  'peft': (['adapter_config.json'], r'holds a PEFT adapter and no model.*where BASE is org/b'),
  'diffusers': (['diffusion_pytorch_model.safetensors'], 'is a diffusers model'),
  'consolidated': (['consolidated.00.pth', 'params.json'], "in the authors' layout"),
  'tensorflow': (['tf_model.h5'], 'TensorFlow weights'),
  'flax': (['flax_model.msgpack'], 'Flax msgpack weights'),
  'onnx': (['onnx/model.onnx'], 'ONNX graph'),
  'openvino': (['openvino_model.xml', 'openvino_model.bin'], 'OpenVINO graph'),
  'ctranslate2': (['model.bin', 'vocabulary.json'], 'is a converted CTranslate2 model'),
  'mlx': (['weights.00.npz'], 'MLX weights'),
  'rust': (['rust_model.ot'], 'weights for Rust'),
  'named': (['model.fp16.safetensors'], r'with an unexpected file name \(model.fp16.safetensors\)'),
}


def _write(folder, names):
  for name in names:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(POINTER if name.endswith('.pointer') else b'x')
  if 'adapter_config.json' in names:
    (folder / 'adapter_config.json').write_text(json.dumps({'base_model_name_or_path': 'org/b'}))
  return folder


@pytest.mark.parametrize('kind', PLACES)
def test_errors_name_the_kind_of_a_path(tmp_path, kind):
  names, inner, message = PLACES[kind]
  with pytest.raises(errors.UserError, match=message):
    tfm.load(_write(tmp_path, names) / inner)


@pytest.mark.parametrize('kind', WITHOUT_WEIGHTS)
def test_errors_name_unreadable_weights(tmp_path, kind):
  names, message = WITHOUT_WEIGHTS[kind]
  (tmp_path / 'config.json').write_text('{"model_type": "llama"}')
  with pytest.raises(errors.UserError, match=message):
    tfm.load(_write(tmp_path, names))


def test_every_kind_has_a_case():
  assert {k.name for k in PATH_KINDS if k not in UNREADABLE_WEIGHTS[2:]} == set(PLACES)
  assert {k.name for k in UNREADABLE_WEIGHTS} == set(WITHOUT_WEIGHTS)
  assert [k.name for k in MISSING_PATHS] == ['cached', 'hub', 'remote', 'absent']


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('meta-llama/Llama-3.2-1B', r'hf download meta-llama/Llama-3.2-1B --local-dir'),
    ('https://huggingface.co/org/name/tree/main', r"snapshot_download\('org/name'\)"),
    (
      'runs/1',
      'holds no checkpoint: there is no such folder. Expected the --workdir',
    ),
    ('gs://bucket/model', r'is a remote address \(gs:\)'),
    ('nowhere', r'no such folder\..* run `hf download OWNER/nowhere --local-dir nowhere` first\.$'),
    ('/nowhere/at/all', r'there is no such folder\. Expected .*, or a published folder\.$'),
    ('modle', r"there is no such folder\. Expected .* Did you mean 'model'\?$"),
    ('model/1', r'there is no such folder\. Expected .*, or a published folder\.$'),
  ],
)
def test_missing_paths_and_hub_ids_have_own_errors(tmp_path, monkeypatch, path, message):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
  (tmp_path / 'model').mkdir()
  for read in (tfm.load, hub.read_config):
    with pytest.raises(errors.UserError, match=message):
      read(path)


def test_config_of_a_run_is_not_a_published_one(tmp_path):
  (tmp_path / 'checkpoints' / '3' / 'about').mkdir(parents=True)
  with pytest.raises(
    errors.UserError, match=r'has no config\.json\. Expected a published folder\.'
  ):
    hub.read_config(tmp_path)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  path = tmp_path_factory.mktemp('model') / 'model'
  spec = zoo.tiny(zoo.get('llama3-8b'))
  hub.export_hf(spec, jax.tree.map(lambda x: np.ones(x.shape, x.dtype), param_shapes(spec)), path)
  return path


@pytest.mark.parametrize('named', [True, False])
def test_cache_folder_loads_its_snapshot(model, tmp_path, monkeypatch, named):
  cache = tmp_path / 'models--org--name'
  (cache / 'refs').mkdir(parents=True)
  (cache / 'snapshots').mkdir()
  (cache / 'snapshots' / 'abc').symlink_to(model, target_is_directory=True)
  if named:
    (cache / 'snapshots' / 'old').mkdir()
    (cache / 'refs' / 'main').write_text('abc')
  assert tfm.load(cache).spec == tfm.load(model).spec
  monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
  with pytest.raises(errors.UserError, match=f'Expected that folder: {cache}'):
    tfm.load('org/name')


def test_cache_folder_without_main_lists_snapshots(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / 'models--org--name' / 'snapshots' / name).mkdir(parents=True)
  with pytest.raises(
    errors.UserError, match=r'without a main snapshot\. Expected a snapshot folder: .*/a, .*/b\.'
  ):
    tfm.load(tmp_path / 'models--org--name')


@pytest.mark.parametrize('name', ['config.json', SAFE, 'tokenizer.json'])
def test_git_lfs_pointers_have_their_own_error(model, tmp_path, name):
  for path in model.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / name).write_bytes(POINTER)
  with pytest.raises(errors.UserError, match=rf'{name}: is a Git LFS pointer, not the file itself'):
    tfm.load(tmp_path)


def test_unused_git_lfs_pointers_are_ignored(model, tmp_path):
  for path in model.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  (tmp_path / 'pytorch_model.bin').write_bytes(POINTER)
  assert tfm.load(tmp_path).spec == tfm.load(model).spec


@pytest.mark.parametrize(
  ('field', 'library'), [('_class_name', 'diffusers'), ('architecture', 'timm')]
)
def test_configs_of_other_libraries_raise_errors(tmp_path, field, library):
  (tmp_path / 'config.json').write_text(json.dumps({field: 'X'}))
  safetensors.numpy.save_file({'a': np.ones(2)}, tmp_path / SAFE)
  with pytest.raises(errors.UserError, match=f'is a config of {library}'):
    tfm.load(tmp_path)
