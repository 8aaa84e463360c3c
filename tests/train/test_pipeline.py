"""Pipelines over stages match one device, and refuse what has no meaning in them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import grid
import tfm
from tfm.core import config
from tfm.core.errors import UserError
from tfm.model import transformer
from tfm.model.loops.pipeline import bubble
from tfm.model.spec import Block
from tfm.parts.context import Pipeline, Run
from tfm.parts.ffn import Glu, Moe
from tfm.parts.mixer import Attention
from tfm.parts.residual import TABLE as RESIDUALS
from tfm.parts.router import Grouped
from tfm.train import shard
from tfm.train.mesh import Mesh


def deep(x, block=None, **changes):
  """Return the experiment with four repeats of its segment."""
  segment = x.model.segments[0]
  pattern = segment.pattern if block is None else (block,)
  segments = (dataclasses.replace(segment, repeats=4, pattern=pattern, **changes),)
  return dataclasses.replace(x, model=dataclasses.replace(x.model, segments=segments))


@pytest.fixture(scope='module')
def x(tmp_path_factory):
  return deep(grid.case(tmp_path_factory.mktemp('pipeline'), 'gqa'))


@pytest.fixture(scope='module')
def single(x):
  return grid.run(x, Mesh(), jax.devices()[:1])


@pytest.mark.parametrize(
  'mesh',
  [
    Mesh(2, tensor=2, stage=2, rounds=2),
    Mesh(1, stage=4, fsdp=2),
    Mesh(2, sequence=2, stage=2, microbatches=1),
  ],
  ids=lambda mesh: f'fsdp={mesh.fsdp}-tensor={mesh.tensor}-stage={mesh.stage}',
)
@pytest.mark.large(when=lambda mesh: mesh.tensor == 1)
def test_ten_steps_match_one_device(x, single, mesh):
  outcome = grid.run(x, mesh, jax.devices())
  for name, error in grid.largest_error(outcome, single).items():
    assert error < 1e-5, f'{name} differ by {error}'
  held = max(shard.bytes_per_device(outcome.state['params']['segment_0']).values())
  whole = sum(shard.bytes_per_device(single.state['params']['segment_0']).values())
  assert held <= 1.25 * whole / (mesh.stage * mesh.fsdp * mesh.tensor)


def test_experts_and_their_load_match_one_device(x):
  router = Grouped(balance=0.0, z=0.0)
  x = deep(x, Block(Attention(8, 4), Moe(8, router, Glu(16)), dropout=0.0))
  one, many = (
    grid.run(x, mesh, devices, steps=2)
    for mesh, devices in ((Mesh(), jax.devices()[:1]), (Mesh(1, expert=2, stage=4), jax.devices()))
  )
  assert max(grid.largest_error(many, one).values()) < 1e-5


def test_stages_pass_activations_to_their_neighbours(x):
  found = grid.collectives(grid.compiled(x, Mesh(4, stage=2)))
  assert {(c.name, c.shape) for c in found} == {('collective-permute', (1, 1, 16, 32))}


@pytest.mark.parametrize('attend', ['ring', 'ulysses'])
@pytest.mark.large(when=lambda attend: attend == 'ulysses')
def test_pipelines_train_with_dropout_and_split_sequences(x, attend):
  x = config.override(
    deep(x, Block(Attention(8, 4, dropout=0.1), Glu(64), dropout=0.1)), 'seed', '1'
  )
  x = config.override(x, 'attend', attend)
  losses = grid.run(x, Mesh(2, sequence=2, stage=2), jax.devices(), steps=3).losses
  assert np.isfinite(losses).all()
  assert losses[-1] < losses[0]


def test_bubble_is_the_idle_share_of_the_steps():
  assert bubble(1, 8) == 0
  assert bubble(4, 4) == 3 / 7
  assert bubble(4, 8, rounds=2) == 3 / 19


def traced(x, mesh, pipeline=Pipeline(), batch=8, **options):
  """Trace a forward pass over stages."""
  rules = mesh.table()
  devices = shard.make_mesh(mesh)
  params = transformer.param_shapes(x.model)
  ids = jax.ShapeDtypeStruct((batch, 16), jnp.int32)
  forward = lambda params, ids: transformer.apply(
    x.model, params, run=Run(pipeline=pipeline), input_ids=ids, **options
  )
  return jax.eval_shape(shard.with_rules(devices, rules, forward), params, ids)


@pytest.mark.parametrize(
  ('pipeline', 'batch', 'message'),
  [
    (Pipeline(rounds=3), 8, 'mesh.stage: 4 repeats .* 4 stages x 3 rounds. Expected sizes that di'),
    (Pipeline(3), 8, 'mesh.microbatches: 3 do not divide a batch of 8 over 2 .* Expected one of 1'),
    (Pipeline(), 3, 'mesh.microbatches: 16 do not divide a batch of 3 over 2 .* a larger batch'),
  ],
  ids=str,
)
def test_indivisible_pipelines_are_errors(x, pipeline, batch, message):
  with pytest.raises(UserError, match=f'^{message}'):
    traced(x, Mesh(2, stage=4), pipeline, batch)


def test_rounds_need_a_micro_batch_for_each_stage(x):
  with pytest.raises(
    UserError, match=r'^mesh.rounds: 2 rounds need .* stages \(2\), and there are 1'
  ):
    traced(x, Mesh(4, stage=2), Pipeline(1, 2))


def test_shared_layers_have_no_stages(x):
  with pytest.raises(
    UserError, match=r'^mesh.stage: the repeats of a segment share .* mesh.stage=1'
  ):
    traced(deep(x, shared=True), Mesh(2, stage=4))


def test_residual_kinds_with_memory_have_no_stages(x):
  model = dataclasses.replace(x.model, residual=RESIDUALS['reversible']())
  with pytest.raises(UserError, match=r'^mesh.stage: the residual kind of the model keeps'):
    traced(dataclasses.replace(x, model=model), Mesh(2, stage=4))


def test_captured_activations_have_no_stages(x):
  with pytest.raises(UserError, match=r'^mesh.stage: a pipeline cannot return hidden'):
    traced(x, Mesh(2, stage=4), output_hidden_states=True)


def test_caches_have_no_stages(x):
  cache = tfm.init_cache(x.model, 8, 32)
  with pytest.raises(UserError, match=r'^mesh.stage: a cache holds'):
    traced(x, Mesh(2, stage=4), cache=cache)
