"""Hostile and damaged files of a published folder raise one UserError each."""

import json
import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy

from tests.doors import attempt, rng
from tests.hub.folders import with_vocab
import tfm
from tfm import zoo
from tfm.core import json_text
from tfm.core.errors import UserError
from tfm.data.tokenizer import load as load_vocabulary
from tfm.data.tokenizer.published import read_file, read_tokenizer
from tfm.hub.finite import is_finite
from tfm.hub.pickles import read_pickle
from tfm.hub.tensors import SAFE

SPEC = with_vocab(zoo.tiny(zoo.get('llama3.2-1b')), 64)
TOKENIZER = {
  'version': '1.0',
  'added_tokens': [],
  'model': {'type': 'WordLevel', 'vocab': {'a': 0, 'b': 1, '[UNK]': 2}, 'unk_token': '[UNK]'},
}
SLOW_PATTERN = {
  'type': 'Split',
  'pattern': {'Regex': '(a+)+$'},
  'behavior': 'Isolated',
  'invert': False,
}
GROWS = {'type': 'Replace', 'pattern': {'String': 'a'}, 'content': 'a' * 100}
BEGIN = {'SpecialToken': {'id': '[X]', 'type_id': 0}}
FRAME = {'type': 'TemplateProcessing', 'single': [BEGIN], 'pair': [], 'special_tokens': {}}
WORDS = {'a': 0, '[UNK]': 2, 'b': 2**31}


def write(folder, **files):
  """Write JSON files, or bytes, into a folder and return it."""
  for name, content in files.items():
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / name.replace('__', '.')).write_bytes(raw)
  return folder


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'model': {**TOKENIZER['model'], 'vocab': WORDS}}, 'a token has the id 2147483648. Expected'),
    (
      {'normalizer': {'type': 'Sequence', 'normalizers': [GROWS] * 6}},
      'the normalizer makes up to 1e.12 characters of one. Expected at most 1000.',
    ),
    (
      {'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': 'AAAA'}},
      'precompiled_charsmap.* Expected valid tokenizer files.',
    ),
    ({'post_processor': FRAME}, 'no entry found for key.* Expected valid tokenizer files.'),
  ],
)
def test_broken_tokenizer_json_raises(tmp_path, changes, message):
  folder = write(tmp_path, tokenizer__json={**TOKENIZER, **changes})
  with pytest.raises(UserError, match=message):
    read_tokenizer(folder)
  with pytest.raises(UserError, match=r'Expected'):
    read_file(folder / 'tokenizer.json')


def test_catastrophic_pattern_ends_with_an_error(tmp_path):
  folder = write(tmp_path, tokenizer__json={**TOKENIZER, 'pre_tokenizer': SLOW_PATTERN})
  vocabulary = read_tokenizer(folder)
  message = 'tokenizer: cannot encode a text .*retry-limit.*Expected valid tokenizer files.'
  with pytest.raises(UserError, match=message):
    vocabulary.prompt('a' * 60 + 'b')
  with pytest.raises(UserError, match=message):
    vocabulary.encode('a' * 60 + 'b')
  assert vocabulary.prompt('a').tolist() == [0]


def test_text_without_an_unknown_token_raises(tmp_path):
  model = {'type': 'WordLevel', 'vocab': {'a': 0}, 'unk_token': '[UNK]'}
  vocabulary = read_tokenizer(write(tmp_path, tokenizer__json={**TOKENIZER, 'model': model}))
  with pytest.raises(UserError, match=r'tokenizer: cannot encode a text .*Missing \[UNK\]'):
    vocabulary.encode('z')


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    ({'tokenizer_config__json': {'tokenizer_class': ['x']}}, 'its tokenizer cannot be read'),
    ({'tokenizer_config__json': b'[' * 10**5}, 'cannot be read .it is nested too deeply'),
    (
      {'config__json': {'model_type': 't5'}, 'tokenizer_config__json': {'extra_ids': 10**9}},
      'extra_ids is 1000000000. Expected an integer from 0 to 65536.',
    ),
  ],
)
def test_broken_tokenizer_settings_raise(tmp_path, files, message):
  folder = write(tmp_path, tokenizer__json=TOKENIZER, **files)
  with pytest.raises(UserError, match=message):
    read_tokenizer(folder)


