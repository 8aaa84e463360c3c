import dataclasses

import numpy as np
import pytest

from tests.tasks.test_span_corruption import restored
from tfm.core.config import validate
from tfm.core.errors import ConfigError
from tfm.data import stateless_rng
from tfm.tasks import Denoiser, DenoisingMixture
from tfm.tasks.denoising_mixture import UL2

#: The mode, the removed tokens and the spans of 512 tokens for UL2's denoisers.
COUNTS = [
  ('nlu', 77, 26), ('nlu', 77, 10), ('s2s', 128, 1), ('nlg', 256, 85), ('nlg', 256, 32),
  ('nlg', 77, 1), ('nlg', 256, 4),
]  # fmt: skip


def test_seven_denoisers_of_ul2():
  assert [(d.mode, *d.counts(512)) for d in UL2] == COUNTS
  # T5's lengths, with a mode token.
  raw = (568, 588, 512, 766, 908, 600, 1006)
  assert [d.encoded(n) for d, n in zip(UL2, raw, strict=True)] == [
    (513, 114), (513, 100), (387, 130), (513, 512), (513, 512), (513, 92), (513, 512),
  ]  # fmt: skip


@pytest.fixture(scope='module')
def opened(data):
  task = DenoisingMixture()
  return task, data.open(task)


def test_denoisers_have_equal_shares_of_the_examples():
  n = 70_000
  drawn = DenoisingMixture().draw(stateless_rng.mix(0, np.arange(n)))
  counts = np.bincount(drawn, minlength=7)
  assert (abs(counts - n / 7) < 4 * (n * 6 / 49) ** 0.5).all()
  weighted = DenoisingMixture(denoisers=(Denoiser(weight=3.0), Denoiser(0.5, weight=1.0)))
  share = weighted.draw(stateless_rng.mix(0, np.arange(n))).mean()
  assert abs(share - 0.25) < 4 * (0.25 * 0.75 / n) ** 0.5


def test_each_example_restores_its_text(opened):
  task, corpus = opened
  vocabulary, seen = corpus.vocabulary, set()
  for raw in [corpus.batch('train', 0, 0), *corpus.eval_batches('val', 32)]:
    batch, drawn = task.features(raw, corpus), task.draw(raw['key'])
    for row in np.flatnonzero((raw['segments'] > 0).sum(1) > 1):
      text = raw['tokens'][row][raw['segments'][row] > 0]
      inputs = batch['input_ids'][row][batch['segment_ids'][row] > 0]
      labels = batch['labels'][row][batch['weights'][row] > 0]
      denoiser = UL2[drawn[row]]
      assert inputs[0] == vocabulary.special(denoiser.mode)
      assert inputs[-1] == labels[-1] == vocabulary.eos
      assert (len(inputs), len(labels)) == denoiser.encoded(len(text))
      assert restored(inputs[1:-1], labels[:-1], vocabulary) == text.tolist()
      if denoiser.span is None:
        assert inputs[-2] == vocabulary.sentinels[0]
        split = len(text) - max(1, round(len(text) / 4))
        np.testing.assert_array_equal(inputs[1:-2], text[:split])
        np.testing.assert_array_equal(labels[1:-1], text[split:])
      seen.add(int(drawn[row]))
  assert seen == set(range(7))


def test_joined_sequences_predict_the_targets_after_the_inputs(data):
  task, apart = DenoisingMixture(joined=True), DenoisingMixture()
  corpus = data.open(task)
  assert 62 <= task.lengths(64)[0] <= 64
  for raw in [corpus.batch('train', 0, 0), *corpus.eval_batches('val', 64)]:
    batch, whole = task.features(raw, corpus), apart.features(raw, corpus)
    assert batch['input_ids'].shape == (len(raw['tokens']), task.lengths(64)[0])
    for row in range(len(raw['tokens'])):
      inputs = whole['input_ids'][row][whole['segment_ids'][row] > 0]
      labels = whole['labels'][row][whole['weights'][row] > 0]
      assert batch['prefix_mask'][row].sum() == len(inputs)
      assert batch['labels'][row][batch['weights'][row] > 0].tolist() == labels.tolist()
      read = [*inputs, *labels[:-1]]
      assert batch['input_ids'][row][: len(read)].tolist() == read


def test_mixture_needs_targets_that_are_hidden(model):
  task, joined = DenoisingMixture(), DenoisingMixture(joined=True)
  assert not list(task.fits(model(encoder=object())))
  assert not list(joined.fits(model()))
  assert 'joined: is False, but the model has no encoder' in next(task.fits(model()))
  assert 'joined: is True, but the model has an encoder' in next(
    joined.fits(model(encoder=object()))
  )
  for leaks in (
    task.fits(model(encoder=object(), causal=False)),
    joined.fits(model(ahead=True)),
  ):
    assert 'needs a decoder that is causal in the targets' in next(leaks)


def test_mixture_cannot_isolate_documents(data):
  isolate, short = DenoisingMixture().fits_data(dataclasses.replace(data, isolate=True, length=3))
  assert 'data.isolate: is True, but denoising_mixture cannot isolate' in isolate
  assert 'data.length: is 3, too short' in short
  assert not list(DenoisingMixture().fits_data(dataclasses.replace(data, length=4)))
  assert not list(DenoisingMixture(joined=True).fits_data(dataclasses.replace(data, length=6)))


def test_impossible_denoisers_are_an_error():
  with pytest.raises(ConfigError) as error:
    validate(DenoisingMixture(denoisers=(Denoiser(1.0, 0.5, weight=0.0),)))
  for message in ('rate: is 1.0.', 'span: is 0.5.', 'weight: is 0.0.'):
    assert message in str(error.value)
  assert list(DenoisingMixture(denoisers=()).check()) == [
    'denoisers: is empty. Expected one or more.'
  ]
