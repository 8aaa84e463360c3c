"""GPT-2's logits and gradients are those of transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import copying
from tfm.model import transformer
from tfm.parts.absolute import Learned
from tfm.zoo import gpt2

pytestmark = pytest.mark.oracle
L, D, N, V, P = 2, 32, 4, 61, 16
SPEC = dataclasses.replace(
  gpt2.gpt2(L, D, N), embed=dataclasses.replace(gpt2.gpt2(L, D, N).embed, vocab=V), absolute=Learned(P)
)


def flat_of(theirs: copying.Theirs) -> copying.Flat:
  def conv(ours, name):
    # Conv1D stores [in, out].
    return {f'{ours}/kernel': theirs[f'{name}.weight'], f'{ours}/bias': theirs[f'{name}.bias']}

  def block(i):
    at, found = f'transformer.h.{i}', {}
    for leaf, value in conv('x', f'{at}.attn.c_attn').items():
      parts = np.split(value, 3, -1)
      heads = [p.reshape(*p.shape[:-1], N, D // N) for p in parts]
      found |= {f'mixer/{n}/{leaf[2:]}': h for n, h in zip('qkv', heads, strict=True)}
    out = conv('mixer/o', f'{at}.attn.c_proj')
    out['mixer/o/kernel'] = out['mixer/o/kernel'].reshape(N, D // N, D)
    ffn = conv('ffn/up', f'{at}.mlp.c_fc') | conv('ffn/down', f'{at}.mlp.c_proj')
    norms = theirs.norm('mixer_norm', f'{at}.ln_1') | theirs.norm('ffn_norm', f'{at}.ln_2')
    return found | out | ffn | norms

  return {
    'embed/table': theirs['transformer.wte.weight'],
    'absolute/table': theirs['transformer.wpe.weight'],
    **copying.stacked('segment_0/block_0', range(L), block),
    **theirs.norm('norm', 'transformer.ln_f'),
  }


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


def test_logits_are_the_same(model, params):
  import torch

  ids = copying.tokens(3, 10)
  with torch.no_grad():
    theirs = model(torch.tensor(ids)).logits.numpy()
  np.testing.assert_allclose(copying.logits(SPEC, params, input_ids=ids), theirs, atol=2e-5, rtol=2e-5)


def test_rows_padded_left_are_the_same(model, params):
  import torch

  ids, mask = copying.tokens(2, 9), np.ones((2, 9), int)
  mask[1, :4] = 0
  where = np.maximum(np.cumsum(mask, 1) - 1, 0)
  with torch.no_grad():
    theirs = model(torch.tensor(ids), attention_mask=torch.tensor(mask), position_ids=torch.tensor(where)).logits
  ours = copying.logits(SPEC, params, input_ids=ids, attention_mask=mask)
  np.testing.assert_allclose(ours[mask > 0], theirs.numpy()[mask > 0], atol=2e-5, rtol=2e-5)


def test_gradients_are_the_same(model, params):
  import torch

  ids = copying.tokens(2, 8)
  target = np.random.default_rng(1).standard_normal((2, 8, V)).astype(np.float32)
  model.zero_grad()
  (model(torch.tensor(ids)).logits * torch.tensor(target)).sum().backward()
  grads = {name: p.grad for name, p in model.named_parameters()}
  theirs = copying.tree(SPEC, flat_of(copying.Theirs(grads)))
  loss = lambda p: jnp.sum(transformer.apply(SPEC, p, input_ids=jnp.asarray(ids))['logits'] * target)
  ours = jax.jit(jax.grad(loss))(params)
  copying.assert_same_gradients(ours, theirs)
