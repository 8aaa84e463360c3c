"""The parameters of one model as the start of another: those that fit are kept, the others drawn anew, and all told."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding
import numpy as np

from tfm.core import errors
from tfm.hub.load import is_published, load
from tfm.model import transformer
from tfm.train.experiment import Experiment
from tfm.train.step import init_key

_MOST = 6


def begin(x: Experiment, where: Any, say: Callable[[str], None]) -> Any:
  """The parameters of `x.model` by the shardings `where`, those of `x.init_from` where path and shape are equal.

  Says how many are kept, and which are new, of another shape, or dropped.

  Raises: UserError if there is no model, or if nothing of it fits.
  """
  mesh = jax.tree.leaves(where)[0].mesh if is_published(x.init_from) else None
  given = _named(load(x.init_from, dtype=x.precision.param, mesh=mesh).params)
  wanted, places = _named(transformer.param_shapes(x.model)), _named(where)
  kept = {n: _placed(a, places[n]) for n, a in given.items() if n in wanted and a.shape == wanted[n].shape}
  if not kept:
    raise errors.UserError(
      f'init_from: none of the {len(given)} parameters of {x.init_from} is one of the model, which has '
      f'{", ".join(list(wanted)[:3])}, ... Wanted a model that shares some of its parts.'
    )
  say(f'init_from {x.init_from}: {_told(given, wanted, kept)}')
  missing = [n for n in wanted if n not in kept]

  def fresh(key: jax.Array) -> dict[str, jax.Array]:
    made = _named(transformer.init(x.model, key, x.run()))
    return {n: made[n] for n in missing}

  new = jax.jit(fresh, out_shardings={n: places[n] for n in missing})(init_key(x.seed)) if missing else {}
  return jax.tree.unflatten(jax.tree.structure(where), [{**kept, **new}[n] for n in places])


def _told(given: Mapping[str, Any], wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
  shapes = [n for n in given if n in wanted and n not in kept]
  told = {
    'new': [n for n in wanted if n not in given],
    'of another shape, so new': [f'{n} {given[n].shape} -> {wanted[n].shape}' for n in shapes],
    'dropped': [n for n in given if n not in wanted],
  }
  lines = [f'{len(kept)} parameters of the model kept']
  for what, names in told.items():
    if names:
      more = f', ... {len(names) - _MOST} more' if len(names) > _MOST else ''
      lines.append(f'{len(names)} {what}: {", ".join(names[:_MOST])}{more}')
  return '\n  '.join(lines)


def _named(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: isinstance(x, jax.sharding.Sharding))
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _placed(array: jax.Array, sharding: NamedSharding) -> jax.Array:
  if array.sharding.device_set == sharding.device_set:
    return jax.device_put(array, sharding)
  # Read by every process as a whole; each gives its devices their share.
  return jax.make_array_from_callback(array.shape, sharding, lambda index: np.asarray(array[index]))
