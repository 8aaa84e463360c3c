"""GPT-OSS's attention: a sink a head, biases everywhere, grouped heads and every other layer a window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oracles import copying
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.init import TABLE as INITS
from tfm.parts.mask import Causal, Window
from tfm.parts.mixer import Attention
from tfm.parts.relative import RoPE
from tfm.parts.site import Site

pytestmark = pytest.mark.oracle
D, N, K, H, T = 32, 4, 2, 8, 12


@pytest.mark.parametrize('layer', [0, 1], ids=['window', 'full'])
def test_attention_with_sinks_is_the_same(layer):
  import torch
  from transformers import GptOssConfig
  from transformers.models.gpt_oss import modeling_gpt_oss as theirs

  config = GptOssConfig(
    hidden_size=D, num_attention_heads=N, num_key_value_heads=K, head_dim=H, num_hidden_layers=2, sliding_window=4,
    rope_parameters={'rope_type': 'default', 'rope_theta': 1e4}, attn_implementation='eager',
  )  # fmt: skip
  module = copying.randomized(theirs.GptOssAttention(config, layer), 0.3)
  x = np.random.default_rng(0).normal(size=(1, T, D)).astype(np.float32)
  mask = Causal() & Window(4) if config.layer_types[layer] == 'sliding_attention' else Causal()
  pos = jnp.arange(T)[None]
  site = Site(pos, jnp.ones_like(pos))
  allowed = np.asarray(mask(site.rows(), site.columns()))[:, None]
  with torch.no_grad():
    bias = torch.where(torch.tensor(allowed), 0.0, torch.finfo(torch.float32).min)
    waves = theirs.GptOssRotaryEmbedding(config)(torch.tensor(x), torch.arange(T)[None])
    want = module(torch.tensor(x), position_embeddings=waves, attention_mask=bias)[0].numpy()

  flat = copying.Theirs(module.state_dict())
  params = {n: flat.heads('x', f'{n}_proj') for n in 'qkv'} | {'o': flat.merge('x', 'o_proj')}
  params = {n: {'kernel': p['x/kernel'], 'bias': p['x/bias']} for n, p in params.items()} | {'sink': flat['sinks']}
  spec = Attention(N, K, H, bias='qkvo', sink=True, relative=RoPE(1e4), mask=mask)
  ours = spec.make(Dims(D, 2, INITS['normal'](), Run()))
  got, _ = jax.jit(lambda p, x: ours.apply({'params': p}, x, Ctx(site, ordered=True)))(params, x)
  np.testing.assert_allclose(got, want, atol=2e-5, rtol=2e-5)
