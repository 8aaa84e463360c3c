"""Checks of the arguments of `apply` and `generate`: types, dtypes and the parameters' structure.

They read shapes and dtypes only, so inside `jax.jit` they cost time at tracing alone.
"""

from collections.abc import Mapping
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.model.initial import param_shapes
from tfm.model.spec import Model
from tfm.parts.context import Run
from tfm.parts.stored import Joined, Stored

_STORED = (Stored, Joined)
_PARAMS = 'Expected the result of init(spec, key) or load(path) for this model.'
_CACHE = 'Expected the result of init_cache(spec, batch, slots).'


def check_model(where: str, spec: Any, params: Any) -> None:
  """Check that the parameters have the structure and the shapes of the model.

  Args:
    where: The function, for errors.
    spec: The model.
    params: Its parameters. Of prepared ones, names and numbers of layers are checked.

  Raises:
    UserError: for another type, or naming the first parameter that differs.
  """
  check_spec(where, spec)
  if not isinstance(params, Mapping):
    raise errors.UserError(f'{where}: params is of type {type(params).__name__}. {_PARAMS}')
  if problem := _differs(spec, params):
    raise errors.UserError(f'{where}: {problem}. {_PARAMS}')


def check_spec(where: str, spec: Any) -> None:
  """Check that a value is a model; raise UserError, with the name of a function, if not."""
  if not isinstance(spec, Model):
    raise errors.UserError(
      f'{where}: spec is of type {type(spec).__name__}. Expected a tfm.Model, such as m.spec.'
    )


def check_options(
  run: Any, key: Any, cache: Any, logits_to_keep: Any, switches: Mapping[str, Any]
) -> None:
  """Check the types of the options of `apply`.

  Args:
    run: Expected a `Run`.
    key: Expected a random key, or None.
    cache: Expected a cache, or None.
    logits_to_keep: Expected a number of tokens, or None.
    switches: Expected booleans, by name.

  Raises:
    UserError: naming the first option of a wrong type.
  """
  problem = ''
  if not isinstance(run, Run):
    problem = f'run is of type {type(run).__name__}. Expected a tfm.Run'
  elif key is not None and not is_key(key):
    problem = f'key is not a random key ({key!r:.60}). Expected jax.random.key(seed), or None'
  elif logits_to_keep is not None and not is_count(logits_to_keep):
    problem = (
      f'logits_to_keep={logits_to_keep!r:.60} is not a number of tokens. '
      'Expected 0 or more, or None'
    )
  for name, value in switches.items():
    if not isinstance(value, (bool, np.bool_)):
      problem = problem or f'{name}={value!r:.60} is not a switch. Expected True or False'
  if problem:
    raise errors.UserError(f'apply: {problem}.')
  if cache is not None and not (
    isinstance(cache, Mapping) and {'slot', 'next', 'layers'} <= {*cache}
  ):
    raise errors.UserError(f'apply: cache is of type {type(cache).__name__}. {_CACHE}')


def is_count(value: Any) -> bool:
  """Return whether a value is an integer of at least 0, and no boolean."""
  whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
  return whole and bool(value >= 0)


def is_key(value: Any, ndim: int = 0) -> bool:
  """Return whether a value is a random key, or with `ndim=1` an array of keys."""
  if not isinstance(value, (jax.Array, np.ndarray)):
    return False
  if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
    return value.ndim == ndim
  return value.dtype == np.uint32 and value.ndim == ndim + 1


def _differs(spec: Model, params: Mapping[str, Any]) -> str:
  """Return the error of the first parameter that differs, or ''."""
  if any(isinstance(tree, tuple) for tree in params.values()):
    return _prepared_differs(spec, params)
  structure, shapes = _expected(spec)
  same = jax.tree.structure(params) == structure
  if same and all(map(_fits, jax.tree.leaves(params), shapes.values())):
    return ''
  return _first_difference(shapes, _by_path(params))


def _first_difference(shapes: Mapping[str, tuple[int, ...]], given: Mapping[str, Any]) -> str:
  for path, shape in shapes.items():
    if isinstance(given.get(path), _STORED):
      continue  # a quantized weight has arrays of other shapes
    if path not in given:
      return f'params has no {path} {list(shape)}'
    leaf = given[path]
    if not hasattr(leaf, 'shape') or not hasattr(leaf, 'dtype'):
      return f'params: {path} is of type {type(leaf).__name__}, not an array'
    if leaf.shape != shape:
      return f'params: {path} has shape {list(leaf.shape)}, the model has {list(shape)}'
    if not _is_float(leaf.dtype):
      return f'params: {path} has dtype {leaf.dtype}, not a floating-point one'
  # Heads and branches that a model lacks are ignored, so that you can leave one out.
  blocks = {_block(path) for path in shapes}
  extra = next((path for path in given if _block(path) not in blocks | {''}), None)
  return '' if extra is None else f'params has {extra}, which the model does not have'


def _block(path: str) -> str:
  """Return the part of a path that names a block ('segment_0/block_1'), '' without one."""
  names = path.split('/')
  at = next((i for i, name in enumerate(names) if name.startswith('segment_')), None)
  return '' if at is None else '/'.join(names[: at + 2])


def _prepared_differs(spec: Model, params: Mapping[str, Any]) -> str:
  """Do the same as `_differs` for prepared parameters, which have layers in tuples."""
  names = {path.partition('/')[0] for path in _expected(spec)[1]}
  if missing := sorted(names - {*params}):
    return f'params has no {missing[0]}'
  if extra := sorted(n for n in {*params} - names if n.startswith('segment_')):
    return f'params has {extra[0]}, which the model does not have'
  for i, segment in enumerate(spec.segments):
    layers = params.get(f'segment_{i}', ())
    if isinstance(layers, tuple) and layers and len(layers) != segment.repeats:
      return f'params: segment_{i} has {len(layers)} layers, the model has {segment.repeats}'
  return ''


def _fits(leaf: Any, shape: tuple[int, ...]) -> bool:
  return getattr(leaf, 'shape', None) == shape and _is_float(getattr(leaf, 'dtype', None))


@functools.lru_cache(maxsize=64)
def _is_float(dtype: Any) -> bool:
  return dtype is not None and bool(jnp.issubdtype(dtype, jnp.floating))


@functools.lru_cache(maxsize=512)
def _expected(spec: Model) -> tuple[Any, dict[str, tuple[int, ...]]]:
  """Return the structure of the parameters of a model, and their shapes by path."""
  with nn.logical_axis_rules(()):  # shapes do not depend on the sharding rules of a caller
    tree = param_shapes(spec)
  shapes = {path: like.shape for path, like in _by_path(tree).items()}
  return jax.tree.structure(tree), shapes


def _by_path(tree: Any) -> dict[str, Any]:
  is_stored = lambda leaf: isinstance(leaf, _STORED)
  pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_stored)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in pairs}
