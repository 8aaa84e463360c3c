"""The LSTM equals torch.nn.LSTM and the plain recurrence over each packed document."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.core import config, errors
from tfm.model import count, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed import Tokens
from tfm.parts.ffn import Mlp
from tfm.parts.init import Normal
from tfm.parts.mixer import LSTM
from tfm.parts.mixer import lstm as lstm_lib
from tfm.parts.tokeninfo import TokenInfo, positions

D, B, T = 6, 3, 14
DIMS = Dims(D, 1, Normal(), Run())
SPECS = {'plain': LSTM(), 'projected': LSTM(9, project=True), 'no bias': LSTM(bias=False)}
X_BTD = np.random.default_rng(0).standard_normal((B, T, D)).astype(np.float32)
WHOLE = np.ones((B, T), np.int32)
PACKED = np.asarray(
  [[1] * 3 + [2] * 4 + [3] * 7, [0] * 4 + [1] * 7 + [0] * 3, [1] * 2 + [0] * 3 + [2] * 8 + [3]],
  np.int32,
)


def info(segment_BT):
  return TokenInfo(positions(jnp.asarray(segment_BT)), jnp.asarray(segment_BT))


@functools.cache
def params(spec):
  shapes = jax.eval_shape(
    lambda: spec.make(DIMS).init(jax.random.key(0), jnp.asarray(X_BTD), Ctx(info(WHOLE)))['params']
  )
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda a: jnp.asarray(0.5 * rng.standard_normal(a.shape), jnp.float32), nn.unbox(shapes)
  )


def mixed(spec, p, x_BTD, segment_BT, cache=None):
  slot = None if cache is None else jnp.zeros(len(x_BTD), jnp.int32)
  return spec.make(DIMS).apply({'params': p}, x_BTD, Ctx(info(segment_BT), slot=slot), cache)


def stepped(p, x_BTD, segment_BT):
  """Return the recurrence token by token in float64."""
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), p)
  sigmoid = lambda a: 1 / (1 + np.exp(-a))
  W, U, y = p['x']['kernel'], p['h']['kernel'], np.zeros(x_BTD.shape)
  for b in range(len(x_BTD)):
    document = 0
    for t in range(x_BTD.shape[1]):
      if (segment := segment_BT[b, t]) == 0:
        continue
      if segment != document:
        h, c, document = np.zeros(D), np.zeros(W.shape[-1]), segment
      i, f, g, o = (
        np.einsum('d,dgf->gf', x_BTD[b, t], W) + np.einsum('d,dgf->gf', h, U) + p.get('bias', 0)
      )
      c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
      h = sigmoid(o) * np.tanh(c)
      h = h @ p['o']['kernel'] if 'o' in p else h
      y[b, t] = h
  return y


@pytest.mark.parametrize('name', SPECS)
def test_equals_the_recurrence_over_each_document(name):
  spec, real = SPECS[name], PACKED > 0
  for segments, mask in ((WHOLE, WHOLE > 0), (PACKED, real)):
    outputs = jax.jit(lambda p, x, s=segments: mixed(spec, p, x, s)[0])(params(spec), X_BTD)
    expected = stepped(params(spec), X_BTD, segments)
    np.testing.assert_allclose(np.asarray(outputs)[mask], expected[mask], rtol=1e-4, atol=1e-5)


@pytest.mark.oracle
@pytest.mark.filterwarnings('ignore:LSTM with projections is not supported with oneDNN')
@pytest.mark.parametrize('name', SPECS)
def test_equals_torch_with_states_and_gradients(name):
  import torch

  spec = SPECS[name]
  own, F = params(spec), spec.cells(D)
  torch_lstm = torch.nn.LSTM(
    D, F, bias=spec.bias, batch_first=True, proj_size=D if spec.project else 0
  )
  rows = lambda kernel: torch.tensor(np.asarray(kernel).transpose(1, 2, 0).reshape(4 * F, D))
  with torch.no_grad():
    torch_lstm.weight_ih_l0.copy_(rows(own['x']['kernel']))
    torch_lstm.weight_hh_l0.copy_(rows(own['h']['kernel']))
    if spec.bias:
      torch_lstm.bias_ih_l0.copy_(torch.tensor(np.asarray(own['bias']).reshape(-1)))
      torch_lstm.bias_hh_l0.zero_()
    if spec.project:
      torch_lstm.weight_hr_l0.copy_(torch.tensor(np.asarray(own['o']['kernel']).T))
  y, (h, c) = torch_lstm(torch.tensor(X_BTD))
  y.square().sum().backward()

  def loss(p):
    y_BTD, cache = mixed(spec, p, X_BTD, WHOLE, spec.init_cache(D, B, T, 'float32'))
    return jnp.sum(y_BTD**2), (y_BTD, cache)

  grads, (y_BTD, cache) = jax.jit(jax.grad(loss, has_aux=True))(own)
  close = lambda a, b: np.testing.assert_allclose(a, b.detach().numpy(), rtol=1e-4, atol=1e-5)
  close(y_BTD, y)
  close(cache['rows']['h'], h[0])
  close(cache['rows']['c'], c[0])
  flat = lambda kernel: np.asarray(kernel).transpose(1, 2, 0).reshape(4 * F, D)
  close(flat(grads['x']['kernel']), torch_lstm.weight_ih_l0.grad)
  close(flat(grads['h']['kernel']), torch_lstm.weight_hh_l0.grad)
  if spec.bias:
    close(grads['bias'].reshape(-1), torch_lstm.bias_ih_l0.grad)
  if spec.project:
    close(grads['o']['kernel'].T, torch_lstm.weight_hr_l0.grad)


@pytest.mark.parametrize('name', SPECS)
def test_state_continues_a_sequence_after_any_cut(name):
  spec, real = SPECS[name], PACKED > 0
  whole, cuts = stepped(params(spec), X_BTD, PACKED), [1, 2, 4, 9, 13]
  cache, outputs = spec.init_cache(D, B, T, 'bfloat16'), []
  for x_BTD, segments in zip(np.split(X_BTD, cuts, 1), np.split(PACKED, cuts, 1), strict=True):
    y_BTD, cache = jax.jit(lambda p, x, c, s=segments: mixed(spec, p, x, s, c))(
      params(spec), x_BTD, cache
    )
    outputs.append(y_BTD)
  np.testing.assert_allclose(np.concatenate(outputs, 1)[real], whole[real], rtol=1e-4, atol=1e-5)


def test_bfloat16_steps_equal_the_full_pass_bitwise():
  spec = SPECS['projected']
  x_BTD = jnp.asarray(X_BTD, jnp.bfloat16)
  run = jax.jit(lambda p, x, c: mixed(spec, p, x, np.ones(x.shape[:2], np.int32), c))
  whole, _ = run(params(spec), x_BTD, spec.init_cache(D, B, T, 'bfloat16'))
  cache, outputs = spec.init_cache(D, B, T, 'bfloat16'), []
  for t in range(T):
    y_BTD, cache = run(params(spec), x_BTD[:, t : t + 1], cache)
    outputs.append(y_BTD)
  np.testing.assert_array_equal(np.concatenate(outputs, 1), whole)


def test_history_is_the_state_after_each_token():
  spec = SPECS['projected']
  run = jax.jit(lambda p, x, c, s: mixed(spec, p, x, s, c)[1])
  cache = run(params(spec), X_BTD[:, :3], spec.init_cache(D, B, T, 'float32'), PACKED[:, :3])
  after = run(params(spec), X_BTD[:, 3:], cache | {'history': {}}, PACKED[:, 3:])
  np.testing.assert_array_equal(after['history']['real'], PACKED[:, 3:] > 0)
  for t in range(T - 3):
    for name, a in cache['rows'].items():
      np.testing.assert_allclose(after['history']['rows'][name][:, t], a, rtol=1e-5, atol=1e-6)
    cache = run(params(spec), X_BTD[:, 3 + t : 4 + t], cache, PACKED[:, 3 + t : 4 + t])


@pytest.mark.parametrize('name', SPECS)
def test_kernel_gradients_match_autodiff(name, monkeypatch):
  spec = SPECS[name]
  cache = mixed(
    spec, params(spec), X_BTD[:, :2], PACKED[:, :2], spec.init_cache(D, B, T, 'float32')
  )[1]

  def loss(p, x_BTD, rows):
    y_BTD, after = mixed(spec, p, x_BTD, PACKED[:, 2:], cache | {'rows': cache['rows'] | rows})
    return jnp.sum(y_BTD**2) + jnp.sum(after['rows']['c'] * 3)

  rows = {name: a for name, a in cache['rows'].items() if a.dtype == jnp.float32}
  grad = lambda: jax.jit(jax.grad(loss, (0, 1, 2)))(params(spec), X_BTD[:, 2:], rows)
  by_matmul = grad()
  monkeypatch.setattr(lstm_lib, '_recurrence', lstm_lib._states)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, by_matmul, grad())


def test_forget_bias_sets_the_initial_forget_gate():
  bias_GF = (
    LSTM(forget_bias=2.0).make(DIMS).init(jax.random.key(0), jnp.asarray(X_BTD), Ctx(info(WHOLE)))
  )
  bias_GF = nn.unbox(bias_GF)['params']['bias']
  np.testing.assert_array_equal(bias_GF, np.repeat([[0], [2], [0], [0]], D, 1))


def test_parameter_count_matches_sutskever_2014():
  # Sutskever et al. (2014): 8 layers of 1,000 cells have 64 million weights.
  spec = Model(Tokens(8), 1000, (Segment((Block(LSTM(bias=False), Mlp(8)),), 8),))
  params = transformer.param_shapes(spec)['segment_0']['block_0']['mixer']
  assert sum(a.size for a in jax.tree.leaves(params)) == 64_000_000
  letters = transformer.param_letters(spec)['segment_0']['block_0']['mixer']
  assert letters == {'x': {'kernel': 'LDGF'}, 'h': {'kernel': 'LDGF'}}
  assert LSTM(9, project=True).flops(D, 1) == 2 * (2 * 4 * D * 9 + 9 * D)
  assert count.state_bytes(
    Model(Tokens(8), D, (Segment((Block(SPECS['projected'], Mlp(8)),), 2),))
  ) == 2 * 4 * (D + 9 + 1)


@pytest.mark.parametrize(
  ('mixer', 'message'),
  [
    (LSTM(0), r'size=0 is not a number of cells\. Expected at least 1, or none for d_model'),
    (LSTM(9), r'size=9 differs from d_model=6\. Expected project=true, or size=none'),
  ],
)
def test_fields_out_of_range_are_errors(mixer, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(Model(Tokens(32), D, (Segment((Block(mixer, Mlp(8)),)),)))
