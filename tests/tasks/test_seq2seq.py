"""Sequence to sequence: arrays, losses of targets only, and packing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.data import Pairs
from tfm.data.tokenizer import Char
from tfm.model.transformer import apply
from tfm.tasks import Seq2Seq

LENGTH = 12


@pytest.fixture
def data(tmp_path):
  lines = ['ab\tcab', *(f'{"ab" * (i % 4 + 1)}\t{"c" * (i % 7 + 1)}' for i in range(20))]
  (tmp_path / 'a.tsv').write_text('\n'.join(lines))
  return Pairs(
    files=str(tmp_path / 'a.tsv'), tokenizer=Char(), length=LENGTH, target_length=LENGTH - 2,
    batch=4, val_every=0, cache=str(tmp_path / 'cache'),
  )  # fmt: skip


def _first(data, task):
  corpus = data.open(task)
  raw = next(corpus.eval_batches('train', 4))
  features = task.features(raw, corpus)
  return corpus.vocabulary, {name: array[0].tolist() for name, array in features.items()}


def test_decoder_reads_the_target_behind_a_start_token(data):
  v, row = _first(data, Seq2Seq())
  a, b, c = v.encode('abc').tolist()
  eos, pad = v.eos, v.pad
  assert row['input_ids'] == [a, b, eos, *[pad] * (LENGTH - 3)]
  assert row['segment_ids'] == [1, 1, 1, *[0] * (LENGTH - 3)]
  rest = [0] * (LENGTH - 6)
  assert row['decoder_input_ids'] == [pad, c, a, b, *[pad] * len(rest)]
  assert row['labels'] == [c, a, b, eos, *[pad] * len(rest)]
  assert row['decoder_segment_ids'] == row['weights'] == [1, 1, 1, 1, *rest]
  _, row = _first(data, Seq2Seq(start=5))
  assert row['decoder_input_ids'][:2] == [5, c]


@pytest.mark.parametrize('separator', ['', 'bb'])
def test_joined_sequence_predicts_the_target_only(data, separator):
  task = Seq2Seq(joined=True, separator=separator)
  v, row = _first(data, task)
  a, b, c = v.encode('abc').tolist()
  between = [b, b] if separator else [v.special('sep')]
  source, target = [a, b, *between], [c, a, b, v.eos]
  rest = [0] * (2 * LENGTH - 2 - len(source) - len(target))
  assert row['input_ids'] == [*source, *target, *rest]
  assert row['labels'] == [*source[1:], *target, *rest, 0]
  assert row['prefix_mask'] == [1] * len(source) + [0] * (len(target) + len(rest))
  # The separator predicts the first token of the target.
  assert row['weights'] == [0] * (len(source) - 1) + [1] * len(target) + [0, *rest]
  assert task.prompt(v, 'ab', LENGTH) == source
  assert task.prompt(v, 'ab' * 20, 6) == [*v.encode('ababab')[: 6 - len(between)], *between]


def _sums(data, task, spec):
  corpus, params, sums = data.open(task), weights(spec), np.zeros(2)
  forward = lambda **inputs: apply(spec, params, **inputs)
  loss = jax.jit(lambda batch: task.loss(forward, batch, None)['loss'])
  for raw in corpus.eval_batches('train', 4):
    sums += np.array(loss(jax.tree.map(jnp.asarray, task.features(raw, corpus))))
  return sums


@pytest.mark.parametrize('name', ['encdec', 'encdec_t5'])
def test_packed_pairs_have_the_loss_of_separate_pairs(data, name):
  assert not list(Seq2Seq().fits(MODELS[name]))
  packed = dataclasses.replace(data, packing='best_fit')
  assert packed.open(Seq2Seq()).eval_steps('train', 1) < 18
  alone, together = (_sums(d, Seq2Seq(), MODELS[name]) for d in (data, packed))
  np.testing.assert_allclose(together, alone, rtol=1e-5)
  assert alone[1] == sum(len(pair.target) + 1 for pair in data.pairs('train'))


@pytest.mark.parametrize('name', ['learned', 'prefix'])
def test_loss_of_joined_sequence_is_that_of_its_tokens(data, name):
  spec, task = MODELS[name], Seq2Seq(joined=True)
  params = weights(spec)
  v, pairs = data.open(task).vocabulary, list(data.pairs('train'))
  ids, prefix = np.zeros((2, len(pairs), 22), np.int32)
  predicted = []
  for row, pair in enumerate(pairs):
    source = task.prompt(v, pair.source, LENGTH)
    target = [*v.encode(pair.target).tolist(), v.eos]
    ids[row, : len(source) + len(target)] = [*source, *target]
    prefix[row, : len(source)] = 1
    predicted += [(row, i, token) for i, token in enumerate(target, len(source) - 1)]
  forward = jax.jit(lambda ids, prefix: apply(spec, params, input_ids=ids, prefix_mask=prefix))
  log_p = jax.nn.log_softmax(forward(ids, prefix)['logits'])
  total = -sum(float(log_p[where]) for where in predicted)
  np.testing.assert_allclose(_sums(data, task, spec)[0], total, rtol=1e-5)


def test_models_and_fields_that_do_not_fit_are_errors(data):
  assert 'Expected task.joined=True for a decoder' in next(Seq2Seq().fits(MODELS['learned']))
  assert 'Expected False' in next(Seq2Seq(joined=True).fits(MODELS['encdec']))
  assert not list(Seq2Seq(joined=True).fits(MODELS['prefix']))
  packed = dataclasses.replace(data, packing='best_fit')
  assert 'joined sequences are not packed' in next(Seq2Seq(joined=True).fits_data(packed))
  assert [len(list(task.check())) for task in (
    Seq2Seq(start=-1), Seq2Seq(joined=True, start=1), Seq2Seq(separator='x'), Seq2Seq(),
  )] == [1, 1, 1, 0]  # fmt: skip
  wrong = list(Seq2Seq(start=99).suits(MODELS['encdec'], data.open(Seq2Seq())))
  assert wrong == ['task.start: is 99, but the model has 61 tokens. Expected a token id below.']
  with pytest.raises(UserError, match=r'data.target_length: 1 tokens do not fit text and'):
    dataclasses.replace(data, target_length=1).open(Seq2Seq())
