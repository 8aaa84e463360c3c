"""Logits processing and sampling, with all settings as arrays that need no recompilation."""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.generate.options import Options, several
from tfm.generate.penalties import apply_penalties
from tfm.generate.prompts import Batch
from tfm.generate.sampling import sample


@struct.dataclass
class LogitsProcessors:
  """The settings that turn logits into the next tokens of a batch.

  Attributes:
    keys_B: A random key per sequence.
    sampling: The values of the sampling filters in use; {} for greedy decoding.
    penalties: The values of the penalties in use.
    prompt_BS: The tokens before the new ones, `NOTHING` for padding.
    bias_V: Added to the logits; -inf forbids a token.
    stop_V: True for tokens that end a sequence.
    minimum: The number of new tokens before which those are not sampled.
    maximum: The number of new tokens at which every sequence ends.
    first: The only first token, -1 for any.
    last: The only last token, -1 for any.
    not_first_V: True for tokens that are not sampled first.
  """

  keys_B: jax.Array
  sampling: dict[str, jax.Array]
  penalties: dict[str, jax.Array]
  prompt_BS: jax.Array
  bias_V: jax.Array
  stop_V: jax.Array
  minimum: jax.Array
  maximum: jax.Array
  first: jax.Array
  last: jax.Array
  not_first_V: jax.Array


def make(batch: Batch, V: int, options: Options, keys_B: jax.Array) -> LogitsProcessors:
  """Return the logits processors of some options.

  Args:
    batch: The prompts.
    V: The vocabulary size of the logits.
    options: The checked options.
    keys_B: A random key per sequence.

  Returns:
    The processors of the batch.

  Raises:
    UserError: if the options forbid every token.
  """
  bias_V = np.where(np.arange(V) < batch.vocab, 0, -np.inf).astype(np.float32)
  if options.allowed is not None:
    bias_V[~np.isin(np.arange(V), several(options.allowed))] = -np.inf
  for token, bias in (options.logit_bias or {}).items():
    bias_V[token] += bias
  stop_V = np.isin(np.arange(V), batch.eos)
  left = np.isfinite(bias_V)
  if not left.any():
    raise errors.UserError(
      'generate: allowed and logit_bias forbid every token. Expected at least one.'
    )
  if options.min_new_tokens and not (left & ~stop_V).any():
    raise errors.UserError(
      'generate: every allowed token ends the sequence, but '
      f'min_new_tokens={options.min_new_tokens}. Expected 0.'
    )
  not_first_V = np.isin(np.arange(V), several(options.forbidden_first))
  if options.forced_first is None and not (left & ~not_first_V).any():
    raise errors.UserError(
      'generate: forbidden_first forbids every first token. Expected at least one.'
    )
  first = -1 if options.forced_first is None else options.forced_first
  last = -1 if options.forced_last is None else options.forced_last
  return LogitsProcessors(
    keys_B=keys_B,
    sampling=options.sampling_values(),
    penalties=options.penalty_values(),
    prompt_BS=jnp.asarray(batch.prompt),
    bias_V=jnp.asarray(bias_V),
    stop_V=jnp.asarray(stop_V),
    minimum=jnp.int32(options.min_new_tokens),
    maximum=jnp.int32(options.max_new_tokens),
    first=jnp.int32(first),
    last=jnp.int32(last),
    not_first_V=jnp.asarray(not_first_V),
  )


def process_logits(
  processors: LogitsProcessors, logits_BV: jax.Array, tokens_BT: jax.Array, n_B: jax.Array
) -> jax.Array:
  """Return logits with biases, penalties and forced tokens applied.

  Args:
    processors: The settings of the batch.
    logits_BV: Logits `[B, V]` of any float dtype.
    tokens_BT: The new tokens of each sequence; entries from `n_B` on are ignored.
    n_B: The index of the token to sample among the new ones, int32 `[B]`.

  Returns:
    float32 `[B, V]`, -inf for forbidden tokens.
  """
  logits_BV = logits_BV.astype(jnp.float32) + processors.bias_V[None]
  if processors.penalties:
    S = processors.prompt_BS.shape[1]
    tokens_BS = jnp.concatenate([processors.prompt_BS, tokens_BT], axis=1)
    new_BS = jnp.broadcast_to((jnp.arange(tokens_BS.shape[1]) >= S)[None], tokens_BS.shape)
    logits_BV = apply_penalties(logits_BV, tokens_BS, new_BS, S + n_B, processors.penalties)
  early_B1, first_B1 = (n_B < processors.minimum)[:, None], (n_B == 0)[:, None]
  early_BV = early_B1 & processors.stop_V[None]
  logits_BV = jnp.where(early_BV | (first_B1 & processors.not_first_V[None]), -jnp.inf, logits_BV)
  is_last_B = n_B == processors.maximum - 1
  for token, applies_B in ((processors.first, n_B == 0), (processors.last, is_last_B)):
    others_V = jnp.arange(logits_BV.shape[1]) != token
    forced_BV = jnp.where(others_V[None], -jnp.inf, 0.0)
    logits_BV = jnp.where((applies_B & (token >= 0))[:, None], forced_BV, logits_BV)
  return logits_BV


def next_tokens(
  processors: LogitsProcessors, logits_BV: jax.Array, tokens_BT: jax.Array, n_B: jax.Array
) -> jax.Array:
  """Sample new token number `n_B` of each sequence.

  The randomness depends on the key of the sequence and on `n_B` only, not on the rest of the batch.

  Args:
    processors: The settings of the batch.
    logits_BV: Logits `[B, V]` of any float dtype.
    tokens_BT: The new tokens of each sequence; entries from `n_B` on are ignored.
    n_B: The index of the token to sample among the new ones, int32 `[B]`.

  Returns:
    Token ids, int32 `[B]`.
  """
  keys_B = jax.vmap(jax.random.fold_in)(processors.keys_B, n_B)
  logits_BV = process_logits(processors, logits_BV, tokens_BT, n_B)
  return sample(logits_BV, keys_B, processors.sampling)
