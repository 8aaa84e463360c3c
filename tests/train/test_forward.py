import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train.tiny import experiment
from tfm.model import transformer
from tfm.model.spec import Block, Segment
from tfm.parts.ffn import Glu, Moe
from tfm.parts.mixer import Attention
from tfm.parts.router import TopK
from tfm.tasks import CausalLM, Ratio
from tfm.train import step as step_lib
from tfm.train.forward import Forward

IDS = jnp.arange(16)[None] % 7


@pytest.fixture(scope='module')
def x(tmp_path_factory):
  x = experiment(tmp_path_factory.mktemp('forward'))
  block = Block(Attention(4, 2), Moe(4, TopK(k=2, balance=0.1), Glu(16)), dropout=0.3)
  return dataclasses.replace(
    x, model=dataclasses.replace(x.model, segments=(Segment((block,), 1),))
  )


@pytest.fixture(scope='module')
def params(x):
  return transformer.init(x.model, jax.random.key(0))


def test_calls_add_auxiliary_losses_and_redraw_dropout(x, params):
  key = jax.random.key(1)
  forward = Forward(x.model, params, x.run(), key)
  assert forward.aux == 0
  first = forward(input_ids=IDS)
  alone = transformer.apply(x.model, params, run=x.run(), key=key, input_ids=IDS)
  np.testing.assert_array_equal(first['logits'], alone['logits'])
  second = forward(input_ids=IDS)
  assert (first['logits'] != second['logits']).any()
  assert forward.aux == first['aux'] + second['aux'] > 0


@dataclasses.dataclass(frozen=True)
class Twice(CausalLM):
  """The mean loss of two forward passes."""

  def loss(self, forward, batch, key):
    one, two = super().loss(forward, batch, key), super().loss(forward, batch, key)
    return {
      name: Ratio(one[name].sum + two[name].sum, one[name].weight + two[name].weight)
      for name in one
    }


@dataclasses.dataclass(frozen=True)
class Never(CausalLM):
  """A loss that ignores the model."""

  def loss(self, forward, batch, key):
    return {
      'loss': Ratio(jnp.sum(batch['weights']) * jax.random.uniform(key), jnp.sum(batch['weights']))
    }


def metrics(x, task):
  x = dataclasses.replace(x, task=task)
  tx = x.optim.make(x.steps, transformer.param_letters(x.model))
  state = step_lib.make_init(x, tx)(jax.random.key(0))
  batch = {'input_ids': IDS, 'labels': IDS, 'weights': jnp.ones(IDS.shape)}
  return jax.tree.map(float, jax.jit(step_lib.make_step(x, tx))(state, batch)[1])


def test_task_may_call_the_model_twice_or_never(x):
  block = dataclasses.replace(x.model.segments[0].pattern[0], dropout=0.0)
  x = dataclasses.replace(x, model=dataclasses.replace(x.model, segments=(Segment((block,), 1),)))
  once, twice, never = (metrics(x, task) for task in (CausalLM(), Twice(), Never()))
  assert twice['loss_nats'] == pytest.approx(once['loss_nats'], rel=1e-5)
  # The auxiliary loss is counted for each call.
  aux = once['loss'] - once['loss_nats']
  assert aux > 0
  assert twice['loss'] - twice['loss_nats'] == pytest.approx(2 * aux, rel=1e-3)
  assert never['grad_norm'] == 0
  assert 0 < never['loss'] < 1
