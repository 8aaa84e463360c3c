"""Mixtures of experts give the numbers of transformers: Mixtral and Qwen3 whole, DeepSeek's mixture alone."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import copying
from tfm.core import config as config_lib
from tfm.model import transformer
from tfm.parts import init
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.ffn import Glu, Moe
from tfm.parts.router import Grouped
from tfm.parts.site import Site
from tfm.zoo import mixtral, qwen3_moe

pytestmark = pytest.mark.oracle
L, D, N, K, H, F, V, E = 2, 32, 8, 4, 8, 24, 61, 8


def experts_of(theirs, ours, at):
  gate_up, down = theirs[f'{at}experts.gate_up_proj'], theirs[f'{at}experts.down_proj']
  gate, up = np.split(gate_up.transpose(0, 2, 1), 2, -1)
  found = {'gate': gate, 'up': up, 'down': down.transpose(0, 2, 1)}
  return {f'{ours}expert/{n}/kernel': w for n, w in found.items()} | theirs.dense(f'{ours}router/score', f'{at}gate')


def flat_of(theirs, layers=L):
  def block(i):
    at = f'model.layers.{i}'
    found = experts_of(theirs, 'ffn/', f'{at}.mlp.') | theirs.merge('mixer/o', f'{at}.self_attn.o_proj')
    for n in 'qkv':
      found |= theirs.heads(f'mixer/{n}', f'{at}.self_attn.{n}_proj')
    for n in 'qk':
      if f'{at}.self_attn.{n}_norm.weight' in theirs.arrays:
        found |= theirs.norm(f'mixer/{n}_norm', f'{at}.self_attn.{n}_norm')
    norms = theirs.norm('mixer_norm', f'{at}.input_layernorm') | theirs.norm(
      'ffn_norm', f'{at}.post_attention_layernorm'
    )
    return found | norms

  found = {'embed/table': theirs['model.embed_tokens.weight'], **theirs.norm('norm', 'model.norm')}
  return found | copying.stacked('segment_0/block_0', range(layers), block) | theirs.dense('head/head', 'lm_head')


def mixtral_pair(layers=L):
  import transformers

  config = transformers.MixtralConfig(
    vocab_size=V, hidden_size=D, num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=F, num_local_experts=E, rms_norm_eps=1e-5, max_position_embeddings=64, sliding_window=None,
    rope_parameters={'rope_type': 'default', 'rope_theta': 1e6}, attn_implementation='eager',
  )  # fmt: skip
  return mixtral.mixtral(layers, D, 4, 2, F, V), transformers.MixtralForCausalLM(config)


def qwen3_pair():
  import transformers

  config = transformers.Qwen3MoeConfig(
    vocab_size=V, hidden_size=D, num_hidden_layers=L, num_attention_heads=N, num_key_value_heads=K, head_dim=H,
    moe_intermediate_size=F, num_experts=E, num_experts_per_tok=3, norm_topk_prob=True, rms_norm_eps=1e-6,
    rope_parameters={'rope_type': 'default', 'rope_theta': 1e6}, attn_implementation='eager', use_sliding_window=False,
  )  # fmt: skip
  spec = qwen3_moe.qwen3_moe(L, D, N, F, H, E, 3)
  return dataclasses.replace(spec, vocab=V), transformers.Qwen3MoeForCausalLM(config)


@pytest.mark.parametrize('pair', [mixtral_pair, qwen3_pair])
def test_logits_and_gradients_are_the_same(pair):
  import torch

  spec, model = pair()
  model = copying.randomized(model, 0.1)
  params = copying.tree(spec, flat_of(copying.Theirs(model.state_dict())))
  ids, mask = copying.tokens(2, 12), np.ones((2, 12), int)
  mask[1, 9:] = 0
  target = np.random.default_rng(1).standard_normal((2, 12, V)).astype(np.float32) * mask[..., None]
  theirs = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits
  (theirs * torch.tensor(target)).sum().backward()
  inputs = {'input_ids': jnp.asarray(ids), 'attention_mask': jnp.asarray(mask)}
  ours = copying.logits(spec, params, input_ids=ids, attention_mask=mask)
  np.testing.assert_allclose(ours[mask > 0], theirs.detach().numpy()[mask > 0], atol=3e-5, rtol=3e-5)
  grads = copying.tree(spec, flat_of(copying.Theirs({n: p.grad for n, p in model.named_parameters()})))
  loss = lambda p: jnp.sum(transformer.apply(spec, p, **inputs)['logits'] * target)
  copying.assert_same_gradients(jax.jit(jax.grad(loss))(params), grads)


def test_the_balance_loss_of_a_layer_is_that_of_transformers_over_k_with_padding_left_out():
  import torch

  spec, model = mixtral_pair(1)
  spec = config_lib.override(config_lib.override(spec, '..router.balance', '1'), '..router.z', '0')
  model = copying.randomized(model, 0.1)
  params = copying.tree(spec, flat_of(copying.Theirs(model.state_dict()), 1))
  ids, mask = copying.tokens(2, 12), np.ones((2, 12), int)
  mask[1, 9:] = 0
  with torch.no_grad():
    theirs = model(torch.tensor(ids), attention_mask=torch.tensor(mask), output_router_logits=True).aux_loss.item()
  ours = jax.jit(lambda p: transformer.apply(spec, p, input_ids=jnp.asarray(ids), attention_mask=jnp.asarray(mask)))
  assert float(ours(params)['aux']) == pytest.approx(theirs / 2, rel=1e-5)


def deepseek(version):
  """DeepSeek's mixture of 8 experts in 4 groups with 2 shared ones, and ours."""
  import torch
  import transformers

  torch.manual_seed(0)
  fields = {
    'hidden_size': D, 'moe_intermediate_size': F, 'n_shared_experts': 2, 'num_experts_per_tok': 3, 'n_group': 4,
    'topk_group': 2, 'routed_scaling_factor': 2.5, 'norm_topk_prob': version == 3,
  }  # fmt: skip
  if version == 3:
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    theirs = DeepseekV3MoE(transformers.DeepseekV3Config(**fields, n_routed_experts=E))
    theirs.gate.e_score_correction_bias.copy_(torch.randn(E) * 0.3)
    router = Grouped(k=3, scale=2.5, groups=4, keep=2)
  else:
    from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2Moe

    method = {'topk_method': 'group_limited_greedy'}
    theirs = DeepseekV2Moe(transformers.DeepseekV2Config(**fields, **method, n_routed_experts=E))
    router = Grouped(0, 0, 3, 'softmax', False, 2.5, 4, 2, 'max', None)
  for p in theirs.parameters():
    p.data = torch.randn(p.shape) * 0.3
  return theirs, Moe(E, router, Glu(F), Glu(2 * F))


@pytest.mark.parametrize('version', [2, 3])
def test_groups_bias_scale_and_shared_experts_are_deepseeks(version):
  import torch

  module, moe = deepseek(version)
  theirs = copying.Theirs(module.state_dict())
  shared = {}
  for n in ('gate', 'up', 'down'):
    shared |= theirs.dense(f'shared/{n}', f'shared_experts.{n}_proj')
  flat = experts_of(theirs, '', '') | shared
  if version == 3:
    flat['router/bias'] = theirs['gate.e_score_correction_bias']
  params = {}
  for name, w in flat.items():
    *path, last = name.split('/')
    at = params
    for key in path:
      at = at.setdefault(key, {})
    at[last] = jnp.asarray(w)
  x = np.random.default_rng(0).standard_normal((2, 9, D)).astype(np.float32)
  ones = jnp.ones((2, 9), jnp.int32)
  dims = Dims(D, 1, init.Normal(), Run())
  run = jax.jit(lambda p, x: moe.make(dims).apply({'params': p}, x, Ctx(Site(ones, ones)))[0])
  with torch.no_grad():
    expected = module(torch.tensor(x)).numpy()
  np.testing.assert_allclose(run(params, jnp.asarray(x)), expected, atol=1e-4, rtol=1e-4)
