"""Vectors of another tower in place of placeholder tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parts.towers import apply, block, causal, close, embedded, linear, normal, params, source
from tfm.core import errors
from tfm.model import transformer
from tfm.model.cache import init_cache
from tfm.model.spec import Model, Segment, Tower
from tfm.parts.absolute import Learned
from tfm.parts.cross import CrossAttention
from tfm.parts.embed import Latents, Splice, Tokens
from tfm.parts.head import Lm, Regress

B, T = 2, 6


PLACE, WORDS = 63, 61


def llava(act=True, lead=0, **fields) -> Model:
  """Return a causal model over text and the vectors of a tower."""
  embed = Splice(Tokens(WORDS), placeholder=PLACE, lead=lead, **({} if act else {'act': None}))
  heads = {'lm': Lm(), 'regress': Regress(3)}
  return causal(
    embed, towers={'vision': source('pixel_values')}, heads=heads, absolute=Learned(32), **fields
  )


def prompt(*places: int, length: int = T) -> jax.Array:
  """Return ids `[B, length]` with placeholders at `places`, shifted by 2 per sequence."""
  ids = np.random.default_rng(0).integers(0, WORDS, (B, length))
  for row in range(B):
    ids[row, [p + 2 * row for p in places]] = PLACE
  return jnp.asarray(ids, jnp.int32)


@pytest.mark.parametrize('act', [True, False], ids=lambda a: f'layers={1 + a}')
def test_projected_vectors_replace_placeholders(act):
  spec = llava(act)
  p, ids, x = params(spec), prompt(1, 2, 3), normal(B, 3, 5)
  found = embedded(spec, p, {'input_ids': ids, 'pixel_values': x})
  weights = p['embed']['project']
  y = linear(linear(x, p['vision']['embed']['project']), weights['in'])
  if act:
    y = linear(jax.nn.gelu(y, approximate=False), weights['out'])
  expected = np.array(p['embed']['text']['table'])[np.where(ids == PLACE, 0, ids)]
  for row in range(B):
    expected[row, np.asarray(ids[row] == PLACE)] = y[row]
  close(found, expected + np.asarray(p['absolute']['table'])[:T])


def test_sequences_can_have_any_number_of_images():
  spec = llava()
  p, x = params(spec), normal(2, 2, 5)
  ids = prompt()
  both = ids.at[1, jnp.asarray([0, 1, 3, 4])].set(PLACE)
  found = apply(spec, p, {'input_ids': both, 'pixel_values': x})['logits']
  text = apply(spec, p, {'input_ids': ids})['logits']
  close(found[0], text[0])
  other = apply(spec, p, {'input_ids': both, 'pixel_values': x.at[1].set(0.0)})['logits']
  close(other[1, :3], found[1, :3])
  assert np.abs(other[1, 3:] - found[1, 3:]).max() > 1e-3


def test_leading_tokens_of_the_tower_are_left_out():
  spec = llava(lead=1)
  p, ids, x = params(spec), prompt(1, 2), normal(B, 3, 5)
  found = apply(spec, p, {'input_ids': ids, 'pixel_values': x})['logits']
  close(apply(spec, p, {'input_ids': ids, 'pixel_values': x.at[:, 0].set(9.0)})['logits'], found)
  assert np.isfinite(found).all()


def test_cached_decoding_after_an_image_matches_the_full_pass():
  spec = llava()
  p, ids, x = params(spec), prompt(0, 1), normal(B, 2, 5)
  whole = apply(spec, p, {'input_ids': ids, 'pixel_values': x})
  out = apply(spec, p, {'input_ids': ids[:, :4], 'pixel_values': x}, init_cache(spec, B, 16))
  found = [out['logits']]
  for t in range(4, T):
    out = apply(spec, p, {'input_ids': ids[:, t : t + 1]}, out['cache'])
    found.append(out['logits'])
  close(jnp.concatenate(found, 1), whole['logits'])


def test_precomputed_tower_outputs_are_accepted():
  spec = llava()
  p, ids, x = params(spec), prompt(1, 2), normal(B, 2, 5)
  whole = apply(spec, p, {'input_ids': ids, 'pixel_values': x})
  given = {'input_ids': ids, 'vision_outputs': whole['vision_last_hidden_state']}
  close(apply(spec, p, given)['logits'], whole['logits'])


def test_wrong_number_of_placeholders_is_an_error_or_nan():
  spec = llava()
  p, ids, x = params(spec), prompt(1, 2), normal(B, 3, 5)
  with pytest.raises(
    errors.UserError,
    match=r"4 placeholders \(id 63\), and tower 'vision' returns 6 vectors: 2 inputs",
  ):
    transformer.apply(spec, p, input_ids=ids, pixel_values=x)
  for wrong in (x, x[:, :1]):
    assert np.isnan(apply(spec, p, {'input_ids': ids, 'pixel_values': wrong})['logits']).all()
  with pytest.raises(errors.UserError, match='at most 12 placeholders'):
    apply(spec, p, {'input_ids': ids, 'pixel_values': normal(B, T + 1, 5)})


def test_query_tower_runs_only_with_images():
  reader = block(mixer=None, cross=CrossAttention(4, tower='vision'))
  towers = {
    'vision': source('pixel_values'),
    'queries': Tower(Latents(2, tower='vision'), segments=(Segment((reader,), 1),)),
  }
  spec = causal(
    Splice(Tokens(WORDS), tower='queries', placeholder=PLACE), heads={'lm': Lm()}, towers=towers
  )
  p, ids = params(spec), prompt(0, 1)
  one, two = (
    apply(
      spec, p, {'input_ids': ids, 'pixel_values': normal(B, 5, 5, seed=s)}, init_cache(spec, B, 8)
    )
    for s in (1, 2)
  )
  assert np.abs(one['logits'] - two['logits']).max() > 1e-3
  later = apply(spec, p, {'input_ids': jnp.ones((B, 1), jnp.int32)}, one['cache'])
  assert np.isfinite(later['logits']).all()
  assert 'queries_last_hidden_state' not in later
  assert np.isfinite(apply(spec, p, {'input_ids': jnp.ones((B, 3), jnp.int32)})['logits']).all()
