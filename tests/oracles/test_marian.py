"""The original encoder-decoder gives the logits of transformers' Marian, whose sinusoids come in halves."""

import dataclasses

import numpy as np
import pytest

from oracles import copying
from tfm.core import config
from tfm.zoo import vaswani

pytestmark = pytest.mark.oracle
L, D, N, V = 2, 32, 4, 61


def spec_of():
  spec = dataclasses.replace(vaswani.vaswani(D, N, 0.0), vocab=V)
  for path, value in {'..repeats': '2', '..absolute.layout': 'halves', '..norm.eps': '1e-5'}.items():
    spec = config.override(spec, path, value)
  return spec


def flat_of(t: copying.Theirs) -> copying.Flat:
  def attention(ours, name):
    found = t.merge(f'{ours}/o', f'{name}.out_proj')
    return found | {k: v for n in 'qkv' for k, v in t.heads(f'{ours}/{n}', f'{name}.{n}_proj').items()}

  def stack(name, cross):
    def block(i):
      at = f'model.{name}.layers.{i}'
      found = attention('mixer', f'{at}.self_attn') | t.norm('mixer_norm', f'{at}.self_attn_layer_norm')
      if cross:
        found |= attention('cross', f'{at}.encoder_attn') | t.norm('cross_norm', f'{at}.encoder_attn_layer_norm')
      found |= t.dense('ffn/up', f'{at}.fc1') | t.dense('ffn/down', f'{at}.fc2')
      return found | t.norm('ffn_norm', f'{at}.final_layer_norm')

    return copying.stacked('segment_0/block_0', range(L), block)

  encoder = {f'encoder/{k}': v for k, v in stack('encoder', False).items()}
  return {'embed/table': t['model.shared.weight'], **stack('decoder', True), **encoder}


def random_marian():
  """Their model, every parameter but the fixed sinusoids drawn anew."""
  import torch
  import transformers

  config_ = transformers.MarianConfig(
    vocab_size=V, d_model=D, encoder_layers=L, decoder_layers=L, encoder_attention_heads=N,
    decoder_attention_heads=N, encoder_ffn_dim=4 * D, decoder_ffn_dim=4 * D, activation_function='relu',
    scale_embedding=True, max_position_embeddings=32, pad_token_id=0, decoder_start_token_id=0, eos_token_id=1,
    attn_implementation='eager',
  )  # fmt: skip
  model = transformers.MarianMTModel(config_)
  fixed = {n: p.detach().clone() for n, p in model.named_parameters() if 'embed_positions' in n}
  copying.randomized(model, 0.1)
  with torch.no_grad():
    for name, p in model.named_parameters():
      if name in fixed:
        p.copy_(fixed[name])
  return model


def test_logits_are_the_same_with_a_padded_source():
  import torch

  model = random_marian()
  source, target, mask = copying.tokens(2, 11), copying.tokens(2, 7, seed=1), np.ones((2, 11), int)
  mask[1, 8:] = 0
  with torch.no_grad():
    theirs = model(
      input_ids=torch.tensor(source), attention_mask=torch.tensor(mask), decoder_input_ids=torch.tensor(target)
    ).logits.numpy()
  spec = spec_of()
  params = copying.tree(spec, flat_of(copying.Theirs(model.state_dict())))
  ours = copying.logits(spec, params, input_ids=source, attention_mask=mask, decoder_input_ids=target)
  np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=2e-5)
