"""Axial rotary positions depend only on rows and columns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import zoo
from tfm.core import config, errors
from tfm.model import transformer
from tfm.parts.embed.base import unpadded
from tfm.parts.relative.axial import Axial
from tfm.parts.tokeninfo import with_grid

GRID = (3, 5)


def _scores(relative, q_BTNH, k_BTNH, at):
  rotated = [relative.rotate(x, at) for x in (q_BTNH, k_BTNH)]
  return np.asarray(jnp.einsum('BTNH,BSNH->BNTS', *rotated)[0, 0])


@pytest.mark.parametrize('layout', ['halves', 'interleaved'])
def test_axial_scores_depend_on_row_and_column_distance(layout):
  relative, info = Axial(layout=layout), with_grid(unpadded(1, 15), GRID)
  q, k = (
    jnp.broadcast_to(jax.random.normal(jax.random.key(i), (8,)), (1, 15, 1, 8)) for i in range(2)
  )
  at = np.asarray(relative.places(info))[0]
  scores = _scores(relative, q, k, jnp.asarray(at)[None])
  by_offset = {}
  for t, s in np.ndindex(15, 15):
    by_offset.setdefault(tuple(at[t] - at[s]), []).append(scores[t, s])
  assert len(by_offset) == (2 * GRID[0] - 1) * (2 * GRID[1] - 1)
  for values in by_offset.values():
    np.testing.assert_allclose(values, values[0], atol=1e-4)
  # Rows and columns are distinguished: no two offsets have the same score.
  firsts = np.sort([values[0] for values in by_offset.values()])
  assert np.diff(firsts).min() > 1e-5


def test_special_tokens_are_not_rotated():
  info = with_grid(unpadded(1, 17), GRID, lead=2)
  x = jax.random.normal(jax.random.key(0), (1, 17, 1, 8))
  y = Axial().rotate(x, Axial().places(info))
  np.testing.assert_array_equal(y[:, :3], x[:, :3])  # and the patch at (0, 0)
  assert np.abs(np.asarray(y - x))[:, 3:].max((0, 2, 3)).min() > 1e-3


@pytest.mark.parametrize('positions', ['rope', 'axial', 'alibi', 't5'])
def test_image_positions_can_be_swapped(positions):
  model = zoo.tiny(zoo.get('dinov2-small-registers'))
  model = config.override(model, 'embed.positions', 'none')
  plain = config.validate(model)
  model = config.validate(config.override(model, '..relative', positions))
  params = transformer.init(model, jax.random.key(0))
  x = jax.random.normal(jax.random.key(1), (1, 3, 16, 24))
  out = transformer.apply(model, params, pixel_values=x)['pooler_output']
  without = transformer.apply(plain, transformer.init(plain, jax.random.key(0)), pixel_values=x)[
    'pooler_output'
  ]
  assert np.isfinite(out).all()
  if positions in ('rope', 'axial'):  # these have no parameters
    assert np.abs(out - without).max() > 1e-4


def test_shared_axial_positions_equal_per_layer_ones():
  model = zoo.tiny(zoo.get('vit-base-16'))
  own = config.override(model, '..relative', 'axial')
  shared = dataclasses.replace(model, shared_relative=Axial())
  params = transformer.init(own, jax.random.key(0))
  x = jax.random.normal(jax.random.key(1), (2, 3, 16, 16))
  outs = [transformer.apply(m, params, pixel_values=x)['logits'] for m in (own, shared, model)]
  np.testing.assert_allclose(outs[0], outs[1], atol=1e-6)
  assert np.abs(outs[0] - outs[2]).max() > 1e-6


def test_axial_positions_of_text_are_an_error():
  model = config.override(zoo.get('gpt2'), '..relative', 'axial')
  with pytest.raises(errors.ConfigError, match="relative=axial needs 'grid' of each token"):
    config.validate(model)