@pytest.mark.parametrize(
  ('files', 'message'),
  [
    (
      {'config__json': {'model_type': 'ctrl'}, 'vocab__json': {'a': 2**31, '<unk>': 0},
       'merges__txt': b'#v\na a\n'},
      'a token has the id 2147483648. Expected ids of at least 0 and below 16777216.',
    ),
    ({'tokenizer__model': b'YQ== 0\nYg== 2147483648\n'}, 'a token has the id 2147483648. Expected'),
    (
      {'tekken__json': {
        'config': {'pattern': '.', 'default_num_special_tokens': 10**9}, 'vocab': [],
        'special_tokens': [{'rank': 0, 'token_str': 'x'}]}},
      'default_num_special_tokens is 1000000000. Expected an integer from 0 to 65536.',
    ),
    (
      {'tokenizer__model': b'YQ== 0\nYg== 1\n', 'tokenizer_config__json': {
        'added_tokens_decoder': {str(2**31): {'content': '<x>'}}}},
      'the number of tokens up to the last id is 2147483646. Expected an integer',
    ),
  ],
)  # fmt: skip
def test_hostile_sizes_of_vocabularies_raise(tmp_path, files, message):
  files = {'config__json': {'model_type': 'llama'}} | files
  with pytest.raises(UserError, match=message):
    read_tokenizer(write(tmp_path, **files))


def test_stored_vocabulary_of_another_kind_raises(tmp_path):
  for content in ([], {}, {'kind': 'tokenizers'}, {'kind': ['x']}, b'[' * 10**5):
    write(tmp_path, vocabulary__json=content)
    assert attempt(load_vocabulary, tmp_path)


def test_deep_json_is_a_value_error():
  assert json_text.parse('{"a": [1]}') == {'a': [1]}
  with pytest.raises(ValueError, match='it is nested too deeply'):
    json_text.parse('[' * 10**5 + ']' * 10**5)


