"""Log-probabilities of given tokens, for objectives that compare sequences."""

from typing import Any

import jax

from tfm.tasks.chunked_xent import chunk_size, chunked_cross_entropy
from tfm.tasks.xent import Target, cross_entropy


def token_logprobs(
  logits: Any, labels_BT: jax.Array, chunk: int | None = None, temperature: float = 1.0
) -> jax.Array:
  """Return log p(label) of each position, with its gradient.

  Args:
    logits: Logits [B, T, V], or their factors (`apply(factored_logits=True)`).
    labels_BT: The token of each position.
    chunk: Entries of the vocabulary at a time, as in `TextTask.loss_chunk`.
    temperature: Divides the logits. Other values than 1 compute whole logits.

  Returns:
    float32 [B, T].
  """
  if temperature != 1.0:
    whole = logits if isinstance(logits, jax.Array) else logits.logits()
    return -cross_entropy(whole / temperature, labels_BT).loss
  if isinstance(logits, jax.Array):
    return -cross_entropy(logits, labels_BT).loss
  size = chunk_size(logits, chunk)
  if not size:
    return -cross_entropy(logits.logits(), labels_BT).loss
  return -chunked_cross_entropy(logits, labels_BT, Target.of(logits.vocab), size).loss
