"""Prompts read a piece at a time, so that memory does not grow with their length."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.spec import Model
from tfm.model.transformer import apply
from tfm.parts.context import Run


def read(
  spec: Model, params: Any, cache: Any, inputs: dict[str, Any], *, run: Run, chunk: int | None
) -> dict[str, Any]:
  """What `apply` says of prompts that end together, with the last token's logits, `chunk` tokens at
  a time (None: all).

  *Cost*: the FLOPs of one pass; of activations and scores what `chunk` tokens take, and B T D
  numbers if the hidden states are used."""
  if chunk is None or chunk >= (T := inputs['input_ids'].shape[1]):
    return apply(spec, params, run=run, cache=cache, logits_to_keep=1, **inputs)
  # More padding before the prompts is not cached and changes nothing.
  pad = -T % chunk
  cut = lambda a: jnp.pad(a, ((0, 0), (pad, 0))).reshape(a.shape[0], -1, chunk).swapaxes(0, 1)
  first, rest = (
    jax.tree.map(lambda a, part=part: cut(jnp.asarray(a))[part], inputs)
    for part in (0, slice(1, None))
  )
  out = apply(spec, params, run=run, cache=cache, logits_to_keep=1, **first)

  # A model with heads for later tokens has two kinds.
  hidden = lambda out: {
    name: out[name] for name in ('last_hidden_state', 'mtp_state') if name in out
  }

  def one(carry, piece):
    out = apply(spec, params, run=run, cache=carry[0], logits_to_keep=1, **piece)
    return (out['cache'], out['logits']), hidden(out)

  (cache, logits), after = jax.lax.scan(one, (out['cache'], out['logits']), rest)
  join = lambda a, b: (
    jnp.concatenate([a[None], b]).swapaxes(0, 1).reshape(len(a), T + pad, -1)[:, pad:]
  )
  return out | {'cache': cache, 'logits': logits} | jax.tree.map(join, hidden(out), after)
