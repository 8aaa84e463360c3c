import dataclasses
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core.config import validate
from tfm.core.errors import ConfigError
from tfm.data.tokenizer import Byte
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.parts.context import Run
from tfm.tasks import ReplacedToken, mean
from tfm.train.forward import Forward

_PATH = pathlib.Path(__file__).parents[2] / 'configs' / 'electra.py'


@pytest.fixture(scope='module')
def electra():
  spec = importlib.util.spec_from_file_location('electra', _PATH)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture(scope='module')
def case(data, electra):
  """A task, a small model, its parameters, a batch, and the corpus."""
  spec = electra._model(1, 16, 4, 8)
  spec = dataclasses.replace(spec, embed=dataclasses.replace(spec.embed, vocab=260))
  data = dataclasses.replace(data, tokenizer=Byte(), length=16, batch=8)
  task = ReplacedToken()
  corpus = data.open(task)
  assert not [*task.fits(spec), *task.fits_data(data), *task.suits(spec, corpus)]
  batch = jax.tree.map(jnp.asarray, task.features(corpus.batch('train', 0, 0), corpus))
  params = transformer.init(spec, jax.random.key(0))
  return task, spec, params, batch, corpus


def test_electra_config_is_valid_and_shares_the_token_table(electra):
  experiment = validate(electra.get_config('base'))
  params = transformer.param_shapes(experiment.model, Run())
  assert params['embed']['table'].shape == (30_522, 768)
  assert 'table' not in params['generator']['embed']
  with pytest.raises(ConfigError, match='unknown size'):
    electra.get_config('tiny')


def test_generator_and_detector_are_both_trained(case):
  task, spec, params, batch, _ = case

  def loss(params):
    forward = Forward(spec, params, Run(), None)
    ratios = task.loss(forward, batch, jax.random.key(1))
    return mean(*ratios['loss']), ratios

  (value, ratios), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
  nats = {name: float(mean(*ratio)) for name, ratio in ratios.items()}
  expected = nats['loss_nats'] + 50 * nats['detection_nats']
  assert float(value) == pytest.approx(expected, rel=1e-5)
  assert nats['loss_nats'] == pytest.approx(np.log(spec.vocab), rel=0.1)
  assert nats['detection_nats'] == pytest.approx(np.log(2), rel=0.5)
  count = float(batch['weights'].sum())
  assert 0 < float(ratios['replaced'].sum) <= count
  for tree in (grads['generator'], grads['embed'], grads['classifier']):
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(tree))
    assert any(g.any() for g in jax.tree.leaves(tree))


def _fixed(batch, generator, detector):
  """A forward function with fixed logits, which records its inputs."""
  calls = []

  def forward(tower, **inputs):
    calls.append((tower, inputs))
    if tower == 'generator':
      return {'generator_logits': generator}
    return {'logits': detector[..., None]}

  return forward, calls


def test_detector_reads_samples_at_the_chosen_places(case):
  task, spec, _, batch, _ = case
  chosen, labels = np.asarray(batch['weights']) > 0, np.asarray(batch['labels'])
  # The generator always says 7, and the detector knows it.
  generator = jnp.full((*labels.shape, spec.vocab), -1e9).at[..., 7].set(0.0)
  right = jnp.where(chosen & (labels != 7), 20.0, -20.0)
  forward, calls = _fixed(batch, generator, right)
  ratios = task.loss(forward, batch, None)
  (first, given), (second, read) = calls
  assert (first, second) == ('generator', '')
  assert set(given) >= {'generator_input_ids', 'generator_segment_ids'}
  assert 'generator_input_ids' not in read
  np.testing.assert_array_equal(given['generator_input_ids'], batch['input_ids'])
  np.testing.assert_array_equal(read['input_ids'], np.where(chosen, 7, labels))
  assert float(mean(*ratios['detection_nats'])) == pytest.approx(0, abs=1e-6)
  assert float(mean(*ratios['detection_accuracy'])) == 1
  assert float(ratios['replaced'].sum) == (chosen & (labels != 7)).sum()
  sums = {name: (float(r.sum), float(r.weight)) for name, r in ratios.items()}
  assert {'detection_accuracy', 'loss_nats'} <= set(task.score(sums))


def test_samples_follow_the_distribution_of_the_generator(case):
  task, spec, _, batch, _ = case
  shape = batch['labels'].shape
  generator = jnp.full((*shape, spec.vocab), -1e9).at[..., 7].set(0.0).at[..., 9].set(np.log(3.0))
  batch = batch | {'weights': jnp.ones(shape)}
  found = []
  for seed in range(20):
    forward, calls = _fixed(batch, generator, jnp.zeros(shape))
    task.loss(forward, batch, jax.random.key(seed))
    found.append(np.asarray(calls[1][1]['input_ids']))
  n, nines = np.size(found), (np.array(found) == 9).sum()
  assert abs(nines - 0.75 * n) < 4 * (n * 0.75 * 0.25) ** 0.5


def test_replaced_token_needs_a_generator_and_a_score():
  generator, score = ReplacedToken().fits(Model())
  assert 'needs a tower generator with a language-model head' in generator
  assert 'needs a head with a score of each token' in score
  assert list(ReplacedToken(detection=-1.0, loss_chunk=8).check()) == [
    'detection: is -1.0. Expected 0 or more.',
    'loss_chunk: is 8, but samples need whole logits. Expected none or 0.',
  ]
