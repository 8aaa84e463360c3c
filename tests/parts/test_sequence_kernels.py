"""Attention over split sequences matches one device, with gradients, for every kind of score."""

import contextlib
import itertools

from flax import linen as nn
import jax
import numpy as np
import pytest

from tests.parts import test_value_tables as value_tables
from tests.parts.attending import run_kernel
from tests.parts.test_attend import CASES, dense_results
from tfm.core import errors
from tfm.parts.attend.auto import Auto, recorded
from tfm.parts.attend.blockwise import Blockwise
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.attend.ring import Ring
from tfm.parts.attend.ulysses import Ulysses
from tfm.parts.mask import Causal
from tfm.train import shard
from tfm.train.mesh import Mesh

KERNELS = {'ring': Ring(8, 16), 'ulysses': Ulysses(Blockwise(8, 16))}
MESHES = {
  'four': Mesh(2, sequence=4),
  'two': Mesh(2, sequence=2, stage=2),
  'heads': Mesh(2, tensor=2, sequence=2),
}
USUAL = {('ring', 'four', 'all'), ('ulysses', 'two', 'all'), ('ulysses', 'four', 'most')}
#: Ulysses cannot repeat key/value heads if content terms depend on them.
REFUSED = {('ulysses', m, name) for m in ('four', 'heads') for name in ('content', 'all')}
ALL = set(itertools.product(KERNELS, MESHES, CASES)) - REFUSED


@contextlib.contextmanager
def over(mesh):
  """Split sequences, heads and batch over eight devices in this context."""
  with jax.set_mesh(shard.make_mesh(mesh)), nn.logical_axis_rules([*mesh.table().items()]):
    yield


def close(actual, expected):
  for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(('kernel', 'mesh', 'name'), sorted(ALL))
@pytest.mark.large(when=lambda kernel, mesh, name: (kernel, mesh, name) not in USUAL)
def test_split_sequences_match_dense_attention(kernel, mesh, name):
  with over(MESHES[mesh]):
    actual = run_kernel(KERNELS[kernel], CASES[name], 24, 24)
  close(actual, dense_results(name, 24, 24))


@pytest.mark.parametrize('S', [40, 21])
def test_ring_supports_other_and_indivisible_keys(S):
  with over(Mesh(2, sequence=4)):
    actual = run_kernel(Ring(8, 16), CASES['full'], 24, S)
  close(actual, dense_results('full', 24, S))


def test_ring_supports_position_vectors_of_values():
  arrays, _, infos = value_tables.inputs(value_tables.CASES['all'])
  of = lambda kernel: jax.jit(
    jax.grad(
      lambda *x: value_tables.weighted_sum(
        value_tables.attention(kernel, value_tables.CASES['all'], *infos)(*x)
      ),
      range(7),
    )
  )(*arrays)
  with over(Mesh(2, sequence=4)):
    actual = of(Ring(8, 16))
  close(actual, of(DenseAttention()))


@pytest.mark.parametrize('kernel', KERNELS)
def test_whole_sequences_use_the_kernel_itself(kernel):
  actual = run_kernel(KERNELS[kernel], {'mask': Causal()})
  expected = run_kernel(Blockwise(8, 16), {'mask': Causal()})
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_auto_exchanges_heads_if_devices_divide_them():
  with recorded() as choices, over(Mesh(2, tensor=1, sequence=4)):
    jax.eval_shape(lambda: run_kernel(Auto(), {}, 24, 24))
  assert [type(c.kernel) for c in choices] == [Ulysses]
  with recorded() as choices, over(Mesh(1, sequence=8)):
    jax.eval_shape(lambda: run_kernel(Auto(), {}, 24, 24))
  assert [type(c.kernel) for c in choices] == [Ring]
  assert choices[0].refused['ulysses'] == (
    '4 query heads do not split over 8 devices (tensor x sequence).'
  )


def test_indivisible_heads_are_an_error():
  expected = '^attend=ulysses: 4 query heads do not split .* Expected attend=ring'
  with over(Mesh(1, sequence=8)), pytest.raises(errors.UserError, match=expected):
    run_kernel(Ulysses(), {}, 24, 24)


def test_repeated_heads_with_content_terms_are_an_error():
  expected = '^attend=ulysses: 2 key/value heads cannot be repeated'
  with over(Mesh(2, sequence=4)), pytest.raises(errors.UserError, match=expected):
    run_kernel(Ulysses(), CASES['content'], 24, 24)
