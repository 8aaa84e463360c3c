"""Meshes of eight devices match one device, and communicate no more than they need."""

import math

import jax
import pytest

from tests.train import grid
from tfm.core import config
from tfm.train import shard
from tfm.train.mesh import Mesh

MESHES = {
  'data': Mesh(8),
  'fsdp': Mesh(1, 8),
  'tensor': Mesh(1, 2, 4),
  'sequence': Mesh(2, sequence=4),
  'expert': Mesh(2, expert=4),
  'all': Mesh(1, 2, 2, 2),
}
#: The cases of the normal run: each mesh, and each model.
USUAL = {
  ('tensor', 'gqa'),
  ('sequence', 'local'),
  ('expert', 'capacity'),
  ('all', 'encoder_decoder'),
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp('grid')


@pytest.fixture(scope='module')
def single(folder):
  """Return `name -> outcome on one device`, computed once per model."""
  found = {}

  def outcome(name):
    if name not in found:
      found[name] = grid.run(grid.case(folder, name), Mesh(), jax.devices()[:1])
    return found[name]

  return outcome


@pytest.mark.parametrize('model', grid.MODELS)
@pytest.mark.parametrize('mesh', MESHES)
@pytest.mark.large(when=lambda mesh, model: (mesh, model) not in USUAL)
def test_ten_steps_match_one_device(folder, single, mesh, model):
  outcome = grid.run(grid.case(folder, model), MESHES[mesh], jax.devices())
  for name, error in grid.largest_error(outcome, single(model)).items():
    assert error < 1e-5, f'{name} differ by {error}'
  # Parameters and momentum, without vectors.
  ways = math.prod(MESHES[mesh].sizes(8)[axis] for axis in ('fsdp', 'tensor'))
  held = max(shard.bytes_per_device(outcome.state).values())
  whole = sum(shard.bytes_per_device(single(model).state).values())
  assert held <= 1.25 * whole / ways


@pytest.mark.parametrize('attend', ['auto', 'ring'])
def test_sequence_parallel_attention_gathers_no_activation(folder, attend):
  x = config.override(grid.case(folder, 'local'), 'attend', attend)
  found = grid.collectives(grid.compiled(x, Mesh(2, sequence=4)))
  moved = {'auto': 'all-to-all', 'ring': 'collective-permute'}[attend]
  # The ids of segments and positions of 4 x 16 tokens may be gathered.
  gathered = {c.shape for c in found if c.name == 'all-gather' and c.dtype == 'f32'}
  assert all(len(shape) < 3 for shape in gathered)
  assert {c.name for c in found} <= {'all-gather', moved}
  # Queries, keys, values and outputs, or keys and values and later their gradients, both ways.
  sent = {c.shape for c in found if c.name == moved}
  assert all(len(shape) >= 5 for shape in sent)
  assert sum(n for c, n in found.items() if c.name == moved) >= 6


@pytest.mark.parametrize(('model', 'sent'), [('moe', 32), ('capacity', 20)])
@pytest.mark.large(when=lambda model: model == 'capacity')
def test_tokens_travel_to_experts_by_all_to_all(folder, model, sent):
  found = grid.collectives(grid.compiled(grid.case(folder, model), Mesh(1, 1, 2, 1, 4)))
  # Of the 2 x 16 tokens of a device, at most 5 choose each of two experts at a capacity of 1.25.
  moved = {c.shape for c in found if c.name == 'all-to-all'}
  assert moved == {(sent, 32), (sent, 2)}
  gathered = {c.shape for c in found if c.name == 'all-gather'}
  assert gathered <= {(32, 8)}  # the gradient of the router


def test_fsdp_gathers_only_parameters(folder):
  x = grid.case(folder, 'gqa')
  found = grid.collectives(grid.compiled(x, Mesh(1, 2, 2, 2)))
  gathered = {c.shape for c in found if c.name == 'all-gather'}
  # No activation, and one layer at a time. Heads are merged, and tensor splits each weight. The
  # token ids (8, 8) are gathered for the lookup in a split table.
  assert gathered == {(8, 8), (16, 32), (32,), (32, 4), (32, 16), (32, 32), (128, 32)}
  assert {c.name for c in found} == {'all-gather', 'all-to-all'}
