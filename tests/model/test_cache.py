"""A rewound cache equals a cache without the dropped tokens, per sequence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.model import transformer
from tfm.model.cache import cache_letters, init_cache, rewind
from tfm.parts.cache import TABLE, DenseCache, Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run

_rng = np.random.default_rng(0)
ROWS = _rng.integers(1, 61, (3, 14)).astype(np.int32)
OTHER = _rng.integers(1, 61, (3, 5)).astype(np.int32)
LENGTHS = [6, 4, 5]
ACCEPTED = [0, 3, 5]


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(spec, run, params, cache, ids, mask=None):
  out = transformer.apply(spec, params, run=run, cache=cache, input_ids=ids, attention_mask=mask)
  return out['logits'], out['cache']


@functools.partial(jax.jit, static_argnums=0)
def whole(spec, params, ids):
  return transformer.apply(spec, params, input_ids=ids)['logits']


def prompts(left):
  """Return tokens and mask `[3, 6]` of the first 6, 4 and 5 tokens of each sequence."""
  ids, mask = np.zeros((2, 3, 6), np.int32)
  for i, n in enumerate(LENGTHS):
    place = slice(6 - n, 6) if left else slice(0, n)
    ids[i, place], mask[i, place] = ROWS[i, :n], 1
  return ids, mask


def prefilled(spec, run, left=True, slots=16):
  cache = init_cache(spec, 3, slots, kind=run.cache)
  return apply(spec, run, weights(spec), cache, *prompts(left))


@functools.cache
def expected(spec, run):
  """Return logits of whole sequences, through the cache if it rounds."""
  if run.cache.exact:
    return np.asarray(whole(spec, weights(spec), ROWS))
  return np.asarray(
    apply(spec, run, weights(spec), init_cache(spec, 3, 16, kind=run.cache), ROWS)[0]
  )


def runs():
  kinds = {name: row() for name, row in TABLE.items()}
  kinds |= {
    'paged-by-3': PagedCache(3),
    'ring-of-5': RingCache(5),
    'int8-ring': Int8Cache(RingCache(5)),
  }
  return {name: Run(cache=kind) for name, kind in kinds.items()}


@pytest.mark.parametrize('kind', runs())
@pytest.mark.parametrize('name', ['rope_gqa', 'window'])
@pytest.mark.parametrize('left', [True, False])
@pytest.mark.large(
  when=lambda kind, name, left: (
    left == (name == 'rope_gqa') or (not left and kind.startswith(('ring', 'paged', 'int8-ring')))
  )
)
def test_rewound_sequences_continue_as_before(kind, name, left):
  spec, run = MODELS[name], runs()[kind]
  _, cache = prefilled(spec, run, left)
  assert cache['slot'].tolist() == cache['next'].tolist() == LENGTHS
  # Five drafted tokens, of which the first 0, 3 and 5 are correct.
  draft = OTHER.copy()
  for i, (n, a) in enumerate(zip(LENGTHS, ACCEPTED, strict=True)):
    draft[i, :a] = ROWS[i, n : n + a]
  _, after = apply(spec, run, weights(spec), cache, draft)
  assert after['slot'].tolist() == [n + 5 for n in LENGTHS]
  rewound = rewind(after, cache['slot'] + jnp.asarray(ACCEPTED))
  assert (
    rewound['slot'].tolist()
    == rewound['next'].tolist()
    == [n + a for n, a in zip(LENGTHS, ACCEPTED, strict=True)]
  )
  following = [n + a for n, a in zip(LENGTHS, ACCEPTED, strict=True)]
  for _ in range(3):
    ids = np.stack([ROWS[i, n : n + 1] for i, n in enumerate(following)])
    logits, rewound = apply(spec, run, weights(spec), rewound, ids)
    for i, n in enumerate(following):
      np.testing.assert_allclose(logits[i, 0], expected(spec, run)[i, n], rtol=1e-4, atol=1e-4)
    following = [n + 1 for n in following]


@pytest.mark.parametrize('kind', runs())
def test_dropped_tokens_are_masked_out(kind):
  spec, run = MODELS['rope_gqa'], runs()[kind]
  _, cache = prefilled(spec, run)
  step = lambda c, ids, pos: transformer.apply(
    spec, weights(spec), run=run, cache=c, input_ids=ids, position_ids=pos
  )['logits']
  _, after = apply(spec, run, weights(spec), cache, OTHER[:, :2])
  far = jnp.full((3, 1), 30)
  jitted = jax.jit(step)
  found = jitted(rewind(after, cache['slot']), ROWS[:, :1], far)
  np.testing.assert_allclose(found, jitted(cache, ROWS[:, :1], far), rtol=1e-5, atol=1e-5)
  assert np.abs(found - jitted(after, ROWS[:, :1], far)).max() > 1e-2


@pytest.mark.parametrize('kind', [DenseCache(), Int8Cache(), RingCache(3), PagedCache(5)])
def test_letters_name_the_heads_of_every_kind_of_cache(kind):
  cache = jax.eval_shape(lambda: init_cache(MODELS['rope_gqa'], 3, 40, kind=kind))
  letters = jax.tree_util.tree_leaves_with_path(cache_letters(cache)['layers'])
  for (path, axes), array in zip(letters, jax.tree.leaves(cache['layers']), strict=True):
    by_head = 'arrays' in jax.tree_util.keystr(path)
    assert axes == ('LBK--' if by_head else 'LB' + '-' * (array.ndim - 2))
    assert not by_head or array.shape[2] == 2
