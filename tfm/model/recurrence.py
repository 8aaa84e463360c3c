"""Sequences in chunks that carry a cache: truncated back-propagation and segment recurrence."""

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
  """Apply a model to `chunk` tokens at a time and carry its cache from chunk to chunk.

  Layers with a row state (LSTM, linear attention) continue from it. Attention reads the cached
  tokens: every earlier token in a `dense` cache, or the last few in a `ring` cache of bounded size
  under a window mask (the memory of Transformer-XL, arXiv:1901.02860). With
  `jax.checkpoint(apply_fn)` the backward pass stores one chunk's activations.

  Args:
    apply_fn: `(cache=, **inputs) -> outputs`, such as `functools.partial(apply, spec, params,
      run=run)`. The outputs include `cache`; all others but `aux` and `load` are arrays `[B, chunk,
      ...]`.
    inputs: arrays `[B, T]` by the input names of `apply`. None is left out.
    chunk: the number of tokens per chunk; the last chunk may be shorter.
    cache: a cache from `init_cache` or from an earlier call. A dense cache needs T free slots.
    detach: whether gradients stop at chunk borders (truncated back-propagation through time). With
      False the gradient equals the gradient of one pass over T tokens.
    key: a random key for dropout. Each chunk gets its own, as the argument `key`.

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
    raise errors.UserError(
      f'scan_chunks: chunk={chunk} is not a number of tokens. Expected at least 1.'
    )
  if len(set(shapes.values())) != 1:
    raise errors.UserError(
      f'scan_chunks: inputs differ in shape ({shapes}). Expected [B, T] of each.'
    )
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
  """The inputs with the positions of packed documents, which restart at documents and not at
  chunks.
  """
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
        f'scan_chunks: output {name} has shape {wrong[0]}, without a time axis. Expected '
        f'{shape[:2]} and more axes.'
      )


def _over_chunks(name: str, value: Any) -> Any:
  """One output over all tokens, from the outputs of the chunks stacked on a leading axis."""
  if name in _MEAN:
    return jnp.mean(value, axis=0)
  if name in _SUM:
    return jax.tree.map(lambda a: jnp.sum(a, axis=0), value)
  return jax.tree.map(lambda a: a.swapaxes(0, 1).reshape(a.shape[1], -1, *a.shape[3:]), value)


def _joined(found: list[tuple[dict[str, Any], int]], T: int) -> dict[str, Any]:
  """The outputs for T tokens, from the outputs for one or two parts of the rows and the lengths of
  the parts.
  """
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
