"""Weight files are read lazily; damaged or malicious ones raise errors."""

import json
import os
import pickle
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from tfm.core import errors
from tfm.hub.tensors import INDEX, PICKLED, SAFE, open_tensors

_ARRAYS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b': np.array(2.5, np.float32),
  'c': np.ones(0, np.int32),
}


@pytest.fixture
def folder(tmp_path):
  safetensors.numpy.save_file(_ARRAYS, tmp_path / SAFE)
  return tmp_path


def test_tensors_equal_the_file(folder):
  found = open_tensors(folder)
  assert sorted(found) == sorted(_ARRAYS)
  for name, array in _ARRAYS.items():
    assert found.shape(name) == array.shape
    np.testing.assert_array_equal(found[name], array)
    found.release(name)
    np.testing.assert_array_equal(found[name], array)


def test_bfloat16_is_kept(tmp_path):
  array = np.array([1.5, -2.0], ml_dtypes.bfloat16)
  safetensors.numpy.save_file({'x': array}, tmp_path / SAFE)
  found = open_tensors(tmp_path)['x']
  assert found.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(found, array)


def test_sharded_files_load_together(tmp_path):
  safetensors.numpy.save_file({'a': _ARRAYS['a']}, tmp_path / 'one.safetensors')
  safetensors.numpy.save_file({'b': _ARRAYS['b']}, tmp_path / 'two.safetensors')
  index = {'weight_map': {'a': 'one.safetensors', 'b': 'two.safetensors'}}
  (tmp_path / INDEX).write_text(json.dumps(index))
  assert sorted(open_tensors(tmp_path)) == ['a', 'b']


@pytest.mark.parametrize('size', [0, 4, 8, 40, -1])
def test_truncated_file_raises_an_error(folder, size):
  content = (folder / SAFE).read_bytes()
  (folder / SAFE).write_bytes(content[:size])
  with pytest.raises(errors.UserError, match='is not a valid safetensors file'):
    open_tensors(folder)


def _written(folder, header, body=b'\0' * 24, length=None):
  encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
  (folder / SAFE).write_bytes(
    struct.pack('<Q', len(encoded) if length is None else length) + encoded + body
  )


@pytest.mark.parametrize(
  ('header', 'length'),
  [
    (
      {'a': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24]}},
      1 << 60,
    ),  # A header that is longer than the file.
    (
      {'a': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 1 << 40]}},
      None,
    ),  # Data beyond the end.
    ({'a': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [24, 0]}}, None),  # Reversed offsets.
    ({'a': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [-24, 0]}}, None),
    (
      {'a': {'dtype': 'F32', 'shape': [1 << 40, 1 << 40], 'data_offsets': [0, 24]}},
      None,
    ),  # A size that overflows.
    (
      {'a': {'dtype': 'F32', 'shape': [7], 'data_offsets': [0, 24]}},
      None,
    ),  # The shape and size contradict each other.
    ({'a': {'dtype': 'PY', 'shape': [6], 'data_offsets': [0, 24]}}, None),
    (
      {'a': {'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 12]}},
      None,
    ),  # Bytes of no tensor.
    (b'{"a": ', None),
    (b'[1, 2]', None),
    (b'\xff\xfe{}', None),
  ],
)
def test_invalid_header_raises_an_error(tmp_path, header, length):
  _written(tmp_path, header, length=length)
  with pytest.raises(errors.UserError, match=r'is not a valid safetensors file|unknown dtype'):
    open_tensors(tmp_path)


@pytest.mark.parametrize('name', ['../secret.safetensors', '/etc/passwd', 'a/../../b.safetensors'])
def test_index_cannot_leave_its_folder(tmp_path, name):
  safetensors.numpy.save_file(_ARRAYS, tmp_path / 'secret.safetensors')
  folder = tmp_path / 'model'
  folder.mkdir()
  (folder / INDEX).write_text(json.dumps({'weight_map': {'a': name}}))
  with pytest.raises(errors.UserError, match='outside of the folder'):
    open_tensors(folder)


@pytest.mark.parametrize('content', ['{', '[]', '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_invalid_index_raises_an_error(tmp_path, content):
  (tmp_path / INDEX).write_text(content)
  with pytest.raises(errors.UserError, match='is not an index of weight files'):
    open_tensors(tmp_path)


def test_missing_files_and_tensors_raise_errors(tmp_path):
  safetensors.numpy.save_file(_ARRAYS, tmp_path / 'one.safetensors')
  (tmp_path / INDEX).write_text(json.dumps({'weight_map': {'z': 'one.safetensors'}}))
  with pytest.raises(errors.UserError, match='lists tensors that are missing in the files: z'):
    open_tensors(tmp_path)
  (tmp_path / INDEX).write_text(json.dumps({'weight_map': {'a': 'two.safetensors'}}))
  with pytest.raises(errors.UserError, match=r'two\.safetensors: is missing'):
    open_tensors(tmp_path)


def test_folder_without_weights_raises_an_error(tmp_path):
  with pytest.raises(errors.UserError, match='holds no weights'):
    open_tensors(tmp_path)


@pytest.mark.oracle
def test_pickle_loads(tmp_path):
  import torch

  torch.save({'a': torch.arange(3.0), 'b': torch.ones(2, dtype=torch.bfloat16)}, tmp_path / PICKLED)
  found = open_tensors(tmp_path)
  np.testing.assert_array_equal(found['a'], np.arange(3.0))
  assert found['b'].dtype == ml_dtypes.bfloat16


class _Bomb:
  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.system, (f'touch {self.path}',)


@pytest.mark.oracle
def test_code_in_a_pickle_is_not_run(tmp_path):
  import torch

  torch.save({'a': _Bomb(tmp_path / 'ran')}, tmp_path / PICKLED)
  with pytest.raises(errors.UserError, match='is damaged, or holds other objects than tensors'):
    open_tensors(tmp_path)
  assert not (tmp_path / 'ran').exists()


def test_pickle_error_without_pytorch_has_a_remedy(tmp_path, monkeypatch):
  import sys

  (tmp_path / PICKLED).write_bytes(pickle.dumps({}))
  monkeypatch.setitem(sys.modules, 'torch', None)
  with pytest.raises(errors.UserError, match='weights_only=True'):
    open_tensors(tmp_path)
