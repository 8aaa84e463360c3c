"""Logits and gradients of GPT-2 match transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles import copying
from tests.oracles.small_gpt2 import SPEC, D, L, N, P, V, flat_of
from tfm.model import transformer

pytestmark = pytest.mark.oracle


@pytest.fixture(scope='module')
def model():
  import transformers

  config = transformers.GPT2Config(
    vocab_size=V, n_embd=D, n_layer=L, n_head=N, n_positions=P, attn_implementation='eager',
    resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
  )  # fmt: skip
  return copying.randomized(transformers.GPT2LMHeadModel(config))


@pytest.fixture(scope='module')
def params(model):
  return copying.tree(SPEC, flat_of(copying.Theirs(model.state_dict())))


def test_logits_match_transformers(model, params):
  import torch

  ids = copying.tokens(3, 10)
  with torch.no_grad():
    theirs = model(torch.tensor(ids)).logits.numpy()
  np.testing.assert_allclose(
    copying.logits(SPEC, params, input_ids=ids), theirs, atol=2e-5, rtol=2e-5
  )


def test_left_padded_logits_match_transformers(model, params):
  import torch

  ids, mask = copying.tokens(2, 9), np.ones((2, 9), int)
  mask[1, :4] = 0
  where = np.maximum(np.cumsum(mask, 1) - 1, 0)
  with torch.no_grad():
    theirs = model(
      torch.tensor(ids), attention_mask=torch.tensor(mask), position_ids=torch.tensor(where)
    ).logits
  ours = copying.logits(SPEC, params, input_ids=ids, attention_mask=mask)
  np.testing.assert_allclose(ours[mask > 0], theirs.numpy()[mask > 0], atol=2e-5, rtol=2e-5)


def test_gradients_match_transformers(model, params):
  import torch

  ids = copying.tokens(2, 8)
  target = np.random.default_rng(1).standard_normal((2, 8, V)).astype(np.float32)
  model.zero_grad()
  (model(torch.tensor(ids)).logits * torch.tensor(target)).sum().backward()
  grads = {name: p.grad for name, p in model.named_parameters()}
  theirs = copying.tree(SPEC, flat_of(copying.Theirs(grads)))
  loss = lambda p: jnp.sum(
    transformer.apply(SPEC, p, input_ids=jnp.asarray(ids))['logits'] * target
  )
  ours = jax.jit(jax.grad(loss))(params)
  copying.assert_same_gradients(ours, theirs)
