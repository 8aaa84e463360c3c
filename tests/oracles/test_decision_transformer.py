"""Compare a decision transformer (interleave, regress with a stream) with transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles import copying
from tests.oracles.small_gpt2 import SPEC as GPT2
from tests.oracles.small_gpt2 import D, L, N, flat_of
from tfm.core import config
from tfm.model import transformer
from tfm.parts.absolute import Absolute
from tfm.parts.act import Relu, Tanh
from tfm.parts.embed import Features, Interleave
from tfm.parts.embed.interleave import Stream
from tfm.parts.head import Regress
from tfm.parts.norm import LayerNorm

pytestmark = pytest.mark.oracle

B, T, STATE, ACTION, TIMES = 2, 5, 7, 3, 20
NAMES = ('action_preds', 'state_preds', 'return_preds')


def _spec():
  """Return GPT-2's blocks with relu, over interleaved returns, states and actions."""
  block = GPT2.segments[0].pattern[0]
  block = dataclasses.replace(block, ffn=dataclasses.replace(block.ffn, act=Relu()))
  parts = (
    Stream('returns', Features('returns_to_go', 1)),
    Stream('states', Features('states', STATE)),
    Stream('actions', Features('actions', ACTION)),
  )
  heads = {
    'action': Regress(ACTION, act=Tanh(), stream='states', name='action_preds'),
    'state': Regress(STATE, stream='actions', name='state_preds'),
    'return': Regress(1, stream='actions', name='return_preds'),
  }
  segments = (dataclasses.replace(GPT2.segments[0], pattern=(block,)),)
  embed = Interleave(parts, timesteps=TIMES, norm=LayerNorm(1e-5))
  return config.validate(
    dataclasses.replace(GPT2, embed=embed, segments=segments, absolute=Absolute(), heads=heads)
  )


SPEC = _spec()


@pytest.fixture(scope='module')
def model():
  import transformers

  settings = transformers.DecisionTransformerConfig(
    state_dim=STATE, act_dim=ACTION, hidden_size=D, max_ep_len=TIMES, n_layer=L, n_head=N,
    n_positions=64,
    attn_implementation='eager', resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
  )  # fmt: skip
  return copying.randomized(transformers.DecisionTransformerModel(settings))


def _flat(tensors):
  """Return tfm's parameters for transformers' tensors or their gradients."""
  named = {
    name.replace('encoder.', 'transformer.', 1): t for name, t in tensors.items() if t is not None
  }
  theirs = copying.Theirs({'transformer.wte.weight': named['transformer.wpe.weight'], **named})
  flat = {
    name: x for name, x in flat_of(theirs).items() if not name.startswith(('embed/', 'absolute/'))
  }
  for stream, name in (('returns', 'return'), ('states', 'state'), ('actions', 'action')):
    flat |= theirs.dense(f'embed/{stream}/project', f'embed_{name}')
  flat |= theirs.dense('action_head/out', 'predict_action.0') | theirs.dense(
    'state_head/out', 'predict_state'
  )
  flat |= theirs.dense('return_head/out', 'predict_return') | theirs.norm('embed/norm', 'embed_ln')
  return flat | {'embed/timesteps': theirs['embed_timestep.weight']}, theirs[
    'transformer.wpe.weight'
  ][0]


@pytest.fixture(scope='module')
def params(model):
  flat, position_D = _flat(model.state_dict())
  # In transformers, every token has position 0.
  return copying.tree(SPEC, flat | {'embed/norm/bias': flat['embed/norm/bias'] + position_D})


def _inputs(padded: int = 0):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  mask = np.ones((B, T), np.int32)
  mask[1, :padded] = 0
  time = np.arange(T, dtype=np.int32)[None] + np.asarray([[0], [9]], np.int32)
  return {
    'states': draw(B, T, STATE), 'actions': draw(B, T, ACTION), 'returns_to_go': draw(B, T, 1),
    'timesteps': time,
    'attention_mask': mask,
  }  # fmt: skip


def _theirs(model, given):
  import torch

  tensors = {
    name: torch.tensor(x).long() if x.dtype == np.int32 else torch.tensor(x)
    for name, x in given.items()
  }
  return model(rewards=torch.zeros(B, T, 1), **tensors)


@pytest.mark.parametrize('padded', [0, 2])
def test_predictions_match_transformers(model, params, padded):
  given = _inputs(padded)
  theirs = _theirs(model, given)
  out = jax.jit(lambda p, x: transformer.apply(SPEC, p, **x))(params, given)
  for name in NAMES:
    expected = theirs[name].detach().numpy()
    real = given['attention_mask'] > 0
    np.testing.assert_allclose(
      np.asarray(out[name])[real], expected[real], atol=3e-5, rtol=3e-5, err_msg=name
    )


def test_gradients_match_transformers(model, params):
  import torch

  given = _inputs()
  rng = np.random.default_rng(1)
  sizes = zip(NAMES, (ACTION, STATE, 1), strict=True)
  targets = {name: rng.standard_normal((B, T, size)) for name, size in sizes}
  model.zero_grad()
  out = _theirs(model, given)
  sum((out[n] * torch.tensor(t, dtype=torch.float32)).sum() for n, t in targets.items()).backward()
  flat, _ = _flat({name: p.grad for name, p in model.named_parameters()})

  def loss(p):
    out = transformer.apply(SPEC, p, **given)
    return sum(jnp.sum(out[n] * jnp.asarray(t, jnp.float32)) for n, t in targets.items())

  copying.assert_same_gradients(jax.jit(jax.grad(loss))(params), copying.tree(SPEC, flat))
