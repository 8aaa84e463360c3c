"""Advantages, rewards, and the clipped objective against a direct formula."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config
from tfm.core.errors import UserError
from tfm.tasks import Grpo, Task
from tfm.tasks.grpo import advantages
from tfm.tasks.rewards import TABLE, Reward

B, T, V = 4, 6, 7


def test_advantages_by_hand():
  rewards = np.array([1, 0, 0, 1, 1, 0, 0, 0, 0.5, 0.5, 0.5, 0.5], np.float32)
  scaled = advantages(rewards, 4, divide=True)
  np.testing.assert_allclose(scaled[:4], [1, -1, -1, 1])
  np.testing.assert_allclose(scaled[4:8], np.array([3, -1, -1, -1]) / 3**0.5, rtol=1e-6)
  assert not scaled[8:].any()
  np.testing.assert_allclose(advantages(rewards, 4, divide=False)[4:8], [0.75, -0.25, -0.25, -0.25])


REWARDS = [
  ('exact_match', ' 42\n', '42', 1),
  ('exact_match', '42.', '42', 0),
  ('exact_match(after=Answer:)', 'so Answer: no Answer: 42', '42', 1),
  ('exact_match(after=Answer:)', '42', '42', 0),
  ('exact_match(ignore_case=true)', 'Yes', 'yes', 1),
  ('last_number', 'first 7, then 1,234.50 dollars', 'text #### 1234.5', 1),
  ('last_number', '3/6', '0.5', 1),
  ('last_number', '1/0', '1', 0),
  ('last_number', 'no number', '1', 0),
  ('regex', 'it is 42!', '42', 1),
  ('regex', 'it is 421', '42', 0),
  ('tags', '<think>a\nb</think>\n<answer>c</answer>', '', 1),
  ('tags', '<answer>c</answer><think>a</think>', '', 0),
  ('tags', '<think>a</think><think>b</think><answer>c</answer>', '', 0),
  ('operator:concat', '', '', None),
]


@pytest.mark.parametrize(('reward', 'response', 'answer', 'expected'), REWARDS)
def test_rewards(reward, response, answer, expected):
  found = config.override(Grpo(), 'rewards', f'({reward},)').rewards[0]
  if expected is not None:
    assert found.score('', response, answer) == expected
  else:
    assert TABLE.name_of(found) == 'function'
  assert not list(found.check())


def test_function_of_a_file_is_a_reward(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text('def length(prompt, response, answer):\n  return len(response) / 10\n')
  task = config.override(Grpo(), 'rewards', f'({path}:length, exact_match(weight=2))')
  assert task.reward('', 'abc', 'abc') == pytest.approx(2.3)
  assert config.from_json(Task, config.to_json(task)) == task
  with pytest.raises(UserError, match="has no function 'other'"):
    Reward.from_text(f'{path}:other').score('', '', '')
  with pytest.raises(UserError, match='cannot import no_such_module'):
    Reward.from_text('no_such_module:f').score('', '', '')


class Fixed:
  """Forward passes with given logits."""

  def __init__(self, logits, reference):
    self.logits, self.reference = logits, reference

  def __call__(self, **inputs):
    return {'logits': self.logits}

  def model(self, name):
    assert name == 'reference'
    return lambda **inputs: {'logits': self.reference}


@pytest.fixture(scope='module')
def made():
  rng = np.random.default_rng(0)
  weights = np.array([[0, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0], [0] * 6], float)
  batch = {
    'input_ids': np.zeros((B, T), np.int32),
    'labels': rng.integers(0, V, (B, T)),
    'weights': weights,
    'advantages': np.array([1.5, -0.5, -1.0, 0.0]),
    'rewards': np.array([1.0, 0.0, 0.0, 1.0]),
    'examples': np.array([1.0, 1.0, 1.0, 0.0]),
    'old_logprobs': -rng.uniform(1, 3, (B, T)),
  }
  logits, reference = rng.normal(size=(2, B, T, V))
  batch = {n: jnp.asarray(a, jnp.int32 if a.dtype.kind == 'i' else jnp.float32)
           for n, a in batch.items()}  # fmt: skip
  return batch, jnp.asarray(logits, jnp.float32), jnp.asarray(reference, jnp.float32)


def direct(task, batch, logits, reference):
  """Return the loss, token by token."""
  log = lambda z: np.asarray(z - np.log(np.exp(z).sum(-1, keepdims=True)), np.float64)
  p, q = log(np.asarray(logits, np.float64)), log(np.asarray(reference, np.float64))
  total, tokens, clipped = 0.0, 0.0, 0
  for b in range(3):
    inside = np.flatnonzero(batch['weights'][b])
    A = float(batch['advantages'][b])
    for t in inside:
      y = int(batch['labels'][b, t])
      r = np.exp(p[b, t, y] - float(batch['old_logprobs'][b, t]))
      bound = min(max(r, 0.8), 1.28)
      clipped += bound * A < r * A
      d = q[b, t, y] - p[b, t, y]
      value = -min(r * A, bound * A) + 0.1 * (np.exp(d) - d - 1)
      share = {'response': len(inside), 'tokens': 1, 'length': task.tokens}[task.average]
      total += value / share
      tokens += 1
  weight = tokens if task.average == 'tokens' else 3
  return total / weight, clipped / tokens


@pytest.mark.parametrize('average', ['response', 'tokens', 'length'])
def test_loss_matches_the_formula(made, average):
  batch, logits, reference = made
  task = Grpo(beta=0.1, clip_high=0.28, updates=2, tokens=5, average=average)
  found = task.loss(Fixed(logits, reference), batch, None)
  mean = {name: float(r.sum / r.weight) for name, r in found.items()}
  value, clipped = direct(task, batch, logits, reference)
  assert mean['loss'] == pytest.approx(value, rel=1e-5)
  assert mean['clipped'] == pytest.approx(clipped)
  assert 0 < clipped < 1
  assert mean['reward'] == pytest.approx(1 / 3)
  assert mean['response_tokens'] == 3


def test_gradient_of_fresh_samples_is_the_policy_gradient(made):
  batch, logits, reference = made
  batch = {name: value for name, value in batch.items() if name != 'old_logprobs'}
  task = Grpo(beta=0.0)

  def loss(logits):
    found = task.loss(Fixed(logits, reference), batch, None)
    return found['loss'].sum / found['loss'].weight

  def surrogate(logits):
    log_p = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_p, batch['labels'][..., None], -1)[..., 0]
    lengths = jnp.maximum(batch['weights'].sum(1), 1)
    each = (chosen * batch['weights']).sum(1) / lengths
    return -(batch['advantages'] * each)[:3].mean()

  np.testing.assert_allclose(jax.grad(loss)(logits), jax.grad(surrogate)(logits), atol=1e-7)


def test_micro_batches_add_up_to_the_batch(made):
  batch, logits, reference = made
  task = Grpo(beta=0.1, updates=2)
  part = lambda s: task.loss(
    Fixed(logits[s], reference[s]), jax.tree.map(lambda a: a[s], batch), None
  )
  whole, one, two = part(slice(0, 4)), part(slice(0, 2)), part(slice(2, 4))
  jax.tree.map(lambda w, a, b: np.testing.assert_allclose(w, a + b, rtol=1e-5), whole, one, two)


def test_messages():
  task = Grpo(rewards=(), group=1, temperature=0.0, beta=-1.0, clip=1.0)
  assert list(task.check()) == [
    'group: is 1. Expected 2 or more.',
    'rewards: is empty. Expected at least one, such as exact_match.',
    'temperature: is 0.0. Expected more than 0, as a group needs variety.',
    'beta: is -1.0. Expected 0 or more.',
    'clip: is 1.0. Expected a number between 0 and 1.',
  ]
  assert not dataclasses.replace(Grpo(), beta=0.0).models('folder')
