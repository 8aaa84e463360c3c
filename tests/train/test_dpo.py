"""Direct preference optimisation against direct formulas, and runs from a base model."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.test_preferences import write
from tests.train import tiny
from tfm.cli.train import read_model, warm_start
from tfm.core import config
from tfm.data import Preferences, Text
from tfm.data.tokenizer import Byte
from tfm.hub.save import save
from tfm.model import transformer
from tfm.tasks import Dpo
from tfm.train import loop
from tfm.train.forward import Forward

PAIR = {'prompt': 'what?', 'chosen': ' yes.', 'rejected': ' no, never.'}


def model(tmp_path):
  x = tiny.experiment(tmp_path / 'text')
  return config.override(config.override(x, 'model..dropout', '0'), 'model.embed.vocab', '257')


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  """Return an experiment on preferences, and the parameters of its reference."""
  folder = tmp_path_factory.mktemp('dpo')
  x = model(folder)
  params = transformer.init(x.model, jax.random.key(3))
  save(x.model, params, folder / 'base')
  files = write(folder / 'p.jsonl', [PAIR | {'prompt': f'{i} what?'} for i in range(8)])
  data = Preferences(files=files, val_files=files, tokenizer=Byte(), length=20, batch=4)
  x = dataclasses.replace(
    x, data=data, task=Dpo(beta=0.5), init_from=str(folder / 'base'), steps=4, eval_every=4
  )
  return config.override(x, 'optim.schedule', 'constant'), params


@pytest.fixture(scope='module')
def batch(base):
  data = base[0].data.open(base[0].task)
  return jax.tree.map(jnp.asarray, base[0].task.features(data.batch('train', 0, 0), data))


def loss(x, params, reference, batch, **fields):
  forward = Forward(x.model, params, x.run(), models={'reference': (x.model, reference)})
  return dataclasses.replace(x.task, **fields).loss(forward, batch, None)


def test_equal_models_lose_ln_2_with_a_tie(base, batch):
  x, params = base
  found = jax.jit(lambda p: loss(x, p, p, batch))(params)
  mean = {name: float(r.sum / r.weight) for name, r in found.items()}
  assert mean['loss'] == pytest.approx(math.log(2), rel=1e-6)
  assert (mean['accuracy'], mean['margin']) == (0.5, 0.0)
  assert found['loss'].weight == 4


def logprobs(x, params, batch):
  """Return log p of the responses, by a loop over tokens in float64."""
  total = np.zeros((4, 2))
  for j in range(2):
    out = transformer.apply(x.model, params, input_ids=batch['input_ids'][:, j])['logits']
    z = np.asarray(out, np.float64)
    log = z - np.log(np.exp(z).sum(-1, keepdims=True))
    for b in range(4):
      for t in range(z.shape[1]):
        if batch['weights'][b, j, t]:
          total[b, j] += log[b, t, int(batch['labels'][b, j, t])]
  return total


def test_losses_and_gradient_match_their_formulas(base, batch):
  x, reference = base
  params = transformer.init(x.model, jax.random.key(4))
  p, r = logprobs(x, params, batch), logprobs(x, reference, batch)
  h = (p - r)[:, 0] - (p - r)[:, 1]
  sigmoid = lambda z: 1 / (1 + np.exp(-z))
  expected = {
    ('sigmoid', 0.0): -np.log(sigmoid(0.5 * h)),
    ('sigmoid', 0.1): -0.9 * np.log(sigmoid(0.5 * h)) - 0.1 * np.log(sigmoid(-0.5 * h)),
    ('ipo', 0.0): (h - 1) ** 2,
    ('hinge', 0.0): np.maximum(0, 1 - 0.5 * h),
  }
  for (kind, smoothing), value in expected.items():
    found = Dpo(beta=0.5, objective=kind, label_smoothing=smoothing).pair_loss(jnp.asarray(0.5 * h))
    np.testing.assert_allclose(found, value, rtol=1e-5)

  value, grad = jax.value_and_grad(lambda p: loss(x, p, reference, batch)['loss'].sum)(params)
  np.testing.assert_allclose(value, expected['sigmoid', 0.0].sum(), rtol=1e-5)
  # The gradient is -beta sigmoid(-beta h) (grad log p(chosen) - grad log p(rejected)).
  weight = jnp.asarray(-0.5 * sigmoid(-0.5 * h), jnp.float32)

  def surrogate(params):
    policy = x.task._logprobs(Forward(x.model, params, x.run()), batch)
    return jnp.sum(weight * (policy[:, 0] - policy[:, 1]))

  direct = jax.grad(surrogate)(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), grad, direct)


def test_sums_are_float32_in_bfloat16_runs(base, batch):
  x, params = base
  x = config.override(x, 'precision.compute', 'bfloat16')
  assert {r.sum.dtype for r in loss(x, params, params, batch).values()} == {jnp.dtype('float32')}


def test_pairs_are_learnt_from_the_starting_model(base, tmp_path):
  x, _ = base
  x = config.override(config.override(x, 'optim.accumulate', '2'), 'steps', '8')
  scores = loop.train(
    x, tmp_path / 'run', devices=jax.devices()[:2], warm_start=warm_start, read_model=read_model
  ).scores
  assert scores['val_accuracy'] == 1
  assert scores['val_loss'] < 0.6
  assert scores['val_margin'] > 0.1


def test_messages(base):
  x = dataclasses.replace(base[0], init_from='')
  assert list(x.check()) == [
    'task.reference: is empty. dpo compares the trained model with this one. Expected the folder '
    'of a model, or init_from, which task.reference defaults to.'
  ]
  assert config.from_json(type(x), config.to_json(x)) == x
  assert list(Dpo(beta=0.0, label_smoothing=0.5, objective='ipo').check()) == [
    'beta: is 0.0. Expected more than 0.',
    'label_smoothing: is 0.5. Expected 0 to below 0.5.',
    'label_smoothing: has no effect on objective=ipo. Expected 0.',
  ]
  assert list(x.task.fits_data(Text())) == [
    'task: dpo needs pairs of responses. Expected data=preferences.'
  ]
