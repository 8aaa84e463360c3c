"""Pairs of texts: files, splits, special tokens, truncation and packing."""

import dataclasses
import json

import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.data import Pairs, Text
from tfm.data.tokenizer import Bpe, Byte, Char
from tfm.tasks import CausalLM, Seq2Seq

LINES = [(f'word {i % 40}', f'{"ab" * (i % 5 + 1)}-{i}') for i in range(100)]


@pytest.fixture
def data(tmp_path):
  (tmp_path / 'a.tsv').write_text('\n'.join('\t'.join(pair) for pair in LINES))
  return Pairs(
    files=str(tmp_path / 'a.tsv'), tokenizer=Byte(), length=16, batch=8, val_every=4,
    cache=str(tmp_path / 'cache'),
  )  # fmt: skip


def _texts(corpus, split):
  """Return the (source, target) texts of each pair in the rows of an evaluation, in order."""
  found = []
  for raw in corpus.eval_batches(split, 4):
    for row in range(4):
      for segment in range(1, raw['segments'][row].max() + 1):
        pair = []
        for side in ('', 'target_'):
          inside = raw[f'{side}segments'][row] == segment
          ids = raw[f'{side}tokens'][row][inside]
          assert ids[-1] == corpus.vocabulary.eos
          assert raw[f'{side}positions'][row][inside].tolist() == list(range(len(ids)))
          pair.append(corpus.vocabulary.decode(ids))
        found.append(tuple(pair))
  return found


def test_each_pair_is_in_one_split_and_no_source_in_both(data):
  train, val = ([(p.source, p.target) for p in data.pairs(s)] for s in ('train', 'val'))
  assert sorted(train + val) == sorted(LINES)
  assert not {source for source, _ in train} & {source for source, _ in val}
  assert len(val) in range(5, 50)


@pytest.mark.parametrize('packing', ['none', 'best_fit'])
def test_evaluation_has_each_pair_once(data, packing):
  corpus = dataclasses.replace(data, packing=packing).open(Seq2Seq())
  for split in ('train', 'val'):
    expected = [(pair.source, pair.target) for pair in data.pairs(split)]
    found = _texts(corpus, split)
    assert sorted(found) == sorted(expected)
    assert corpus.eval_steps(split, 1) < len(expected) or packing == 'none'


def test_formats_give_the_same_pairs(data, tmp_path):
  expected = list(data.pairs('train'))
  records = [{'en': s, 'n': 1, 'es': t} for s, t in LINES]
  (tmp_path / 'a.jsonl').write_text('\n'.join(map(json.dumps, records)) + '\n')
  (tmp_path / 'a.en').write_text(''.join(f'{s}\r\n' for s, _ in LINES))
  (tmp_path / 'a.es').write_text('\n'.join(t for _, t in LINES))
  objects = dataclasses.replace(data, files=str(tmp_path / 'a.jsonl'), fields=('en', 'es'))
  en, es = str(tmp_path / 'a.en'), str(tmp_path / 'a.es')
  parallel = dataclasses.replace(data, files=en, target_files=es)
  assert list(objects.pairs('train')) == list(parallel.pairs('train')) == expected


def test_group_column_decides_the_split(data, tmp_path):
  rows = [f'{s}\t{t}\tbook{i % 9}' for i, (s, t) in enumerate(LINES)]
  (tmp_path / 'b.tsv').write_text('\n'.join(rows))
  books = dataclasses.replace(data, files=str(tmp_path / 'b.tsv'), group='3')
  train, val = ({pair.group for pair in books.pairs(s)} for s in ('train', 'val'))
  assert train | val == {f'book{i}' for i in range(9)}
  assert train
  assert val
  assert not train & val


def test_prefix_and_both_sides_are_in_the_vocabulary(data):
  prefixed = dataclasses.replace(data, tokenizer=Char(), prefix='Say: ')
  assert all(pair.source.startswith('Say: word') for pair in prefixed.pairs('train'))
  char = prefixed.open(Seq2Seq())
  text = char.vocabulary.decode(char.vocabulary.encode('Say: word 1ab-'))
  assert text == 'Say: word 1ab-'
  bpe = dataclasses.replace(data, tokenizer=Bpe(262)).open(Seq2Seq())
  assert bpe.vocabulary.encode('word').size < 4
  assert bpe.vocabulary.encode('abab').size < 4


