"""Chunked application with a carried cache: truncated back-propagation, segment recurrence."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.tokeninfo import positions

#: Outputs of `apply` without a time axis: averaged over tokens, and summed.
_MEAN, _SUM = ('aux',), ('load',)


def scan_chunks(
  apply_fn: Callable[..., dict[str, Any]],
  inputs: dict[str, jax.Array | None],
  chunk: int,
  cache: dict[str, Any],
  detach: bool = True,
  key: jax.Array | None = None,
) -> dict[str, Any]:
  """Apply a model in chunks of `chunk` tokens, with a carried cache.

  Layers with a recurrent state (LSTM, linear attention) continue from it. Attention layers attend
  to cached tokens. A `dense` cache holds all earlier tokens. A `ring` cache under a window mask has
  a bounded size and holds the last few (the memory of Transformer-XL, arXiv:1901.02860). With
  `jax.checkpoint(apply_fn)` the backward pass stores the activations of one chunk.

  Args:
    apply_fn: `(cache=, **inputs) -> outputs`, such as `functools.partial(apply, spec, params,
      run=run)`. The outputs include `cache`; all others but `aux` and `load` are arrays `[B, chunk,
      ...]`.
    inputs: Arrays `[B, T]` by the input names of `apply`. None values are ignored.
    chunk: The number of tokens per chunk; the last chunk may be shorter.
    cache: A cache from `init_cache` or from an earlier call. A dense cache needs T free slots.
    detach: Whether gradients stop at chunk borders (truncated back-propagation through time). With
      False the gradient equals the gradient of one pass over T tokens.
    key: A random key for dropout. Each chunk gets its own through the argument `key`.

  Returns:
    The outputs for all T tokens, `[B, T, ...]`, the final `cache`, the mean of `aux` over tokens
    and the sum of `load`.

  Raises:
    UserError: for a chunk below 1, inputs that are not all `[B, T]`, or outputs without a time
    axis.
  """
  given = {name: jnp.asarray(a) for name, a in inputs.items() if a is not None}
  shapes = {name: a.shape[:2] for name, a in given.items()}
  if chunk < 1:
    raise errors.UserError(f'scan_chunks: chunk={chunk} is too small. Expected at least 1 token.')
  if len(set(shapes.values())) != 1:
    raise errors.UserError(
      f'scan_chunks: inputs differ in shape ({shapes}). Expected the same [B, T] for all.'
    )
  given = _with_positions(given, cache)
  T = next(iter(shapes.values()))[1]
  n, rest = divmod(T, chunk)

  def step(cache: dict[str, Any], numbered: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    number, piece = numbered
    dropout = {} if key is None else {'key': jax.random.fold_in(key, number)}
    out = dict(apply_fn(cache=cache, **piece, **dropout))
    cache = out.pop('cache')
    _check_outputs(out, next(iter(piece.values())).shape)
    return jax.lax.stop_gradient(cache) if detach else cache, out

  parts: list[tuple[dict[str, Any], int]] = []
  if n:
    split = lambda a: a[:, : n * chunk].reshape(a.shape[0], n, chunk, *a.shape[2:]).swapaxes(0, 1)
    cache, out = jax.lax.scan(step, cache, (jnp.arange(n), jax.tree.map(split, given)))
    out = {name: _over_chunks(name, value) for name, value in out.items()}
    parts.append((out, n * chunk))
  if rest:
    cache, out = step(cache, (n, {name: a[:, n * chunk :] for name, a in given.items()}))
    parts.append((out, rest))
  return _join(parts, T) | {'cache': cache}


def _with_positions(inputs: dict[str, jax.Array], cache: dict[str, Any]) -> dict[str, jax.Array]:
  """Return the inputs with positions of packed documents, which restart at document borders."""
  for prefix in ('', 'decoder_'):
    segment_BT = inputs.get(f'{prefix}segment_ids')
    if segment_BT is not None and f'{prefix}position_ids' not in inputs:
      first_BT = jnp.cumsum(segment_BT != segment_BT[:, :1], axis=1) == 0
      after_BT = jnp.where(first_BT, cache['next'][:, None], 0)
      return inputs | {f'{prefix}position_ids': positions(segment_BT) + after_BT}
  return inputs


def _check_outputs(out: dict[str, Any], shape: tuple[int, ...]) -> None:
  for name, value in out.items():
    wrong = [a.shape for a in jax.tree.leaves(value) if a.shape[:2] != shape[:2]]
    if wrong and name not in (*_MEAN, *_SUM):
      raise errors.UserError(
        f'scan_chunks: output {name} has shape {wrong[0]}, without a time axis. '
        f'Expected {shape[:2]} and more axes.'
      )


def _over_chunks(name: str, value: Any) -> Any:
  """Return one output for all tokens, from its values per chunk on a leading axis."""
  if name in _MEAN:
    return jnp.mean(value, axis=0)
  if name in _SUM:
    return jax.tree.map(lambda a: jnp.sum(a, axis=0), value)
  return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(a.shape[1], -1, *a.shape[3:]), value)


def _join(parts: list[tuple[dict[str, Any], int]], T: int) -> dict[str, Any]:
  """Return the outputs for T tokens, from (outputs, length) of one or two parts."""
  outputs, lengths = zip(*parts, strict=True)
  joined: dict[str, Any] = {}
  for name in outputs[0]:
    values = [out[name] for out in outputs]
    if name in _MEAN:
      weighted = [value * length for value, length in zip(values, lengths, strict=True)]
      joined[name] = sum(weighted) / T
    elif name in _SUM:
      joined[name] = jax.tree.map(lambda *a: sum(a), *values)
    else:
      joined[name] = jax.tree.map(lambda *a: jnp.concatenate(a, axis=1), *values)
  return joined