@pytest.mark.parametrize('value', [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32', 'float64'])
def test_one_number_that_is_not_finite_is_found(dtype, value):
  array = np.linspace(-1, 1, 70_000).astype(jax.numpy.dtype(dtype))
  array[:2] = jax.numpy.finfo(dtype).max, jax.numpy.finfo(dtype).min
  assert is_finite(array)
  array[-1] = value
  assert not is_finite(array)
  assert not is_finite(array[::-1])


def test_nan_weights_are_reported(tmp_path, capfd):
  params = tfm.init(SPEC, jax.random.key(0))
  tfm.export_hf(SPEC, params, tmp_path / 'm')
  capfd.readouterr()
  tfm.load(tmp_path / 'm')
  assert 'NaN' not in capfd.readouterr().err
  arrays = safetensors.numpy.load_file(tmp_path / 'm' / SAFE)
  arrays = {name: array.copy() for name, array in arrays.items()}
  arrays['model.norm.weight'][3] = np.nan
  arrays['model.embed_tokens.weight'][0, 0] = np.inf
  safetensors.numpy.save_file(arrays, tmp_path / 'm' / SAFE)
  tfm.load(tmp_path / 'm')
  printed = capfd.readouterr().err
  assert 'NaN or infinite numbers in model.' in printed
  assert 'and 1 more; outputs may be NaN. Expected finite weights' in printed


class _Runs:
  """An object whose unpickling would call a function."""

  def __reduce__(self):
    return (open, ('owned', 'w'))


def test_tensors_that_are_no_arrays_are_named(tmp_path):
  torch = pytest.importorskip('torch')
  w, file = torch.ones(2, 2), tmp_path / 'x.bin'
  expected = {
    'holds a list. Expected a state dict': [w],
    'holds a Tensor. Expected a state dict': w,
    'a is a list of tensors. Expected a state dict': {'a': [w]},
    'a is a dict of tensors. Expected a state dict': {'a': {'b': w}},
    'an entry has the name 1. Expected names of type str': {1: w},
    'a is a sparse (torch.sparse_coo) tensor. Expected dense': {'a': w.to_sparse()},
    'a is a meta (without data) tensor. Expected dense': {'a': torch.empty(2, device='meta')},
    'a is a complex (torch.complex64) tensor. Expected': {'a': w.to(torch.complex64)},
    'a is a float8_e4m3fn tensor. Expected dense': {'a': w.to(torch.float8_e4m3fn)},
  }
  for message, content in expected.items():
    torch.save(content, file)
    with pytest.raises(UserError) as error:
      read_pickle(file)
    assert message in str(error.value)
  torch.save({'a': torch._neg_view(w), 'note': 'text', 'b': w > 0}, file)
  assert read_pickle(file)['a'].tolist() == [[-1, -1], [-1, -1]]


def test_pickles_that_run_code_are_refused(tmp_path, monkeypatch):
  torch = pytest.importorskip('torch')
  monkeypatch.chdir(tmp_path)
  torch.save({'a': _Runs()}, 'one.bin')
  (tmp_path / 'two.bin').write_bytes(pickle.dumps({'a': _Runs()}))
  for name in ('one.bin', 'two.bin'):
    with pytest.raises(UserError, match='is damaged, or holds other objects than tensors'):
      read_pickle(tmp_path / name)
  assert not (tmp_path / 'owned').exists()


@pytest.mark.parametrize('cases', [40, pytest.param(1500, marks=pytest.mark.large)])
def test_damaged_tokenizer_files_raise_only_user_errors(tmp_path, cases):
  numbers, text = rng(cases), json.dumps({**TOKENIZER, 'pre_tokenizer': SLOW_PATTERN})
  parts = ['null', '-1', '"x"', '[]', '{}', '1e400', str(2**31), str(2**70), '"(a+"', '[[1]]']
  for _ in range(cases):
    start = numbers.randrange(len(text))
    end = start + numbers.randrange(12)
    damaged = text[:start] + numbers.choice(parts) + text[end:]
    (tmp_path / 'tokenizer.json').write_text(damaged)
    attempt(lambda: read_tokenizer(tmp_path).prompt('a b'))


@pytest.mark.parametrize('cases', [12, pytest.param(400, marks=pytest.mark.large)])
def test_damaged_configs_raise_only_user_errors(tmp_path, cases):
  numbers = rng(cases)
  folder = tmp_path / 'm'
  tfm.export_hf(SPEC, tfm.init(SPEC, jax.random.key(0)), folder)
  fields = json.loads((folder / 'config.json').read_text())
  values = [None, -1, 0, 1.5, 'x', [], {}, 2**31, 2**70, True, float('nan'), [[1]], {'a': 1}]
  for _ in range(cases):
    changed = {**fields, numbers.choice([*fields]): numbers.choice(values)}
    (folder / 'config.json').write_text(json.dumps(changed))
    attempt(tfm.load, folder)


def test_config_of_impossible_sizes_raises(tmp_path):
  folder = tmp_path / 'm'
  tfm.export_hf(SPEC, tfm.init(SPEC, jax.random.key(0)), folder)
  fields = json.loads((folder / 'config.json').read_text())
  write(folder, config__json=fields | {'num_attention_heads': 0})
  with pytest.raises(UserError, match=r'a value that it cannot have .ZeroDivisionError'):
    tfm.load(folder)
  write(folder, config__json=fields | {'num_hidden_layers': 10**9})
  with pytest.raises(UserError, match=r'num_hidden_layers is 1000000000. Expected a number of la'):
    tfm.load(folder)
  write(folder, config__json=fields | {'tie_word_embeddings': []})
  with pytest.raises(UserError, match=r'a value that it cannot have .TypeError'):
    tfm.load(folder)
  write(folder, config__json=fields | {'head_dim': 2**31})
  with pytest.raises(UserError, match=r'head_dim is 2147483648. Expected a width or a count up to'):
    tfm.load(folder)
  write(folder, config__json=b'{"a":' * 10**5)
  with pytest.raises(UserError, match=r'is not JSON .it is nested too deeply.. Expected a JSON'):
    tfm.load(folder)
