"""Folders of `save_to_disk`, written in the layout of datasets 5.2 without that package."""

import json

import pytest

from tfm.core.config import validate
from tfm.core.errors import ConfigError, UserError
from tfm.data import HfDataset
from tfm.data.tokenizer import Byte

pyarrow = pytest.importorskip('pyarrow')


def _save(folder, shards):
  folder.mkdir(parents=True)
  names = [f'data-{i:05}-of-{len(shards):05}.arrow' for i in range(len(shards))]
  for name, texts in zip(names, shards, strict=True):
    table = pyarrow.table({'text': texts, 'n': list(range(len(texts)))})
    file = pyarrow.OSFile(str(folder / name), 'wb')
    with file, pyarrow.ipc.new_stream(file, table.schema) as out:
      out.write_table(table)
  files = [{'filename': name} for name in names]
  state = {'_data_files': files, '_fingerprint': 'f00', '_split': None}
  (folder / 'state.json').write_text(json.dumps(state))
  features = {'text': {'dtype': 'string', '_type': 'Value'}}
  (folder / 'dataset_info.json').write_text(json.dumps({'features': features}))


@pytest.fixture
def saved(tmp_path):
  _save(tmp_path / 'dict' / 'train', [['one', 'two é', ''], ['three']])
  _save(tmp_path / 'dict' / 'test', [['four']])
  (tmp_path / 'dict' / 'dataset_dict.json').write_text('{"splits": ["train", "test"]}')
  _save(tmp_path / 'single', [['a' * 8, 'b'], ['c']])
  return tmp_path


def test_splits_of_a_dictionary_are_read_in_order(saved):
  data = HfDataset(folder=str(saved / 'dict'), val_split='test')
  assert list(data.documents('train')) == ['one', 'two é', '', 'three']
  assert list(data.documents('val')) == ['four']
  corpus = HfDataset(
    folder=str(saved / 'dict'), val_split='test', tokenizer=Byte(), cache=str(saved / 'c')
  ).corpus(2)
  assert corpus.store.meta['splits']['train']['documents'] == 3


def test_single_dataset_holds_out_its_last_rows(saved):
  data = HfDataset(folder=str(saved / 'single'), val_tail=0.2)
  assert list(data.documents('train')) == ['a' * 8]
  assert list(data.documents('val')) == ['b', 'c']
  changed = HfDataset(folder=str(saved / 'single'), val_tail=0.1)
  assert data.identity() != changed.identity()


def test_wrong_folders_and_splits_are_errors(saved):
  cases = [
    ('dict', {'split': 'tran'}, r"unknown split 'tran'. Did you mean 'train'"),
    ('single', {'val_split': 'test'}, r"unknown split 'test'"),
    ('.', {}, r'has no dataset_dict.json or state.json'),
    ('dict', {'field': 'n'}, r"data.field: .*column 'n' is int64"),
  ]
  for name, fields, message in cases:
    data = HfDataset(folder=str(saved / name), **fields)
    with pytest.raises(UserError, match=message):
      list(data.documents('val'))
  (saved / 'single' / 'state.json').write_text('{}')
  with pytest.raises(UserError, match=r'state.json is damaged .*_data_files'):
    HfDataset(folder=str(saved / 'single')).check_sources()
  with pytest.raises(ConfigError, match='folder: is empty'):
    validate(HfDataset())
