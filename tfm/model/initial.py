"""Initial parameters of a model, and their shapes and axis letters."""

import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import axes
from tfm.model import inputs as inputs_lib
from tfm.model import mtp as mtp_lib
from tfm.model import stack as stack_lib
from tfm.model.spec import Model, Tower, last_width
from tfm.model.stack import Params, named_key
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.context import Run
from tfm.parts.embed.base import Outputs, unpadded
from tfm.parts.head.base import HeadContext
from tfm.parts.tokeninfo import with_grid

RUN = Run()
#: Parameter names of some heads; the others use `NAME_head`.
_HEAD_PARAMS = {'lm': 'head', 'classify': 'classifier'}


def init(spec: Model, key: jax.Array, run: Run = RUN) -> Params:
  """Return initial parameters.

  Args:
    spec: The model.
    key: A random key.
    run: Kernels and precision; only the parameter dtype matters here.

  Returns:
    Nested dicts of arrays. The repeats of a segment are stacked on a leading axis.
  """
  return nn.unbox(_boxed(spec, key, run))


def param_shapes(spec: Model, run: Run = RUN) -> Params:
  """Return the shapes and dtypes of the parameters, without making arrays."""
  return nn.unbox(_boxed_shapes(spec, run))


def param_letters(spec: Model) -> Params:
  """Return the axis letters of each parameter ('LDNH'), as a tree of the same structure."""
  return axes.letters_of(_boxed_shapes(spec, RUN))


def head_params(name: str) -> str:
  """Return the parameter name of a head."""
  return _HEAD_PARAMS.get(name, f'{name}_head')


# Larger than the zoo: a tree of shapes is small, but slow to trace.
@functools.lru_cache(maxsize=512)
def _boxed_shapes(spec: Model, run: Run) -> Params:
  return jax.eval_shape(functools.partial(_boxed, spec, run=run), jax.random.key(0))


def _boxed(spec: Model, key: jax.Array, run: Run) -> Params:
  # Other kernels may trace a bias in isolation, where its parameters cannot be created.
  run = dataclasses.replace(run, attend=DenseAttention())
  outputs: dict[str, Any] = {}
  params: Params = {}
  for name in inputs_lib.order(spec):
    tower = spec.tower(name)
    tower_key = named_key(key, name) if name else key
    tower_params = _boxed_tower(spec, tower, tower_key, run, outputs)
    embed_key = named_key(key, 'source') if name == 'encoder' else named_key(tower_key, 'embed')
    if embed := _boxed_embed(spec, name, embed_key, run, outputs):
      tower_params['embed'] = embed
    width = _d_out(tower)
    outputs[name] = jnp.zeros((1, 1, width), run.precision.dtype('compute')), unpadded(1, 1)
    if name:
      params[name] = tower_params
    else:
      params |= tower_params
  if spec.mtp is not None:
    dims = stack_lib.tower_dims(spec, spec, run)
    params['mtp'] = mtp_lib.init(spec, named_key(key, 'mtp'), dims, outputs)
  return params


def _boxed_tower(spec: Model, tower: Tower, key: jax.Array, run: Run, outputs: Outputs) -> Params:
  dims = stack_lib.tower_dims(spec, tower, run)
  params = stack_lib.init_stack(key, tower, dims, outputs)
  x_BTD = jnp.zeros((1, 1, _d_out(tower)), run.precision.dtype('compute'))
  table_VR = jnp.zeros((dims.vocab, dims.d_table or dims.d_model), x_BTD.dtype)
  for name, head in tower.heads.items():
    context = HeadContext(
      with_grid(unpadded(1, 1), (1, 1)),
      _zeros(tower, 1),
      head.examples(x_BTD.dtype),
      table_VR,
      (1, 1),
    )
    module = head.make(dims.replace(d_model=_d_out(tower)))
    variables = module.init(named_key(key, head_params(name)), x_BTD, context)
    params |= {head_params(name): variables['params']} if 'params' in variables else {}
  return params


def _boxed_embed(spec: Model, name: str, key: jax.Array, run: Run, outputs: Outputs) -> Params:
  """Return the parameters of a tower's input layer, except shared ones."""
  embed, tower = (spec if not name else spec.towers[name]).embed, spec.tower(name)
  if embed is None:
    return {}
  assert tower.embed is not None
  module = tower.embed.make(stack_lib.tower_dims(spec, tower, run))
  params = module.init(key, _zeros(tower, 1), outputs).get('params', {})
  if embed.shares:
    return {part: p for part, p in params.items() if part != 'table'}
  return params


def _zeros(tower: Tower, length: int) -> dict[str, jax.Array]:
  assert tower.embed is not None
  return {name: jnp.zeros(s.shape, s.dtype) for name, s in tower.embed.shapes(1, length).items()}


def _d_out(tower: Tower) -> int:
  assert tower.embed is not None
  return tower.embed.d_out or last_width(tower)
