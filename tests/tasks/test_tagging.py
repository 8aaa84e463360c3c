import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.tokenizer.folders import SLOW
from tfm.core.errors import UserError
from tfm.data import Tagged
from tfm.data.tokenizer import Byte, File
from tfm.model.spec import Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.classify import Classify
from tfm.tasks import Tagging, mean
from tfm.tasks.tagging import span_counts

SENTENCES = [
  [('EU', 'B-ORG'), ('rejects', 'O'), ('German', 'B-MISC'), ('call', 'O')],
  [('Peter', 'B-PER'), ('Blackburn', 'I-PER')],
  [('Brussels', 'B-LOC'), ('1996', 'O'), ('in', 'O'), ('West', 'B-LOC'), ('Riding', 'I-LOC')],
]
NAMES = ['O', 'B-LOC', 'I-LOC', 'B-MISC', 'I-MISC', 'B-ORG', 'I-ORG', 'B-PER', 'I-PER']


def _write(path, sentences):
  lines = ['-DOCSTART- -X- O O', '']
  for sentence in sentences:
    lines += [*(f'{word} NN {tag}' for word, tag in sentence), '']
  path.write_text('\n'.join(lines))


@pytest.fixture
def source(tmp_path):
  _write(tmp_path / 'train.conll', SENTENCES * 4)
  _write(tmp_path / 'val.conll', SENTENCES)
  return Tagged(
    files=str(tmp_path / 'train.conll'), val_files=str(tmp_path / 'val.conll'),
    tokenizer=Byte(), length=40, batch=4, cache=str(tmp_path / 'cache'),
  )  # fmt: skip


def _words(batch, vocabulary, names):
  """Return the (tag, text up to the next tag) pairs of each row."""
  found = []
  names_of = ('input_ids', 'attention_mask', 'labels', 'weights')
  for ids, mask, labels, weights in zip(*(batch[n] for n in names_of), strict=True):
    places = [*np.flatnonzero(weights), mask.sum() - 1]
    texts = [vocabulary.decode(ids[a:b]) for a, b in itertools.pairwise(places)]
    tags = [names[label] for label in labels[places[:-1]]]
    found.append([(text.strip(), tag) for text, tag in zip(texts, tags, strict=True)])
  return found


def test_first_token_of_each_word_has_its_tag(source):
  task = Tagging()
  corpus = source.open(task)
  assert corpus.names == NAMES
  (raw,) = corpus.eval_batches('val', 4)
  batch = task.features(raw, corpus)
  assert _words(batch, corpus.vocabulary, NAMES) == [*SENTENCES, []]
  assert corpus.vocabulary.decode(batch['input_ids'][1]).startswith('Peter Blackburn')
  train = task.features(corpus.batch('train', 0, 0), corpus)
  assert {n: (a.shape, a.dtype) for n, a in train.items()} == {
    n: (s.shape, s.dtype) for n, s in task.shapes(None, source).items()
  }
  assert all(row in SENTENCES for row in _words(train, corpus.vocabulary, NAMES))


def test_published_tokenizers_tag_the_first_piece(source, tmp_path):
  (tmp_path / 'bert').mkdir()
  SLOW['bert_cased'](tmp_path / 'bert')
  task = Tagging()
  corpus = dataclasses.replace(source, tokenizer=File(str(tmp_path / 'bert'))).open(task)
  (raw,) = corpus.eval_batches('val', 4)
  batch = task.features(raw, corpus)
  sizes = [len(sentence) for sentence in SENTENCES]
  assert (batch['weights'].sum(1) == [*sizes, 0]).all()
  whole = corpus.vocabulary.prompt('Peter Blackburn')
  np.testing.assert_array_equal(batch['input_ids'][1, : len(whole)], whole)


def test_long_sentences_are_split_and_keep_their_tags(source):
  task = Tagging()
  corpus = dataclasses.replace(source, length=12).open(task)
  tags = []
  for raw in corpus.eval_batches('val', 4):
    batch = task.features(raw, corpus)
    tags += [NAMES[tag] for tag in batch['labels'][batch['weights'] > 0]]
  assert tags == [tag for sentence in SENTENCES for _, tag in sentence]


