"""The kernels as one differentiable function, and its sharding over a mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tfm.parts.attend.pallas.schedule import Operands, Schedule
from tfm.parts.attend.pallas.visits import list_visits
from tfm.parts.attend.split import split
from tfm.parts.stored_names import named


def flash_attention(
  schedule: Schedule,
) -> Callable[[Operands, jax.Array], tuple[jax.Array, jax.Array]]:
  """Return the kernels as one function with a custom gradient.

  It maps (operands, tile kinds) to y_BNTH and the log-sum-exp lse_BN1T.
  """

  # Imported here, because it is slow.
  from tfm.parts.attend.pallas import kernels

  @jax.custom_vjp
  def flash(x: Operands, kinds: jax.Array) -> tuple[jax.Array, jax.Array]:
    return kernels.forward(schedule, x, list_visits(kinds))

  def forward(x: Operands, kinds: jax.Array) -> tuple[Any, Any]:
    y_BNTH, lse = kernels.forward(schedule, x, list_visits(kinds))
    y_BNTH, lse = named(y_BNTH, 'attention'), named(lse, 'attention')
    return (y_BNTH, lse), (x, kinds, y_BNTH, lse)

  def backward(residuals: Any, g: tuple[jax.Array, jax.Array]) -> tuple[Operands, None]:
    return _backward(schedule, residuals, g), None

  flash.defvjp(forward, backward)
  return flash


def _backward(schedule: Schedule, residuals: Any, g: tuple[jax.Array, jax.Array]) -> Operands:
  """Return the gradients of the operands; None for those without one."""
  from tfm.parts.attend.pallas import kernels

  (x, kinds, y_BNTH, lse), (g_BNTH, g_lse) = residuals, g
  inner = jnp.sum(g_BNTH.astype(jnp.float32) * y_BNTH.astype(jnp.float32), -1)[:, :, None] - g_lse
  stats = jnp.concatenate([lse, inner], 2)
  dq_BNTH, d_floats, *more = kernels.backward_queries(
    schedule, x, list_visits(kinds), g_BNTH, stats
  )
  by_keys = list_visits(jnp.swapaxes(kinds, 1, 2))
  d_keys = kernels.backward_keys(schedule, x, by_keys, g_BNTH, stats)

  d_floats = d_floats.sum((0, 2))
  if schedule.scores.sink:
    share = jnp.exp(x.floats[None, :, :1] - lse[:, :, 0])
    d_floats = d_floats.at[:, 0].set(-(share * inner[:, :, 0]).sum((0, 2)))
  learned = schedule.scores.learned_tables(x.tables)
  d_tables, d_q_terms = more[: len(learned)], more[len(learned) :]
  tables = dict(zip(learned, (d.sum(0) for d in d_tables), strict=True))
  k_learned = [i for i in range(len(x.k_terms)) if i not in schedule.constant]
  originals = [x.k_BKSH, x.v_BKSH, *(x.k_terms[i] for i in k_learned)]
  dk_BKSH, dv_BKSH, *d_k_terms = map(_of_heads, d_keys, originals)
  k_terms = dict(zip(k_learned, d_k_terms, strict=True))
  table_gradients = [tables.get(i) for i in range(len(x.tables))]
  k_term_gradients = [k_terms.get(i) for i in range(len(x.k_terms))]
  gradients: dict[str, Any] = {
    'q_BNTH': dq_BNTH,
    'k_BKSH': dk_BKSH,
    'v_BKSH': dv_BKSH,
    'q_info': None,
    'k_info': None,
    'floats': d_floats,
    'ints': None,
    'seeds': None,
    'tables': tuple(table_gradients),
    'q_terms': tuple(d_q_terms),
    'k_terms': tuple(k_term_gradients),
  }
  return Operands(**gradients)


def _of_heads(d: jax.Array, x: jax.Array) -> jax.Array:
  """Return the gradient of x: sum `d` over the heads that share a head of x."""
  return d.reshape(*x.shape[:2], -1, *x.shape[2:]).sum(2).astype(x.dtype)


def over_mesh(run: Callable[[Operands, jax.Array], Any], x: Operands, kinds: jax.Array) -> Any:
  """Return `run(x, kinds)`, sharded over the mesh, since a compiler cannot partition a kernel.

  Args:
    run: the kernels.
    x: the arrays.
    kinds: the kind of every tile (see `visits.tile_kinds`).

  Returns:
    The results of `run`.
  """
  (B, N), K = x.q_BNTH.shape[:2], x.k_BKSH.shape[1]
  over = split(B, N, K)
  rows, heads, kv_heads = over[:3]
  if not rows and not heads:
    return run(x, kinds)

  # Key vectors of terms have one head for all, one per query head, or one per key/value head.
  per_kv_head = [a.shape[1] not in (1, N) for a in x.k_terms]

  def local(x: Operands, kinds: jax.Array) -> Any:
    k_terms = []
    for a, per_kv in zip(x.k_terms, per_kv_head, strict=True):
      k_terms.append(over.local(a) if per_kv else a)
    keys, values = over.local(x.k_BKSH), over.local(x.v_BKSH)
    return run(x._replace(k_BKSH=keys, v_BKSH=values, k_terms=tuple(k_terms)), kinds)

  q_spec, kv_spec = jax.P(rows, heads), jax.P(rows, kv_heads)
  by_row, by_head = jax.P(rows), jax.P(heads)
  k_terms: list[Any] = []
  for a, per_kv in zip(x.k_terms, per_kv_head, strict=True):
    per_query_head = by_row if a.shape[1] == 1 else q_spec
    k_terms.append(kv_spec if per_kv else per_query_head)
  specs: dict[str, Any] = {
    'q_BNTH': q_spec,
    'k_BKSH': kv_spec,
    'v_BKSH': kv_spec,
    'q_info': by_row,
    'k_info': by_row,
    'floats': by_head,
    'ints': by_head,
    'seeds': q_spec,
    'tables': by_head,
    'q_terms': q_spec,
    'k_terms': tuple(k_terms),
  }
  return jax.shard_map(
    local, in_specs=(Operands(**specs), by_row), out_specs=q_spec, check_vma=False
  )(x, kinds)
