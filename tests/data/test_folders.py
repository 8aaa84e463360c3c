"""Text folders as classes: every piece of a file has the label of its folder."""

import numpy as np
import pytest

from tfm.core import config, errors
from tfm.data import Folders
from tfm.data.tokenizer import Byte
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head import classify as head
from tfm.parts.head.lm import Lm
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.tasks import CausalLM, Classify
from tfm.train import Experiment, Record, checkpoint, loop

WINDOW = 8


@pytest.fixture
def data(tmp_path):
  """Two classes with different letters, in files of one to three windows."""
  for name, letters in (('low', 'abc'), ('up', 'XYZ')):
    folder = tmp_path / 'texts' / name
    folder.mkdir(parents=True)
    for i in range(20):
      (folder / f'{i:02}.txt').write_text((letters * 9)[: 3 + i])
  (tmp_path / 'texts' / 'up' / 'empty.txt').write_text('')
  return Folders(
    root=str(tmp_path / 'texts'),
    tokenizer=Byte(),
    length=WINDOW,
    batch=4,
    cache=str(tmp_path / 'cache'),
  )


def _rows(corpus, split):
  for raw in corpus.eval_batches(split, 4):
    for tokens, segments, label in zip(raw['tokens'], raw['segments'], raw['labels'], strict=True):
      if segments.any():
        yield corpus.vocabulary.decode(tokens[segments > 0]), int(label)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_every_piece_of_a_file_has_the_label_of_its_folder(data, split):
  corpus = data.corpus(WINDOW)
  pieces = [
    (text[i : i + WINDOW], label)
    for text, label in zip(data.documents(split), data.labels(split), strict=True)
    for i in range(0, len(text), WINDOW)
  ]
  assert list(_rows(corpus, split)) == pieces
  assert {label for _, label in pieces} == {0, 1}
  assert all(text.islower() == (label == 0) for text, label in pieces)


def test_no_file_is_in_both_splits(data):
  train, val = data._files('train'), data._files('val')
  assert not {p for p, _ in train} & {p for p, _ in val}
  assert len(train) + len(val) == 40
  assert len(val) == 4


def test_small_class_keeps_a_training_file(data, tmp_path):
  for name, n in (('few', 3), ('one', 1)):
    (tmp_path / 'texts' / name).mkdir()
    for i in range(n):
      (tmp_path / 'texts' / name / f'{i}.txt').write_text('some text')
  held_out = {path.relative_to(tmp_path / 'texts').as_posix() for path, _ in data._files('val')}
  assert held_out == {'few/2.txt', 'low/09.txt', 'low/19.txt', 'up/09.txt', 'up/19.txt'}


def test_epoch_has_each_example_once_with_random_access(data):
  corpus = data.corpus(WINDOW)
  rows = corpus.size('train')
  seen = np.concatenate([corpus.batch('train', 3, step)['labels'] for step in range(rows // 4)])
  assert len(seen) == rows // 4 * 4
  again = corpus.batch('train', 3, 5)
  np.testing.assert_array_equal(again['tokens'], corpus.batch('train', 3, 5)['tokens'])
  np.testing.assert_array_equal(
    corpus.batch('train', 3, 5, slice(1, 3))['labels'], again['labels'][1:3]
  )


def test_labels_follow_the_order_of_classes(data):
  assert data.names() == ['low', 'up']
  turned = config.override(data, 'classes', 'up,low')
  assert turned.names() == ['up', 'low']
  np.testing.assert_array_equal(
    turned.labels('val') == 0, [text.isupper() for text in turned.documents('val')]
  )


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('classes', 'low,upp', r"data\.classes: .*: unknown folder 'upp'\. Did you mean 'up'"),
    ('pattern', '*.md', r"data\.pattern: no file of .*low matches '\*\.md'"),
    ('root', 'nowhere', r'data\.root: nowhere has no folders'),
  ],
)
def test_missing_folders_are_named(data, field, value, message):
  with pytest.raises(errors.UserError, match=message):
    config.override(data, field, value).corpus(WINDOW)


def _experiment(data, labels=2, **fields):
  block = Block(Attention(2, mask=Mask()))
  classifier = head.Classify(labels, 'mean')
  model = Model(Tokens(260), 16, (Segment((block,), 1),), heads={'classify': classifier})
  record = Record(sample=None)
  return Experiment(
    model=model, data=config.override(data, 'batch', '8'), task=Classify(), steps=40, save_every=40,
    eval_every=40,
    record=record, **fields,
  )  # fmt: skip


def test_classifier_learns_separable_texts(data, tmp_path):
  scores = loop.train(_experiment(data), tmp_path / 'run').scores
  assert scores['val_accuracy'] == 1
  assert checkpoint.class_names(tmp_path / 'run' / 'checkpoints' / '40') == ('low', 'up')
  assert set(scores) == {'val_loss_nats', 'val_accuracy'}


def test_text_is_framed_by_special_tokens_and_padded(data):
  task = Classify()
  corpus = data.open(task)
  raw = corpus.batch('train', 0, 0)
  found = task.features(raw, corpus)
  assert found['input_ids'].shape == (4, WINDOW)
  for ids, mask, raw_ids, there in zip(
    found['input_ids'], found['attention_mask'], raw['tokens'], raw['segments'], strict=True
  ):
    n = there.sum()
    assert ids[0] == corpus.vocabulary.special('cls')
    np.testing.assert_array_equal(ids[1 : n + 1], raw_ids[:n])
    assert ids[n + 1] == corpus.vocabulary.special('eos')
    assert mask.sum() == n + 2
    assert not ids[n + 2 :].any()


def test_wrong_number_of_labels_is_an_error(data, tmp_path):
  with pytest.raises(
    errors.UserError,
    match=r'model\.heads\.classify\.labels: is 3, but the data has 2 classes \(low, up\)',
  ):
    loop.train(_experiment(data, labels=3), tmp_path / 'run')


def test_tasks_require_their_head(data):
  x = _experiment(data)
  assert any('needs a language-model head' in m for m in CausalLM().fits(x.model))
  headed = Model(Tokens(260), 16, heads={'lm': Lm()})
  assert [m for m in Classify().fits(headed) if 'has none' in m]
  assert [m for m in Classify().fits(headed) if 'model.heads.lm=none' in m]
