"""XLNet's query stream matches transformers: states and gradients, in every kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.hub import encoders, published
from tests.oracles import copying
from tfm.model.transformer import apply
from tfm.parts.attend import Blockwise, DenseAttention
from tfm.parts.context import Run

pytestmark = pytest.mark.oracle
T, P = published.T, 4


@pytest.fixture(scope='module')
def both(tmp_path_factory):
  return published.build(encoders.CASES['xlnet'], tmp_path_factory.mktemp('streams') / 'theirs')


@pytest.fixture(scope='module', params=['ordered', 'tied'])
def targets_of_order(request, both):
  """Return order_ids and target_positions.

  Targets are the last P tokens of an order. Other tokens are ordered too or have the same rank.
  """
  real = both.real
  order = np.where(
    real, np.random.default_rng(3).permuted(np.tile(np.arange(T), (3, 1)), axis=1), -1
  ).astype(np.int32)
  targets = np.argsort(order, 1)[:, -P:].astype(np.int32)
  last = np.zeros_like(real)
  np.put_along_axis(last, targets, True, 1)
  return (
    order if request.param == 'ordered' else np.where(last, order + 1, 0).astype(np.int32)
  ), targets


def _theirs(both, order, targets):
  """Return transformers' target logits, states of tokens and targets, and gradients.

  The gradients are of a random projection of the logits, as a tree of tfm parameters.
  """
  import torch

  mapping = np.eye(T, dtype=np.float32)[targets]
  # A target does not attend to tokens of the same rank, such as itself.
  hidden = np.where(
    mapping.any(1)[:, :, None],
    order[:, None] >= order[..., None],
    order[:, None] > order[..., None],
  )
  order_inputs = {
    'perm_mask': torch.tensor(hidden.astype(np.float32)),
    'target_mapping': torch.tensor(mapping),
  }
  both.theirs.zero_grad()
  out = both.theirs(**published.their_inputs(both), **order_inputs, output_hidden_states=True)
  (torch.tensor(_weight(out.logits.shape)) * out.logits).sum().backward()
  grads = {n: p.grad.numpy() for n, p in both.theirs.named_parameters() if p.grad is not None}
  *_, content, query = (h.detach().numpy() for h in out.hidden_states)
  return out.logits.detach().numpy(), content, query, published.as_ours(both, grads)


def _weight(shape):
  return np.random.default_rng(5).standard_normal(tuple(shape)).astype(np.float32)


def test_streams_match_transformers_in_every_kernel(both, targets_of_order):
  order, targets = targets_of_order
  logits, content, query, their_grads = _theirs(both, order, targets)

  def loss(params, run):
    out = apply(
      both.ours.spec, params, run=run, order_ids=order, target_positions=targets,
      output_hidden_states=True, **both.inputs,
    )  # fmt: skip
    return jnp.sum(_weight(logits.shape) * out['logits']), out

  for kernel in (DenseAttention(), Blockwise(8, 8)):
    ask = jax.jit(
      jax.value_and_grad(lambda p, kernel=kernel: loss(p, Run(attend=kernel)), has_aux=True)
    )
    (_, out), grads = ask(both.ours.params)
    for ours, theirs in ((out['logits'], logits), (out['last_hidden_state'], query)):
      np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1, np.abs(theirs).max()), rtol=0)
    states = np.asarray(out['hidden_states'][-1])
    np.testing.assert_allclose(
      states[:, :T][both.real], content[both.real], atol=2e-5 * np.abs(content).max(), rtol=0
    )
    copying.assert_same_gradients(grads, their_grads)
  assert np.abs(grads['embed']['query']).max() > 0


def test_order_alone_matches_the_permutation_mask(both, targets_of_order):
  import torch

  order, _ = targets_of_order
  hidden = torch.tensor((order[:, None] > order[..., None]).astype(np.float32))
  with torch.no_grad():
    theirs = both.theirs(**published.their_inputs(both), perm_mask=hidden).logits.numpy()
  ours = jax.jit(lambda p: apply(both.ours.spec, p, order_ids=order, **both.inputs)['logits'])(
    both.ours.params
  )
  np.testing.assert_allclose(
    np.asarray(ours)[both.real], theirs[both.real], atol=2e-5 * np.abs(theirs).max(), rtol=0
  )
