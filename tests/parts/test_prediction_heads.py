"""Heads for values, frames, codes and images match their formulas."""

import functools

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.towers import apply, causal, close, linear, model, normal, params
from tfm.core import errors
from tfm.model import transformer
from tfm.model.count import flops_of_document
from tfm.parts.act import Tanh
from tfm.parts.context import Dims, Run
from tfm.parts.embed import Codes, Features, Tokens
from tfm.parts.embed.base import unpadded
from tfm.parts.head import CodeLogits, Ctc, Lm, Regress, Unpatchify
from tfm.parts.head.base import HeadContext
from tfm.parts.init import Normal

B, T, D = 2, 6, 8
DIMS = Dims(D, 2, Normal(), Run())


def run(head, x, **context):
  """Return the outputs of a head with random parameters, and the parameters."""
  given = HeadContext(unpadded(*x.shape[:2]), {}, {}, **context)
  module = head.make(DIMS)
  weights = nn.unbox(module.init(jax.random.key(0), x, given))['params']
  weights = jax.tree.map(lambda a: a + normal(*a.shape), weights)
  return module.apply({'params': weights}, x, given), weights


@pytest.mark.parametrize('pick', ['each', 'last', 'mean'], ids=lambda p: f'pick={p}')
def test_regression_projects_the_pooled_states(pick):
  x = normal(B, T, D)
  out, weights = run(Regress(3, pick, Tanh()), x)
  picked = {'each': x, 'last': x[:, -1], 'mean': x.mean(1)}[pick]
  close(out['predictions'], np.tanh(linear(picked, weights['out'])))


def test_output_has_the_name_of_its_head():
  out, _ = run(Regress(3, name='action_preds'), normal(B, T, D))
  assert list(out) == ['action_preds'] == list(Regress(3, name='action_preds').returns(True))


def test_ctc_projects_each_frame():
  x = normal(B, T, D)
  out, weights = run(Ctc(7), x)
  close(out['logits'], linear(x, weights['out']))
  assert list(run(Ctc(7), x, alone=False)[0]) == ['ctc_logits'] == list(Ctc(7).returns(False))


def test_code_head_returns_logits_of_each_codebook():
  spec = causal(Codes(3, 11), heads={'codes': CodeLogits(3, 10)})
  p, ids = params(spec), jnp.asarray(np.random.default_rng(0).integers(0, 11, (B, T, 3)))
  out = apply(spec, p, {'input_ids': ids})
  kernel = np.asarray(p['codes_head']['out']['kernel'])
  assert out['logits'].shape == (B, T, 3, 10)
  close(out['logits'], np.einsum('btd,dkv->btkv', out['last_hidden_state'], kernel))


def test_unpatchify_puts_patches_in_their_places():
  """With an identity projection, pixel (i, j) of patch (r, c) is at row r p + i, column c p + j."""
  h, w, p, C = 2, 3, 2, 2
  image = normal(B, C, h * p, w * p)
  patches = image.reshape(B, C, h, p, w, p).transpose(0, 2, 4, 3, 5, 1).reshape(B, h * w, p * p * C)
  head = Unpatchify(p, C)
  for lead in (0, 1):
    x = jnp.concatenate([normal(B, lead, D), patches], 1)
    given = HeadContext(unpadded(*x.shape[:2]), {}, {}, grid=(h, w))
    weights = {'out': {'kernel': jnp.eye(D), 'bias': jnp.zeros(D)}}
    close(head.make(DIMS).apply({'params': weights}, x, given)['predictions'], image)


def test_unpatchify_with_zero_init_starts_at_zero():
  spec = model(Features('latents', 5, grid=(2, 3)), heads={'image': Unpatchify(zero_init=True)})
  out = apply(spec, transformer.init(spec, jax.random.key(0)), {'latents': normal(B, T, 5)})
  assert out['predictions'].shape == (B, 3, 4, 6)
  assert not out['predictions'].any()


def test_unpatchify_without_a_grid_is_an_error():
  with pytest.raises(
    errors.UserError, match='head=unpatchify: 6 tokens are not a grid of image patches'
  ):
    run(Unpatchify(), normal(B, T, D))


def test_two_outputs_with_one_name_are_an_error():
  with pytest.raises(
    errors.ConfigError, match=r"heads\.b: returns 'predictions', as heads\.a does"
  ):
    model(Tokens(61), heads={'a': Regress(1), 'b': Regress(2)})


@pytest.mark.parametrize(
  ('head', 'expected'),
  [
    (Regress(3), 10 * 2 * 32 * 3),
    (Regress(3, 'last'), 2 * 32 * 3),
    (Ctc(7), 10 * 2 * 32 * 7),
    (CodeLogits(3, 11), 10 * 2 * 32 * 33),
  ],
  ids=['head=regress', 'head=regress-last', 'head=ctc', 'head=codes'],
)
def test_head_flops_match_the_formula(head, expected):
  count = functools.partial(flops_of_document, length=10)
  plain = model(Features(size=5), heads={})
  assert count(plain.with_heads(own=head)) - count(plain) == expected


def test_logits_to_keep_does_not_affect_other_heads():
  spec = causal(Tokens(61), heads={'lm': Lm(), 'values': Regress(2)})
  run = lambda n: transformer.apply(
    spec, params(spec), logits_to_keep=n, input_ids=jnp.ones((B, T), jnp.int32)
  )
  assert run(1)['logits'].shape == (B, 1, 61)
  assert run(1)['predictions'].shape == (B, T, 2)
