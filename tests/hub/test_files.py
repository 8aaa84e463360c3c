"""Loading and exporting keeps all files of a folder."""

import dataclasses
import json
import os
import stat

import jax
import pytest

from tests.hub.folders import byte_level, chat_folder
import tfm
from tfm import hub, zoo
from tfm.cli import main
from tfm.core import errors
from tfm.data.tokenizer.file import FileVocabulary
from tfm.model.spec import Segment
from tfm.model.transformer import init
from tfm.parts.act import Tanh
from tfm.parts.head import classify


@pytest.fixture
def folder(tmp_path):
  return chat_folder(tmp_path / 'published')


def contents(folder):
  """Return the bytes of all files except weights by name."""
  paths = (path for path in folder.rglob('*') if path.is_file() and path.suffix != '.safetensors')
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_exported_folder_holds_the_same_files(folder, tmp_path):
  m = tfm.load(folder)
  assert m.export_hf(tmp_path / 'back') == 'Qwen2ForCausalLM'
  expected = contents(folder)
  del expected['notes.py']  # Code is not kept.
  assert contents(tmp_path / 'back') == expected
  assert (tmp_path / 'back' / 'model.safetensors').read_bytes() == (
    folder / 'model.safetensors'
  ).read_bytes()


def test_checkpoint_of_tfm_keeps_the_files(folder, tmp_path):
  ours, back = tmp_path / 'ours', tmp_path / 'back'
  assert main.run(['convert', f'--input={folder}', f'--output={ours}']) == 0
  assert main.run(['convert', f'--input={ours}', f'--output={back}']) == 0
  expected = contents(folder)
  del expected['notes.py']
  assert contents(back) == expected
  assert tfm.load(ours).settings() == tfm.load(folder).settings()


def test_new_dtype_changes_one_field_of_the_config(folder, tmp_path):
  tfm.load(folder, dtype='bfloat16').export_hf(tmp_path / 'back')
  before, after = (json.loads((f / 'config.json').read_text()) for f in (folder, tmp_path / 'back'))
  assert after.pop('tfm_version')
  assert before.pop('tfm_version')
  assert after == before | {'dtype': 'bfloat16'}


def test_changed_model_keeps_valid_fields(folder, tmp_path):
  """Special tokens and context length remain valid for another activation.

  The class of the original cannot express it.
  """
  m = tfm.load(folder)
  block = m.spec.segments[0].pattern[0]
  other = dataclasses.replace(block, mixer=dataclasses.replace(block.mixer, bias=''))
  spec = dataclasses.replace(m.spec, segments=(Segment((other,), m.spec.segments[0].repeats),))
  name = hub.export_hf(spec, init(spec, jax.random.key(0)), tmp_path / 'back', files=m.files)
  config = json.loads((tmp_path / 'back' / 'config.json').read_text())
  assert name == 'LlamaForCausalLM'
  assert config['model_type'] == 'llama'
  assert config['eos_token_id'] == m.tokenizer.inner.token_to_id('<|im_end|>')
  assert contents(tmp_path / 'back')['tokenizer.json'] == contents(folder)['tokenizer.json']


def test_label_names_and_problem_type_round_trip(tmp_path):
  spec = zoo.tiny(zoo.get('bert-base')).with_heads(
    lm=None, classify=classify.Classify(3, hidden=Tanh())
  )
  params = init(spec, jax.random.key(0))
  hub.export_hf(spec, params, tmp_path / 'a')
  names = {'0': 'negative', '1': 'neutral', '2': 'positive'}
  path = tmp_path / 'a' / 'config.json'
  labels = {'id2label': names, 'label2id': {name: int(i) for i, name in names.items()}}
  more = {**labels, 'problem_type': 'multi_label_classification'}
  path.write_text(json.dumps(json.loads(path.read_text()) | more))
  m = tfm.load(tmp_path / 'a')
  m.export_hf(tmp_path / 'b')
  back = json.loads((tmp_path / 'b' / 'config.json').read_text())
  assert {name: back[name] for name in more} == more
  wider = spec.with_heads(classify=classify.Classify(4, hidden=Tanh()))
  hub.export_hf(wider, init(wider, jax.random.key(0)), tmp_path / 'c', files=m.files)
  back = json.loads((tmp_path / 'c' / 'config.json').read_text())
  assert back['id2label'] == {str(i): f'LABEL_{i}' for i in range(4)}
  assert back['problem_type'] == more['problem_type']


