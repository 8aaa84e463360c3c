"""Lengths and batch sizes that change at given steps."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.core import config
from tfm.core.config import override
from tfm.core.errors import UserError
from tfm.data import Mixture, Text
from tfm.tasks import MaskedLM
from tfm.train import Experiment, loop, speed
from tfm.train.build import build
from tfm.train.curriculum import Curriculum, Phases
from tfm.train.metrics import read

ONE = jax.devices()[:1]
CURRICULUM = Curriculum(length=((0, 8), (2, 16)), batch=((0, 4), (4, 8)))


@pytest.fixture(scope='module')
def x(tmp_path_factory):
  x = experiment(tmp_path_factory.mktemp('curriculum'))
  return dataclasses.replace(x, curriculum=CURRICULUM)


def _phases(x):
  return Phases(x, x.data.open(x.task))


def _same(a, b):
  return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_shape_of_a_batch_is_a_function_of_the_step(x):
  phases = _phases(x)
  shapes = [phases.batch('train', 0, step)['tokens'].shape for step in range(6)]
  # One token more, because the last one is only a label.
  assert shapes == [(4, 9), (4, 9), (4, 17), (4, 17), (8, 17), (8, 17)]
  assert phases.batch('train', 0, 10**6)['tokens'].shape == (8, 17)


@pytest.mark.parametrize('hosts', [2, 4])
def test_batches_are_equal_on_all_hosts_and_after_a_restart(x, hosts):
  whole, again = _phases(x), _phases(x)
  for step in (5, 0, 3, 2):
    n = whole.at(step).data.batch // hosts
    shares = [again.batch('train', 1, step, slice(h * n, (h + 1) * n)) for h in range(hosts)]
    joined = {k: np.concatenate([s[k] for s in shares]) for k in shares[0]}
    assert _same(joined, whole.batch('train', 1, step))


def test_larger_batch_continues_the_epoch(x):
  x = dataclasses.replace(x, curriculum=Curriculum(batch=((0, 2), (3, 4), (5, 8))))
  phases = _phases(x)
  samples = np.concatenate([phases.batch('train', 0, step)['sample'] for step in range(8)])
  assert len(set(samples.tolist())) == len(samples) == 3 * 2 + 2 * 4 + 3 * 8
  # Less than a batch is left out at each change.
  assert samples.max() < len(samples) + 4 + 8


def test_phase_of_one_length_equals_a_run_of_that_length(x):
  short = dataclasses.replace(x.data, length=8, batch=4).open(x.task)
  assert _same(_phases(x).batch('train', 3, 1), short.batch('train', 3, 1))


def test_run_with_a_curriculum_resumes_in_a_later_phase(x, tmp_path):
  x = dataclasses.replace(x, curriculum=Curriculum(length=((0, 8), (3, 16))))
  whole = loop.train(x, tmp_path / 'whole', devices=ONE)
  lines = read(tmp_path / 'whole' / 'metrics.jsonl')
  assert [r['step'] for r in lines if 'loss_nats' in r] == [1, 2, 3, 4, 5, 6]
  loop.train(dataclasses.replace(x, steps=4), tmp_path / 'again', devices=ONE)
  again = loop.train(x, tmp_path / 'again', devices=ONE)
  assert jax.tree.all(jax.tree.map(np.array_equal, whole.state, again.state))
  assert whole.scores == again.scores


def test_plan_and_evaluation_use_the_largest_batch(x):
  built = build(x, ONE)
  assert built.batch.shapes['input_ids'].shape == (8, 16)


def test_throughput_counts_the_tokens_of_every_phase(x):
  measured = speed.Speed(x, ONE)
  measured.read(0, now=0.0)
  assert measured.read(6, now=2.0)['tokens_per_s'] == (2 * 32 + 2 * 64 + 2 * 128) / 2
  assert measured.read(8, now=3.0)['tokens_per_s'] == 2 * 128
  plain = speed.Speed(dataclasses.replace(x, curriculum=Curriculum()), ONE)
  plain.read(0, now=0.0)
  assert plain.read(6, now=2.0)['tokens_per_s'] == 6 * 128 / 2


def test_vocabulary_of_every_phase_is_that_of_the_longest(x):
  x = dataclasses.replace(x, task=MaskedLM())
  dataset = x.data.open(x.task)
  raw = Phases(x, dataset).batch('train', 0, 0)
  assert (x.task.features(raw, dataset)['input_ids'] == dataset.vocabulary.mask).any()


def test_mixture_follows_a_curriculum(x):
  part = Text(files=x.data.files)
  shared = {name: getattr(x.data, name) for name in ('tokenizer', 'length', 'batch', 'cache')}
  x = dataclasses.replace(x, data=Mixture(parts=(part, part), **shared))
  assert not list(x.check())
  assert _phases(x).batch('train', 0, 0)['tokens'].shape == (4, 9)


def test_curriculum_is_a_flag_and_is_stored(x):
  set_by_flag = override(Experiment(), 'curriculum.length', '((0, 64), (1000, 256))')
  assert set_by_flag.curriculum.length == ((0, 64), (1000, 256))
  assert config.from_json(Experiment, config.to_json(x)) == x


@pytest.mark.parametrize(
  ('curriculum', 'message'),
  [
    (Curriculum(length=((1, 16),)), 'curriculum.length: begins at the steps [1]. Expected'),
    (Curriculum(batch=((0, 4), (0, 8))), 'curriculum.batch: begins at the steps [0, 0].'),
    (Curriculum(length=((0, 0), (1, 16))), 'curriculum.length: has the values [0, 16].'),
    (Curriculum(length=((0, 8),)), 'curriculum.length: the largest is 8, and data.length is 16.'),
    (Curriculum(batch=((0, 9),)), 'curriculum.batch: the largest is 9, and data.batch is 8.'),
  ],
)
def test_wrong_curricula_are_errors(x, curriculum, message):
  found = config.violations(dataclasses.replace(x, curriculum=curriculum))
  assert any(line.startswith(message) for line in found), found


def test_every_batch_of_a_curriculum_must_be_divisible(x):
  x = override(
    dataclasses.replace(x, curriculum=Curriculum(batch=((0, 3), (1, 8)))), 'optim.accumulate', '2'
  )
  (message,) = config.violations(x)
  assert message.startswith('curriculum: from step 0: data.batch: 3 is not divisible by')


def test_executable_and_curriculum_are_an_error(x, tmp_path):
  with pytest.raises(UserError, match=r'curriculum: is set, and an executable is for batches of'):
    loop.train(x, tmp_path, devices=ONE, executable_file=tmp_path / 'step')
