"""Logits and drafts of DeepSeek-V3 with multi-token prediction match transformers.

The model without these modules is tested in tests/hub.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles import copying
from tests.oracles.copying import Flat, Theirs, stacked
from tfm.model import mtp, transformer
from tfm.parts.ffn import Glu, Moe
from tfm.parts.mixer import MLA
from tfm.parts.mtp import SequentialMTP
from tfm.parts.relative import RoPE
from tfm.parts.router import Grouped
from tfm.zoo.deepseek import deepseek

pytestmark = pytest.mark.oracle

V, D, N, R, NOPE, ROPE, H, F, L = 61, 32, 4, 16, 8, 4, 12, 48, 2
_SIZES = {
  'vocab_size': V, 'hidden_size': D, 'num_hidden_layers': L, 'num_attention_heads': N,
  'num_key_value_heads': N,
  'intermediate_size': F, 'max_position_embeddings': 64, 'kv_lora_rank': R,
  'qk_nope_head_dim': NOPE,
  'qk_rope_head_dim': ROPE, 'v_head_dim': H, 'first_k_dense_replace': L, 'pad_token_id': 0,
}  # fmt: skip
_PLAIN = {'rope_type': 'default', 'rope_theta': 10_000.0}


def block_flat(t: Theirs, at: str, q_rank: int | None) -> Flat:
  """Return one dense layer.

  Args:
    t: The state dict.
    at: The path of the layer.
    q_rank: The rank of the queries, None for full queries.

  Returns:
    The parameters of tfm by path.
  """
  found = attention_flat(t, at, q_rank)
  for n in ('gate', 'up', 'down'):
    found |= t.dense(f'ffn/{n}', f'{at}.mlp.{n}_proj')
  return found


def attention_flat(t: Theirs, at: str, q_rank: int | None) -> Flat:
  """Return the attention and the norms of one layer.

  Args:
    t: The state dict.
    at: The path of the layer.
    q_rank: The rank of the queries, None for full queries.

  Returns:
    The parameters of tfm by path.
  """
  mixer = f'{at}.self_attn'
  found = t.norm('mixer_norm', f'{at}.input_layernorm') | t.norm(
    'ffn_norm', f'{at}.post_attention_layernorm'
  )
  down = t.dense('x', f'{mixer}.kv_a_proj_with_mqa')
  for name, a in down.items():
    found |= {f'mixer/c/{name[2:]}': a[..., :R], f'mixer/k_rope/{name[2:]}': a[..., R:]}
  found |= t.norm('mixer/c_norm', f'{mixer}.kv_a_layernorm')
  up = t[f'{mixer}.kv_b_proj.weight'].T.reshape(R, N, NOPE + H)
  found |= {'mixer/k/kernel': up[..., :NOPE], 'mixer/v/kernel': up[..., NOPE:]}
  queries = t.dense('mixer/q', f'{mixer}.q_proj' if q_rank is None else f'{mixer}.q_b_proj')
  found |= {k: v.reshape(-1, N, NOPE + ROPE) for k, v in queries.items()}
  if q_rank is not None:
    found |= t.dense('mixer/q_latent', f'{mixer}.q_a_proj') | t.norm(
      'mixer/q_norm', f'{mixer}.q_a_layernorm'
    )
  for name, a in t.dense('mixer/o', f'{mixer}.o_proj').items():
    found[name] = a.reshape(N, H, D) if name.endswith('kernel') else a
  return found


def experts_flat(t: Theirs, at: str) -> Flat:
  """Return the experts of one layer, with shared experts and the router bias."""
  gate, up = np.split(t[f'{at}.experts.gate_up_proj'].transpose(0, 2, 1), 2, -1)
  down = t[f'{at}.experts.down_proj'].transpose(0, 2, 1)
  found = {f'ffn/expert/{n}/kernel': w for n, w in (('gate', gate), ('up', up), ('down', down))}
  for n in ('gate', 'up', 'down'):
    found |= t.dense(f'ffn/shared/{n}', f'{at}.shared_experts.{n}_proj')
  found['ffn/router/bias'] = t[f'{at}.gate.e_score_correction_bias']
  return found | t.dense('ffn/router/score', f'{at}.gate')


def v3_with_modules():
  """Return transformers' model and its MTP modules, and the spec and parameters of tfm."""
  import torch
  import transformers
  from transformers.modeling_layers import MtpModel

  torch.manual_seed(0)
  fields = _SIZES | {
    'num_hidden_layers': 3, 'first_k_dense_replace': 1, 'moe_intermediate_size': 24,
    'n_routed_experts': 8,
    'n_shared_experts': 1, 'num_experts_per_tok': 3, 'n_group': 4, 'topk_group': 2,
    'q_lora_rank': 20,
    'rope_parameters': _PLAIN, 'routed_scaling_factor': 2.5, 'norm_topk_prob': True,
  }  # fmt: skip
  config = transformers.DeepseekV3Config(**fields, attn_implementation='eager')
  model = copying.randomized(transformers.DeepseekV3ForCausalLM(config), 0.1)
  for layer in model.model.layers[1:]:
    layer.mlp.gate.e_score_correction_bias.copy_(0.3 * torch.randn(8))
  # The MTP modules count layers from 0, and would make the first one dense.
  model.config.first_k_dense_replace = 0
  ahead = MtpModel(model, 2)
  for p in ahead.layers.parameters():
    p.data = p.data + 0.1 * torch.randn(p.shape)
  ahead.config._attn_implementation = 'eager'

  t, further = Theirs(model.state_dict()), Theirs(ahead.layers.state_dict())
  attention = MLA(N, 20, R, NOPE, ROPE, H, RoPE(1e4, 'interleaved'))
  router = Grouped(k=3, scale=2.5, groups=4, keep=2)
  moe = Moe(8, router, Glu(24), shared=Glu(24))
  spec = dataclasses.replace(deepseek(3, 1, D, attention, F, V, moe), mtp=SequentialMTP(2))

  block = lambda t, at: attention_flat(t, at, 20) | experts_flat(t, f'{at}.mlp')
  flat = stacked('segment_0/block_0', range(1), lambda i: block_flat(t, f'model.layers.{i}', 20))
  flat |= stacked('segment_1/block_0', range(1, 3), lambda i: block(t, f'model.layers.{i}'))
  flat |= (
    {'embed/table': t['model.embed_tokens.weight']}
    | t.norm('norm', 'model.norm')
    | t.dense('head/head', 'lm_head')
  )
  for k in (1, 2):
    at, ours = f'{k - 1}', f'mtp/depth_{k}'
    flat |= stacked(
      f'{ours}/segment_0/block_0', range(1), lambda _, at=at: block(further, f'{at}.mtp_block')
    )
    flat |= further.norm(f'{ours}/join/embed_norm', f'{at}.enorm') | further.norm(
      f'{ours}/norm', f'{at}.post_norm'
    )
    flat |= further.norm(f'{ours}/join/hidden_norm', f'{at}.hnorm')
    flat |= further.dense(f'{ours}/join/project', f'{at}.eh_proj')
  return model, ahead.eval(), spec, copying.tree(spec, flat)


def test_v3_logits_and_drafts_match_transformers():
  import torch

  model, ahead, spec, params = v3_with_modules()
  ids = copying.tokens(2, 12)
  with torch.no_grad():
    out = model.model(torch.tensor(ids)).last_hidden_state
    logits = model.lm_head(out)
    following = torch.cat([torch.tensor(ids)[:, 1:], logits[:, -1:].argmax(-1)], 1)
    where = torch.arange(1, 13)[None].expand(2, -1)
    drafted, theirs, _ = ahead(following, out, None, where, None)

  @jax.jit
  def run(params):
    out = transformer.apply(spec, params, input_ids=ids)
    next_BT = jnp.concatenate(
      [ids[:, 1:], jnp.argmax(out['logits'][:, -1:], -1).astype(jnp.int32)], 1
    )
    return out['logits'], mtp.draft(
      spec, params, mtp.init_cache(spec, 2, 16), out['mtp_state'], next_BT
    )

  ours, draft = run(params)
  np.testing.assert_allclose(ours, logits.numpy(), atol=3e-5, rtol=3e-5)
  np.testing.assert_array_equal(draft['tokens'], drafted.numpy())
  np.testing.assert_allclose(draft['logits'], theirs.numpy(), atol=3e-5, rtol=3e-5)