def test_classes_of_a_run_become_label_names(tmp_path):
  spec = zoo.tiny(zoo.get('bert-base')).with_heads(
    lm=None, classify=classify.Classify(2, hidden=Tanh())
  )
  hub.save(spec, init(spec, jax.random.key(0)), tmp_path / 'run')
  (tmp_path / 'run' / 'about' / 'classes.json').write_text('["good", "bad"]')
  tfm.load(tmp_path / 'run').export_hf(tmp_path / 'back')
  config = json.loads((tmp_path / 'back' / 'config.json').read_text())
  assert config['id2label'] == {'0': 'good', '1': 'bad'}
  assert config['label2id'] == {'good': 0, 'bad': 1}


def test_another_tokenizer_replaces_its_files(folder, tmp_path):
  m = tfm.load(folder)
  other = FileVocabulary(byte_level(['other words'], ('<|endoftext|>',), 280))
  hub.export_hf(m.spec, m.params, tmp_path / 'back', tokenizer=other, files=m.files)
  found = contents(tmp_path / 'back')
  assert found['tokenizer.json'] != contents(folder)['tokenizer.json']
  assert b'<|im_end|>' not in found['tokenizer.json']
  config = json.loads(found['tokenizer_config.json'])
  assert (config['pad_token'], config['model_max_length'], 'eos_token' in config) == (
    '<|endoftext|>',
    4096,
    False,
  )
  generation = json.loads(found['generation_config.json'])
  assert generation == {'do_sample': True, 'temperature': 0.7, 'top_p': 0.8}
  config = json.loads(found['config.json'])
  assert config['eos_token_id'] == other.eos
  assert config['max_position_embeddings'] == 4096


@pytest.mark.parametrize('umask', [0o022, 0o027, 0o077], ids=lambda umask: f'umask={umask:03o}')
def test_permissions_follow_the_umask(folder, tmp_path, umask):
  m, before = tfm.load(folder), os.umask(umask)
  try:
    m.export_hf(tmp_path / 'theirs')
    hub.save(m.spec, m.params, tmp_path / 'ours', tokenizer=m.tokenizer, files=m.files)
  finally:
    os.umask(before)
  for root in ('theirs', 'ours'):
    paths = [tmp_path / root, *(tmp_path / root).rglob('*')]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o666 & ~umask}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o777 & ~umask}


def test_failed_export_leaves_nothing(folder, tmp_path, monkeypatch):
  m = tfm.load(folder)

  def fail(*args, **kwargs):
    raise OSError('disk')

  monkeypatch.setattr('safetensors.numpy.save_file', fail)
  with pytest.raises(OSError, match='disk'):
    m.export_hf(tmp_path / 'out' / 'back')
  assert not [*(tmp_path / 'out').iterdir()]
  (tmp_path / 'out' / 'back').mkdir()
  with pytest.raises(errors.UserError, match='exists already'):
    m.export_hf(tmp_path / 'out' / 'back')


def test_files_of_older_checkpoints_load(tmp_path):
  about = tmp_path / 'about'
  about.mkdir()
  (about / 'tokens.json').write_text(
    json.dumps({'generation_config.json': {'eos_token_id': [2, 7]}})
  )
  kept = {
    'model_type': 'vit',
    'files': {'preprocessor_config.json': '{"image_processor_type": "ViTImageProcessor"}'},
  }
  (about / 'processor.json').write_text(json.dumps(kept))
  files = hub.FolderFiles.read(tmp_path)
  assert files.json('generation_config.json') == {'eos_token_id': [2, 7]}
  assert type(files.processor()).__name__
  assert hub.generation_options(tmp_path) == {'eos': [2, 7]}


def test_describe_reads_no_weights(folder, capsys):
  with (folder / 'model.safetensors').open('r+b') as file:
    file.seek(-8, os.SEEK_END)
    file.write(b'\xff' * 8)
  m = hub.describe(folder)
  assert m.params is None
  assert m.spec == tfm.load(folder).spec
  assert main.run(['show', f'--checkpoint={folder}']) == 0
  out = capsys.readouterr().out
  assert 'Qwen2ForCausalLM' in out
  assert 'temperature' in out
  assert 'cache per token' in out
