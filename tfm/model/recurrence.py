"""Sequences in chunks that carry a cache: truncated back-propagation and segment recurrence."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.tokeninfo import positions

#: Outputs of `apply` that are no arrays of tokens: those averaged over tokens, and those summed.
_MEAN, _SUM = ('aux',), ('load',)


def scan_chunks(
  apply_fn: Callable[..., dict[str, Any]],
  inputs: dict[str, jax.Array | None],
  chunk: int,
  cache: dict[str, Any],
  detach: bool = True,
  key: jax.Array | None = None,
) -> dict[str, Any]:
  """Apply a model to `chunk` tokens at a time, each chunk after what the cache keeps of those before it.

  Row states (LSTM, linear attention) carry everything from chunk to chunk. Attention reads the tokens that the cache
  holds: all of them in a `dense` cache, or, with a window mask, those in a `ring` cache of bounded size (the memory of
  Transformer-XL, arXiv:1901.02860). The backward pass keeps one chunk's activations if `apply_fn` is rematerialised
  (`jax.checkpoint`).

  Args:
    apply_fn: `(cache=, **inputs) -> outputs`, such as `functools.partial(apply, spec, params, run=run)`. The outputs
      need a `cache` and are otherwise `aux`, `load` and arrays of the chunk's tokens, `[B, chunk, ...]`.
    inputs: arrays `[B, T]` by the names of `apply`; None is left out. The last chunk has what is left of T.
    chunk: the number of tokens of a chunk.
    cache: what the rows hold already, of `init_cache`; a dense one needs slots for all T tokens.
    detach: whether gradients stop at the borders of chunks (truncated back-propagation through time). False gives the
      gradient of one pass over the whole rows.
    key: passed on as `key`, another one for each chunk, which turns dropout on.

  Returns:
    The outputs for all T tokens, `[B, T, ...]`, the `cache` after them, the mean of `aux` over tokens, the sum of
    `load`.

  Raises:
    UserError: for a chunk below 1, inputs that are not all `[B, T]`, or outputs that are not of tokens.
  """
  given = {name: jnp.asarray(a) for name, a in inputs.items() if a is not None}
  shapes = {name: a.shape[:2] for name, a in given.items()}
  if chunk < 1:
    raise errors.UserError(f'scan_chunks: chunk={chunk} is not a number of tokens. Expected at least 1.')
  if len(set(shapes.values())) != 1:
    raise errors.UserError(f'scan_chunks: inputs differ in shape ({shapes}). Expected [B, T] of each.')
  given = _with_positions(given, cache)
  T = next(iter(shapes.values()))[1]
  n, rest = divmod(T, chunk)

  def step(cache, numbered):
    number, piece = numbered
    own = {} if key is None else {'key': jax.random.fold_in(key, number)}
    out = dict(apply_fn(cache=cache, **piece, **own))
    cache = out.pop('cache')
    _check_outputs(out, next(iter(piece.values())).shape)
    return jax.lax.stop_gradient(cache) if detach else cache, out

  found: list[tuple[dict[str, Any], int]] = []
  if n:
    cut = lambda a: a[:, : n * chunk].reshape(a.shape[0], n, chunk, *a.shape[2:]).swapaxes(0, 1)
    cache, out = jax.lax.scan(step, cache, (jnp.arange(n), jax.tree.map(cut, given)))
    found.append(({name: _over_chunks(name, value) for name, value in out.items()}, n * chunk))
  if rest:
    cache, out = step(cache, (n, {name: a[:, n * chunk :] for name, a in given.items()}))
    found.append((out, rest))
  return _joined(found, T) | {'cache': cache}


def _with_positions(inputs: dict[str, jax.Array], cache: dict[str, Any]) -> dict[str, jax.Array]:
  """The inputs with the positions of packed documents, which start anew within rows and not with each chunk."""
  for own in ('', 'decoder_'):
    segment_BT = inputs.get(f'{own}segment_ids')
    if segment_BT is not None and f'{own}position_ids' not in inputs:
      first_BT = jnp.cumsum(segment_BT != segment_BT[:, :1], axis=1) == 0
      after_BT = jnp.where(first_BT, cache['next'][:, None], 0)
      return inputs | {f'{own}position_ids': positions(segment_BT) + after_BT}
  return inputs


def _check_outputs(out: dict[str, Any], shape: tuple[int, ...]) -> None:
  for name, value in out.items():
    wrong = [a.shape for a in jax.tree.leaves(value) if a.shape[:2] != shape[:2]]
    if wrong and name not in (*_MEAN, *_SUM):
      raise errors.UserError(
        f'scan_chunks: output {name} has shape {wrong[0]}, which is not of tokens. Expected {shape[:2]} and more axes; '
        'return it from apply_fn by tokens, or leave it out.'
      )


def _over_chunks(name: str, value: Any) -> Any:
  """An output of all chunks, given those of each on a leading axis."""
  if name in _MEAN:
    return jnp.mean(value, axis=0)
  if name in _SUM:
    return jax.tree.map(lambda a: jnp.sum(a, axis=0), value)
  return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(a.shape[1], -1, *a.shape[3:]), value)


def _joined(found: list[tuple[dict[str, Any], int]], T: int) -> dict[str, Any]:
  """The outputs of all tokens, given those of one or two parts of the rows and their lengths."""
  outputs, lengths = zip(*found, strict=True)
  joined: dict[str, Any] = {}
  for name in outputs[0]:
    values = [out[name] for out in outputs]
    if name in _MEAN:
      joined[name] = sum(value * length for value, length in zip(values, lengths, strict=True)) / T
    elif name in _SUM:
      joined[name] = jax.tree.map(lambda *a: sum(a), *values)
    else:
      joined[name] = jax.tree.map(lambda *a: jnp.concatenate(a, axis=1), *values)
  return joined
