import dataclasses
import json
import logging

import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.data import LabelledText
from tfm.data.tokenizer import Byte
from tfm.model.spec import Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.classify import Classify as Head
from tfm.tasks import Classify, Regress

ROWS = [(f'text {i}, with "quotes"', 'good' if i % 3 else 'bad', i / 4) for i in range(23)]


def _source(path, **fields):
  return LabelledText(
    files=str(path), tokenizer=Byte(), length=12, batch=4, val_every=5,
    cache=str(path.parent / 'cache'), **fields,
  )  # fmt: skip


@pytest.fixture(params=['tsv', 'csv', 'jsonl'])
def table(request, tmp_path):
  path = tmp_path / f'rows.{request.param}'
  quoted = lambda text: '"' + text.replace('"', '""') + '"'
  lines = {
    'tsv': ['text\tlabel\tscore', *(f'{t}\t{label}\t{n}' for t, label, n in ROWS)],
    'csv': ['score,text,label', *(f'{n},{quoted(t)},{label}' for t, label, n in ROWS)],
    'jsonl': [json.dumps({'text': t, 'label': label, 'score': n}) for t, label, n in ROWS],
  }
  path.write_text('\n'.join(lines[request.param]) + '\n')
  return path


def test_rows_of_every_format_are_split_and_labelled(table):
  source = _source(table)
  assert list(source.documents('val')) == [text for text, *_ in ROWS[4::5]]
  corpus = source.open(Classify())
  assert corpus.names == ['bad', 'good']
  assert corpus.size('train') == 19
  task, found = Classify(), {}
  for step in range(5):
    batch = task.features(corpus.batch('train', 0, step), corpus)
    for ids, label in zip(batch['input_ids'], batch['labels'], strict=True):
      found[corpus.vocabulary.decode(ids)] = corpus.names[label]
  assert set(found.values()) == {'good', 'bad'}
  known = {text[:10]: label for text, label, _ in ROWS}
  assert all(known[text] == label for text, label in found.items())


def test_numbers_are_regressed(table):
  source, task = _source(table, label='score', numbers=True), Regress()
  model = Model(Tokens(300)).with_heads(lm=None, classify=Head(1))
  corpus = source.open(task)
  assert not [*task.fits(model), *task.fits_data(source), *task.suits(model, corpus)]
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert {n: (a.shape, a.dtype) for n, a in batch.items()} == {
    n: (s.shape, s.dtype) for n, s in task.shapes(model, source).items()
  }
  scores = {text[:10]: score for text, _, score in ROWS}
  for ids, label in zip(batch['input_ids'], batch['labels'], strict=True):
    assert scores[corpus.vocabulary.decode(ids)] == label
  ratios = task.loss(lambda **inputs: {'logits': batch['labels'][:, None] + 2}, batch, None)
  assert float(ratios['loss'].sum / ratios['loss'].weight) == pytest.approx(4)
  assert 'task=regress, or data.numbers=False' in next(Classify().fits_data(source))
  classes = _source(table)
  assert 'Expected data=labelled_text(numbers=true)' in next(task.fits_data(classes))


def test_long_rows_are_one_example_and_empty_ones_none(tmp_path, caplog):
  path = tmp_path / 'rows.tsv'
  path.write_text(f'text\tlabel\n{"x" * 50}\ta\n\tb\nshort\tb\n')
  source = dataclasses.replace(_source(path), val_every=0)
  with caplog.at_level(logging.WARNING):
    corpus = source.open(Classify())
  assert '1 rows of train have no text or no label' in caplog.text
  assert corpus.size('train') == 2
  np.testing.assert_array_equal(corpus.labels['train'], [0, 1])


def test_wrong_columns_and_labels_are_errors(tmp_path):
  path = tmp_path / 'rows.tsv'
  path.write_text('text\tlabel\nx\tgood\n')
  with pytest.raises(UserError, match=r"row 1: unknown column 'txt'. Did you mean 'text'"):
    list(_source(path, text='txt').rows('train'))
  with pytest.raises(UserError, match=r'data.label: .*good.* Expected numbers'):
    _source(path, numbers=True).labels('train')
  with pytest.raises(UserError, match='cannot read'):
    list(_source(tmp_path / 'none.tsv').rows('train'))
  (tmp_path / 'bad.jsonl').write_text('{"text": \n')
  with pytest.raises(UserError, match=r'bad.jsonl: .* Expected UTF-8 text with rows'):
    list(_source(tmp_path / 'bad.jsonl').rows('train'))
  messages = list(LabelledText(begin='always', val_every=1).check())
  assert [message.partition(':')[0] for message in messages] == ['files', 'begin', 'val_every']
