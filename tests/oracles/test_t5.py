"""T5 and T5 v1.1: logits and gradients are those of transformers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import copying
from tfm.model import transformer
from tfm.zoo import t5

pytestmark = pytest.mark.oracle
L, D, N, H, F, V = 2, 32, 4, 6, 48, 61
SPECS = {
  'v1.0': dataclasses.replace(t5.t5(L, D, N, H, F), vocab=V),
  'v1.1': dataclasses.replace(t5.t5_v1_1(L, D, N, F), vocab=V),
}
WIDTH = {'v1.0': H, 'v1.1': 64}


def flat_of(theirs: copying.Theirs, gated: bool) -> copying.Flat:
  def attention(ours, name):
    found = theirs.merge(f'{ours}/o', f'{name}.o')
    return found | {k: v for n in 'qkv' for k, v in theirs.heads(f'{ours}/{n}', f'{name}.{n}').items()}

  def ffn(name):
    ups = {'ffn/gate': 'wi_0', 'ffn/up': 'wi_1'} if gated else {'ffn/up': 'wi'}
    return {k: v for o, t in {**ups, 'ffn/down': 'wo'}.items() for k, v in theirs.dense(o, f'{name}.{t}').items()}

  def stack(name, cross):
    def block(i):
      at = f'{name}.block.{i}.layer'
      last = f'{at}.{1 + cross}'
      found = attention('mixer', f'{at}.0.SelfAttention') | theirs.norm('mixer_norm', f'{at}.0.layer_norm')
      if cross:
        found |= attention('cross', f'{at}.1.EncDecAttention') | theirs.norm('cross_norm', f'{at}.1.layer_norm')
      return found | ffn(f'{last}.DenseReluDense') | theirs.norm('ffn_norm', f'{last}.layer_norm')

    bias = f'{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight'
    found = copying.stacked('segment_0/block_0', range(L), block) | theirs.norm('norm', f'{name}.final_layer_norm')
    return found | {'shared_relative/table': theirs[bias]}

  flat = {'embed/table': theirs['shared.weight'], **stack('decoder', True)}
  flat |= {f'encoder/{k}': v for k, v in stack('encoder', False).items()}
  return flat | ({'head/head/kernel': theirs['lm_head.weight'].T} if gated else {})


@pytest.fixture(scope='module', params=SPECS)
def case(request):
  import torch
  import transformers

  name = request.param
  config = transformers.T5Config(
    vocab_size=V, d_model=D, d_kv=WIDTH[name], d_ff=F, num_layers=L, num_heads=N, dropout_rate=0.0,
    feed_forward_proj='relu' if name == 'v1.0' else 'gated-gelu', tie_word_embeddings=name == 'v1.0',
    attn_implementation='eager',
  )  # fmt: skip
  model = transformers.T5ForConditionalGeneration(config)
  if name == 'v1.1':
    # transformers 5 ties whatever the config says.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(V, D))
  return SPECS[name], copying.randomized(model, 0.1), name


def flat_for(name, tensors):
  return flat_of(copying.Theirs(tensors, WIDTH[name]), gated=name == 'v1.1')


def test_logits_are_the_same_with_a_padded_source(case):
  import torch

  spec, model, name = case
  source, target, mask = copying.tokens(2, 30), copying.tokens(2, 7, seed=1), np.ones((2, 30), int)
  mask[1, 20:] = 0
  with torch.no_grad():
    theirs = model(
      input_ids=torch.tensor(source), attention_mask=torch.tensor(mask), decoder_input_ids=torch.tensor(target)
    ).logits.numpy()
  params = copying.tree(spec, flat_for(name, model.state_dict()))
  ours = copying.logits(spec, params, input_ids=source, attention_mask=mask, decoder_input_ids=target)
  np.testing.assert_allclose(ours, theirs, atol=2e-5 * max(1, np.abs(theirs).max()), rtol=2e-5)


def test_gradients_are_the_same(case):
  import torch

  spec, model, name = case
  source, target = copying.tokens(2, 12), copying.tokens(2, 6, seed=1)
  weight = np.random.default_rng(1).standard_normal((2, 6, V)).astype(np.float32)
  model.zero_grad()
  logits = model(input_ids=torch.tensor(source), decoder_input_ids=torch.tensor(target)).logits
  (logits * torch.tensor(weight)).sum().backward()
  theirs = copying.tree(spec, flat_for(name, {n: p.grad for n, p in model.named_parameters()}))
  params = copying.tree(spec, flat_for(name, model.state_dict()))
  inputs = {'input_ids': jnp.asarray(source), 'decoder_input_ids': jnp.asarray(target)}
  ours = jax.jit(jax.grad(lambda p: jnp.sum(transformer.apply(spec, p, **inputs)['logits'] * weight)))(params)
  copying.assert_same_gradients(ours, theirs)