def test_validation_files_are_the_validation_split(data, tmp_path):
  (tmp_path / 'val.tsv').write_text('x\ty\n')
  both = dataclasses.replace(data, val_files=str(tmp_path / 'val.tsv'))
  assert [(p.source, p.target) for p in both.pairs('train')] == LINES
  assert [(p.source, p.target) for p in both.pairs('val')] == [('x', 'y')]


@pytest.mark.parametrize('long', ['truncate', 'skip'])
def test_long_pairs_are_counted(data, long, caplog):
  short = dataclasses.replace(data, target_length=8, long=long).open(Seq2Seq())
  pairs = [(p.source, p.target) for p in data.pairs('train')]
  fits = [pair for pair in pairs if len(pair[1]) <= 7]
  assert short.too_long('train') == (len(pairs) - len(fits), len(pairs))
  expected = fits if long == 'skip' else [(s, t[:7]) for s, t in pairs]
  assert _texts(short, 'train') == expected
  assert ('truncated' if long == 'truncate' else 'skipped') in caplog.text


def test_pairs_with_an_empty_text_are_left_out(data, tmp_path, caplog):
  (tmp_path / 'a.tsv').write_text('a\tb\n\tc\nd\t\n')
  assert len(list(dataclasses.replace(data, val_every=0).pairs('train'))) == 1
  assert '2 pairs of train have an empty text' in caplog.text


def test_batches_are_a_function_of_seed_and_step(data):
  corpus = data.open(Seq2Seq())
  a, b = corpus.batch('train', 1, 5), data.open(Seq2Seq()).batch('train', 1, 5)
  part = corpus.batch('train', 1, 5, slice(2, 4))
  for name, array in a.items():
    np.testing.assert_array_equal(array, b[name])
    np.testing.assert_array_equal(array[2:4], part[name])
  shapes = {name: spec.shape for name, spec in data.specs().items()}
  assert shapes == {name: a[name].shape for name in shapes}


@pytest.mark.parametrize(
  ('text', 'fields', 'message'),
  [
    ('a\tb\nc', {}, "line 2: unknown field '2'. Known: 1."),
    ('a\tb', {'group': '4'}, "line 1: unknown field '4'"),
    ('a', {'target_files': 'other'}, 'has 1 lines, and'),
  ],
)
def test_a_line_without_a_pair_is_an_error(data, tmp_path, text, fields, message):
  (tmp_path / 'a.tsv').write_text(text)
  (tmp_path / 'other').write_text('a\nb')
  if 'target_files' in fields:
    fields = {'target_files': str(tmp_path / 'other')}
  with pytest.raises(UserError, match=message):
    list(dataclasses.replace(data, **fields).pairs('train'))


def test_json_lines_need_objects_with_texts(data, tmp_path):
  path = tmp_path / 'a.jsonl'
  for line, message in (
    ('{', 'line 1 is not JSON'),
    ('[1]', r'is \[1\]. Expected a JSON object'),
    ('{"source": 1, "target": "a"}', 'source is 1. Expected text'),
  ):
    path.write_text(line)
    with pytest.raises(UserError, match=message):
      list(dataclasses.replace(data, files=str(path)).pairs('train'))


def test_invalid_fields_are_errors(data):
  wrong = dataclasses.replace(
    data, files='', fields=('a',), val_every=1, begin='always', val_files='a', target_length=1,
    target_files='b',
  )  # fmt: skip
  assert [sentence.split(':')[0] for sentence in wrong.check()] == [
    'files', 'begin', 'fields', 'val_target_files', 'val_every', 'target_length',
  ]  # fmt: skip
  short = dataclasses.replace(data, target_length=2, long='skip')
  with pytest.raises(UserError, match=r'all \d+ pairs of train are too long'):
    short.open(Seq2Seq()).batch('train', 0, 0)


def test_pairs_and_tasks_of_documents_exclude_each_other(data):
  assert list(CausalLM().fits_data(data)) == [
    'task: causal_lm needs documents, and the data has pairs. Expected task=seq2seq.'
  ]
  assert list(Seq2Seq().fits_data(Text())) == [
    'task: seq2seq needs pairs of source and target. Expected data=pairs.'
  ]
  with pytest.raises(UserError, match='Expected task=seq2seq'):
    data.open(CausalLM())
