"""Chunked prefill: prompts in pieces, so that activations do not grow with their length."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.model.transformer import apply
from tfm.parts.context import Run


def chunked_forward(
  spec: Model, params: Params, cache: Any, inputs: dict[str, Any], *, run: Run, chunk: int | None
) -> dict[str, Any]:
  """Return the outputs of `apply` for left-padded prompts, `chunk` tokens per pass.

  The FLOPs equal one pass over the prompts. Activations and attention scores need memory for
  `chunk` tokens, and hidden states `[B, T, D]` if the caller uses them.

  Args:
    spec: A causal model.
    params: Its parameters.
    cache: The cache that the prompts are written to.
    inputs: The inputs of `apply`, all `[B, T]` if `chunk` is used.
    run: Kernels and precision.
    chunk: Tokens per pass. None: all of them in one.

  Returns:
    The outputs of `apply`, with the logits of the last token and the hidden states of all tokens.
  """
  if chunk is None or chunk >= (T := inputs['input_ids'].shape[1]):
    return apply(spec, params, run=run, cache=cache, logits_to_keep=1, **inputs)
  # Padding before the prompts is not cached, so adding more changes nothing.
  pad = -T % chunk

  def chunks(a: jax.Array) -> jax.Array:
    a = jnp.pad(jnp.asarray(a), ((0, 0), (pad, 0)))
    return a.reshape(a.shape[0], -1, chunk).swapaxes(0, 1)

  pieces = jax.tree.map(chunks, inputs)
  first = jax.tree.map(lambda a: a[0], pieces)
  rest = jax.tree.map(lambda a: a[1:], pieces)
  out = apply(spec, params, run=run, cache=cache, logits_to_keep=1, **first)

  def hidden(out: dict[str, Any]) -> dict[str, Any]:
    return {name: out[name] for name in ('last_hidden_state', 'mtp_state') if name in out}

  def one(
    carry: tuple[Any, jax.Array], piece: dict[str, Any]
  ) -> tuple[tuple[Any, jax.Array], dict[str, Any]]:
    out = apply(spec, params, run=run, cache=carry[0], logits_to_keep=1, **piece)
    return (out['cache'], out['logits']), hidden(out)

  (cache, logits), later = jax.lax.scan(one, (out['cache'], out['logits']), rest)

  def join(first: jax.Array, later: jax.Array) -> jax.Array:
    chunks = jnp.concatenate([first[None], later])
    return chunks.swapaxes(0, 1).reshape(len(first), T + pad, -1)[:, pad:]

  return out | {'cache': cache, 'logits': logits} | jax.tree.map(join, hidden(out), later)
