"""Turn the arrays that a function closes over into explicit arguments.

Kernels take biases and attention masks as Python functions. Such a function often closes over
traced arrays: a learned table, an encoder output, positions. Two places need those arrays as
arguments:

- `jax.custom_vjp` returns gradients of its arguments only. A closed-over array gets no gradient, or
  JAX raises an error. `convert` makes such arrays arguments.
- A Pallas kernel reads only the blocks that it is given, and cannot close over arrays. `flatten`
  returns the function as a list of steps, together with its arrays.

`jax.closure_convert` converts only the arrays that an outer gradient differentiates. Here every
array becomes explicit.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun
import jax.numpy as jnp

#: Primitives that call another jaxpr, which `flatten` replaces by the steps of that jaxpr.
_CALLS = frozenset(['jit', 'pjit', 'closed_call', 'custom_jvp_call'])
#: Parameters of primitives that hold a sharding with its mesh.
_SHARDINGS = frozenset(['sharding', 'out_sharding'])


class Converted(NamedTuple):
  """A function without free arrays, and the arrays that the original closed over.

  Attributes:
    pure: `pure(smooth, fixed, *args)` equals `f(*args)` for arguments shaped like the examples.
    smooth: Floating-point arrays, which may have gradients (a learned table, an encoder output).
    fixed: All other arrays (positions, segment ids, random keys).
  """

  pure: Callable[..., Any]
  smooth: list[jax.Array]
  fixed: list[jax.Array]


def convert(f: Callable[..., Any], *examples: Any, any_mesh: bool = False) -> Converted:
  """Return `f` as a function of its arguments and of the arrays that it closes over.

  Args:
    f: a function of pytrees of arrays. It is traced once, here.
    examples: arguments of `f`, arrays or `jax.ShapeDtypeStruct`s.
    any_mesh: whether `pure` may be called within a `jax.shard_map`, whose mesh has other axis types
      than the mesh here. Its steps are then bound one by one, without the mesh.

  Returns:
    The function and its arrays.

  Example:
    >>> w = jnp.ones(3)
    >>> pure, smooth, fixed = convert(lambda x: w * x, jnp.ones(3))
    >>> float(pure(smooth, fixed, 2 * jnp.ones(3)).sum()), len(smooth), len(fixed)
    (6.0, 1, 0)
  """
  program, shapes = jax.make_jaxpr(f, return_shape=True)(*examples)
  consts = [jnp.asarray(c) for c in program.consts]
  is_smooth = [jnp.issubdtype(c.dtype, jnp.inexact) for c in consts]

  def pure(smooth: Sequence[jax.Array], fixed: Sequence[jax.Array], *args: Any) -> Any:
    remaining = {True: iter(smooth), False: iter(fixed)}
    given = [next(remaining[s]) for s in is_smooth]
    if any_mesh:
      out = _inlined(program.jaxpr, given, jax.tree.leaves(args))
    else:
      out = jaxpr_as_fun(ClosedJaxpr(program.jaxpr, given))(*jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(shapes), out)

  smooth = [c for c, s in zip(consts, is_smooth, strict=True) if s]
  fixed = [c for c, s in zip(consts, is_smooth, strict=True) if not s]
  return Converted(pure, smooth, fixed)


class Flat(NamedTuple):
  """A function as a list of steps without calls, for a caller that runs them one by one.

  Attributes:
    steps: the equations of the jaxpr, in order.
    inputs: the variables of the arguments' leaves.
    outputs: the variables (or literals) of the results.
    known: the arrays that the function closes over, by their variables.
  """

  steps: Sequence[Any]
  inputs: Sequence[Any]
  outputs: Sequence[Any]
  known: dict[Any, jax.Array]


def flatten(f: Callable[..., Any], *examples: Any) -> Flat:
  """Return `f` as a list of steps in which all calls of other functions are inlined.

  Args:
    f: a function of pytrees of arrays.
    examples: arguments of `f`, arrays or `jax.ShapeDtypeStruct`s.
  """
  leaves = jax.tree.leaves(examples)
  closed = jax.make_jaxpr(f)(*examples)
  flat = jax.make_jaxpr(lambda consts, *x: _inlined(closed.jaxpr, consts, x))(
    closed.consts, *leaves
  )
  n = len(closed.consts)
  free = [*flat.jaxpr.constvars, *flat.jaxpr.invars[:n]]
  arrays = [*flat.consts, *closed.consts]
  known = {v: jnp.asarray(a) for v, a in zip(free, arrays, strict=True)}
  return Flat(flat.jaxpr.eqns, flat.jaxpr.invars[n:], flat.jaxpr.outvars, known)


def read(env: dict[Any, Any], atom: Any) -> Any:
  """Return the value of a variable in `env`, or of a literal."""
  return atom.val if isinstance(atom, Literal) else env[atom]


def bind(eqn: Any, args: Sequence[Any]) -> list[Any]:
  """Return the results of one equation of a jaxpr for these arguments, in the mesh in force."""
  # Recorded shardings name the mesh of the trace. They say nothing about axes that XLA shards.
  params = eqn.params | dict.fromkeys(_SHARDINGS & eqn.params.keys())
  out = eqn.primitive.bind(*args, **eqn.primitive.get_bind_params(params))
  return out if eqn.primitive.multiple_results else [out]


def _inlined(jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
  """Evaluate the jaxpr, and the jaxprs that it calls in place."""
  env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
  for eqn in jaxpr.eqns:
    given = [read(env, a) for a in eqn.invars]
    if eqn.primitive.name in _CALLS:
      inner = eqn.params.get('jaxpr', eqn.params.get('call_jaxpr'))
      outs = _inlined(inner.jaxpr, inner.consts, given)
    else:
      outs = bind(eqn, given)
    env.update(zip(eqn.outvars, outs, strict=True))
  return [read(env, a) for a in jaxpr.outvars]