def _spans(tags):
  """Return the (start, end, kind) of spans of a list of tags, by conlleval's rules."""
  spans, start, kind = [], None, None
  for i, tag in enumerate([*tags, 'O']):
    inside = tag[:2] == 'I-' and tag[2:] == kind
    if start is not None and not inside:
      spans.append((start, i, kind))
      start = kind = None
    if tag != 'O' and not inside:
      start, kind = i, tag[2:]
  return spans


def test_spans_are_counted_as_by_conlleval():
  rng = np.random.default_rng(0)
  predicted, true = rng.integers(0, len(NAMES), (2, 200, 9))
  predicted = np.where(rng.random((200, 9)) < 0.6, true, predicted)
  word = rng.random((200, 9)) < 0.7
  expected = np.zeros(3, int)
  for row in range(200):
    of = lambda tags, row=row: set(_spans([NAMES[t] for t in tags[row][word[row]]]))
    found, gold = of(predicted), of(true)
    expected += (len(found & gold), len(found), len(gold))
  counts = jax.jit(span_counts)(jnp.asarray(predicted), jnp.asarray(true), jnp.asarray(word))
  assert [int(n) for n in counts] == expected.tolist()
  assert expected[0] > 20


def test_f1_and_accuracy_are_over_words_and_spans():
  tags = lambda *names: jnp.array([[NAMES.index(name) for name in names]])
  true = tags('B-PER', 'I-PER', 'O', 'B-LOC', 'O')
  predicted = tags('B-PER', 'I-PER', 'O', 'O', 'B-ORG')
  batch = {'input_ids': true, 'labels': true, 'weights': jnp.ones((1, 5))}
  logits = 20.0 * jax.nn.one_hot(predicted, len(NAMES))
  ratios = Tagging().loss(lambda **inputs: {'logits': logits}, batch, None)
  # One of two predicted spans and one of two true spans is right.
  assert (float(ratios['f1'].sum), float(ratios['f1'].weight)) == (2, 4)
  assert float(mean(*ratios['accuracy'])) == pytest.approx(3 / 5)
  plain = Tagging(spans=False).loss(lambda **inputs: {'logits': 0 * logits}, batch, None)
  assert set(plain) == {'loss', 'loss_nats', 'accuracy'}
  assert float(mean(*plain['loss'])) == pytest.approx(np.log(len(NAMES)))


def test_tagging_needs_tags_and_a_score_of_each_token(source, data):
  task, head = Tagging(), {'lm': None, 'classify': Classify(9, 'each')}
  model = Model(Tokens(300)).with_heads(**head)
  assert not [*task.fits(model), *task.fits_data(source), *task.suits(model, source.open(task))]
  each, lm = task.fits(Model())
  assert 'needs a head that classifies each token' in each
  assert 'Expected model.heads.lm=none' in lm
  assert 'needs a tag for each word' in next(task.fits_data(data))
  labels, spans = task.suits(
    Model(Tokens(300)).with_heads(lm=None, classify=Classify(3, 'each')),
    _renamed(source.open(task)),
  )
  assert 'labels: is 3, but the data has 2 tags (NN, VB)' in labels
  assert 'spans: is True, but the tags are NN, VB' in spans


def _renamed(corpus):
  corpus._names = ['NN', 'VB']
  return corpus


def test_lines_without_the_columns_are_an_error(source, tmp_path):
  (tmp_path / 'train.conll').write_text('one O\n\ntwo\n')
  with pytest.raises(UserError, match=r'line 3 of .* has 1 columns. Expected columns 2 \(word\)'):
    dataclasses.replace(source, columns=(2, -1)).names()
  messages = list(Tagged(columns=(0, 1), val_every=1, isolate=True, end='always').check())
  assert [message.partition(':')[0] for message in messages] == [
    'files', 'end', 'packing', 'columns', 'val_every',
  ]  # fmt: skip
