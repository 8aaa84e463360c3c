import dataclasses

import numpy as np
import pytest

from tfm.core.config import validate
from tfm.core.errors import ConfigError
from tfm.data import stateless_rng
from tfm.tasks import SpanCorruption
from tfm.tasks.span_corruption import parts


@pytest.mark.parametrize(
  ('rate', 'span', 'length', 'raw', 'target'),
  [
    (0.15, 3.0, 512, 568, 114),
    (0.15, 8.0, 512, 588, 100),
    (0.5, 3.0, 512, 766, 512),
    (0.5, 8.0, 512, 908, 512),
    (0.15, 64.0, 512, 600, 92),
    (0.5, 64.0, 512, 1006, 512),
    (0.15, 3.0, 1024, 1137, 229),
  ],
)
def test_lengths_match_t5(rate, span, length, raw, target):
  task = SpanCorruption(rate=rate, span=span)
  assert task.window(length) == raw
  assert task.lengths(length) == (length, target)


@pytest.mark.parametrize('length', range(4, 100, 7))
def test_inputs_have_exactly_the_length(length):
  task = SpanCorruption()
  assert task.encoded(task.window(length))[0] == length


def restored(inputs, labels, vocabulary):
  """Return the text of inputs and targets without their end tokens."""
  order = {int(s): i for i, s in enumerate(vocabulary.sentinels)}
  spans, out = {}, []
  for token in labels.tolist():
    if token in order:
      spans[token] = current = []
    else:
      current.append(token)
  for token in inputs.tolist():
    out += spans[token] if token in order else [token]
  assert [order[s] for s in spans] == list(range(len(spans)))
  return out


@pytest.mark.parametrize(('rate', 'span'), [(0.15, 3.0), (0.5, 3.0), (0.5, 8.0)])
def test_inserting_the_spans_restores_the_text(tmp_path, data, rate, span):
  (tmp_path / 'a.txt').write_text('the text of a single file that is long enough ' * 99)
  task = SpanCorruption(rate=rate, span=span)
  corpus = dataclasses.replace(data, files=str(tmp_path / 'a.txt'), cache=str(tmp_path)).open(task)
  for raw in [corpus.batch('train', 0, 0), *corpus.eval_batches('val', 32)]:
    batch = task.features(raw, corpus)
    for row, (tokens, segments) in enumerate(zip(raw['tokens'], raw['segments'], strict=True)):
      inputs = batch['input_ids'][row][batch['segment_ids'][row] > 0]
      labels = batch['labels'][row][batch['weights'][row] > 0]
      if segments.any():
        assert inputs[-1] == labels[-1] == corpus.vocabulary.eos
        assert (
          restored(inputs[:-1], labels[:-1], corpus.vocabulary) == tokens[segments > 0].tolist()
        )
      else:
        assert not len(inputs)


def test_sentinels_take_the_last_ids_in_descending_order(data):
  task = SpanCorruption()
  corpus = data.open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert (batch['input_ids'][:, 0] < corpus.vocabulary.base + 1).all()
  assert (batch['labels'][:, 0] == corpus.vocab - 1).all()
  assert corpus.vocabulary.sentinels.tolist() == [
    corpus.vocab - 1 - i for i in range(len(corpus.vocabulary.sentinels))
  ]


def test_decoder_reads_its_labels_shifted_right_from_padding(data):
  task = SpanCorruption()
  corpus = data.open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert (batch['decoder_input_ids'][:, 0] == corpus.vocabulary.pad).all()
  np.testing.assert_array_equal(batch['decoder_input_ids'][:, 1:], batch['labels'][:, :-1])
  assert batch['weights'].all()


def test_all_partitions_are_equally_likely():
  n = 20_000
  got = parts(stateless_rng.mix(0, np.arange(n)), 'test', 5, 3)
  assert (got.sum(1) == 5).all()
  assert got.min() == 1
  _, counts = np.unique(got, axis=0, return_counts=True)
  assert len(counts) == 6  # C(4, 2)
  assert (abs(counts - n / 6) < 4 * (n / 6 * 5 / 6) ** 0.5).all()


@pytest.mark.parametrize('n', [2, 3, 4, 5, 20, 101])
def test_removed_share_is_the_rate_within_one_token(n):
  noise, spans = SpanCorruption().counts(n)
  assert abs(noise / n - 0.15) <= 1 / n
  assert 1 <= spans <= min(noise, n - noise)


def test_span_corruption_needs_an_encoder_and_a_causal_decoder(model):
  task = SpanCorruption()
  assert not list(task.fits(model(encoder=object())))
  assert 'the model has no encoder' in next(task.fits(model()))
  assert 'needs a causal decoder' in next(task.fits(model(encoder=object(), causal=False)))


def test_span_corruption_cannot_isolate_documents(data):
  task = SpanCorruption()
  assert not list(task.fits_data(data))
  isolate, short = task.fits_data(dataclasses.replace(data, isolate=True, length=3))
  assert 'data.isolate: is True, but span_corruption cannot isolate' in isolate
  assert 'data.length: is 3' in short


def test_impossible_spans_are_an_error():
  with pytest.raises(ConfigError) as error:
    validate(SpanCorruption(rate=1.0, span=0.5))
  assert 'rate: is 1.0. Expected a share between 0 and 1.' in str(error.value)
  assert 'span: is 0.5. Expected a mean length of 1 or more.' in str(error.value)
