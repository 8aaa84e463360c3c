"""Input layers of vectors, codes and latents: formulas, masks and cached decoding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.towers import (
  apply,
  block,
  causal,
  close,
  embedded,
  linear,
  model,
  normal,
  params,
  source,
)
from tfm.core import errors
from tfm.model import transformer
from tfm.model.cache import init_cache
from tfm.model.spec import Model
from tfm.parts.absolute import Learned
from tfm.parts.cross import CrossAttention
from tfm.parts.embed import Codes, Features, Latents
from tfm.parts.ffn import Glu
from tfm.parts.norm import LayerNorm

B, T = 2, 6


def stepped(spec, p, inputs, prompt):
  """Return predictions of a cached prompt, followed by single cached steps."""
  (time,) = {value.shape[1] for value in inputs.values()}
  out = apply(spec, p, {n: x[:, :prompt] for n, x in inputs.items()}, init_cache(spec, B, 24))
  found = [out['predictions']]
  for t in range(prompt, time):
    out = apply(spec, p, {n: x[:, t : t + 1] for n, x in inputs.items()}, out['cache'])
    found.append(out['predictions'])
  return jnp.concatenate(found, 1)


def test_features_are_projected_and_add_time_steps():
  spec = model(Features('states', 5, timesteps=9))
  p, x, time = params(spec), normal(B, T, 5), jnp.arange(B * T).reshape(B, T) % 9
  weights = p['embed']
  expected = linear(x, weights['project']) + np.asarray(weights['timesteps'])[time]
  close(embedded(spec, p, {'states': x, 'timesteps': time}), expected)


def test_features_of_the_model_width_need_no_projection():
  spec = model(Features(size=32, project=False))
  x = normal(B, T, 32)
  assert 'embed' not in params(spec)
  close(embedded(spec, params(spec), {'inputs_embeds': x}), x)


@pytest.mark.parametrize(
  'embed', [Features('states', 5), Codes(3, 11)], ids=['embed=features', 'embed=codes']
)
def test_padding_does_not_affect_other_tokens(embed):
  spec = causal(embed)
  p, inputs = params(spec), embed.example(jax.random.key(0), B, T)
  ((name, x),) = inputs.items()
  alone = apply(spec, p, inputs)['predictions']
  noise = jnp.ones((B, 2, *x.shape[2:]), x.dtype) * 2
  padded = {
    name: jnp.concatenate([noise, x], 1),
    'attention_mask': jnp.ones((B, T + 2), int).at[:, :2].set(0),
  }
  close(apply(spec, p, padded)['predictions'][:, 2:], alone)


@pytest.mark.parametrize(
  'embed', [Features('states', 5), Codes(3, 11)], ids=['embed=features', 'embed=codes']
)
def test_packed_sequences_are_independent(embed):
  spec = causal(embed, absolute=Learned(16))
  p = params(spec)
  ((name, x),) = embed.example(jax.random.key(0), B, T).items()
  packed = {
    name: x.reshape(1, B * T, *x.shape[2:]),
    'segment_ids': jnp.repeat(jnp.arange(1, B + 1), T)[None],
  }
  close(
    apply(spec, p, packed)['predictions'].reshape(B, T, 3), apply(spec, p, {name: x})['predictions']
  )


@pytest.mark.parametrize(
  'embed', [Features('states', 5), Codes(3, 11)], ids=['embed=features', 'embed=codes']
)
def test_cached_features_match_the_full_forward_pass(embed):
  spec = causal(embed, absolute=Learned(32))
  p, inputs = params(spec), embed.example(jax.random.key(0), B, T)
  close(stepped(spec, p, inputs, 3), apply(spec, p, inputs)['predictions'])


def test_code_embeddings_are_summed_over_codebooks():
  spec = model(Codes(3, 11, scale=2.0))
  p, ids = params(spec), np.random.default_rng(0).integers(0, 11, (B, T, 3))
  table_UVD = np.asarray(p['embed']['table'])
  assert table_UVD.shape == (3, 11, 32)
  close(
    embedded(spec, p, {'input_ids': jnp.asarray(ids)}),
    2 * sum(table_UVD[k][ids[..., k]] for k in range(3)),
  )


def perceiver() -> Model:
  """Return 4 latents that read vectors once and then think."""
  reader = block(mixer=None, cross=CrossAttention(4, tower='inputs'), ffn=Glu(48))
  return model(Latents(4), reader, block(), towers={'inputs': source(norm=LayerNorm())})


def test_latents_accept_a_tower_of_any_length():
  spec = perceiver()
  p = params(spec)
  for length in (1, 7):
    out = apply(spec, p, {'vectors': normal(B, length, 5)})
    assert out['predictions'].shape == (B, 4, 3)
  one, two = (apply(spec, p, {'vectors': normal(B, T, 5, seed=s)})['predictions'] for s in (1, 2))
  assert np.abs(one - two).max() > 1e-3


def test_latents_ignore_padding_and_order_of_the_tower():
  spec = perceiver()
  p, x = params(spec), normal(B, T, 5)
  alone = apply(spec, p, {'vectors': x})['predictions']
  close(apply(spec, p, {'vectors': x[:, ::-1]})['predictions'], alone)
  mask = jnp.ones((B, T + 2), int).at[:, T:].set(0)
  padded = {'vectors': jnp.concatenate([x, normal(B, 2, 5, seed=9)], 1), 'attention_mask': mask}
  close(apply(spec, p, padded)['predictions'], alone)


def test_latents_with_a_cache_are_an_error():
  spec = perceiver()
  with pytest.raises(errors.UserError, match='a cache cannot be used with embed=latents'):
    transformer.apply(
      spec, params(spec), cache=init_cache(spec, B, 8, source=T), vectors=normal(B, T, 5)
    )
