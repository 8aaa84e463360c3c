"""How tokens are chosen, as arrays: none of it is compiled in."""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.generate.options import Options
from tfm.generate.penalties import penalized
from tfm.generate.prompts import Batch
from tfm.generate.sampling import sample


@struct.dataclass
class LogitsProcessors:
  """A key a row, the values of the sampling filters and of the penalties in use, and what each
  token is.

  `prompt_BS` are the tokens before the new ones, `NOTHING` where there is padding. `bias_V` is
  added to logits (-inf: never chosen), `stop_V` marks the tokens that end a row, but are not chosen
  before step `minimum`; it ends after `maximum` tokens in any case. `first` and `last` are the only
  tokens there at either end (-1: any), `begin_V` marks tokens that are not chosen first."""

  keys_B: jax.Array
  knobs: dict[str, jax.Array]
  prices: dict[str, jax.Array]
  prompt_BS: jax.Array
  bias_V: jax.Array
  stop_V: jax.Array
  minimum: jax.Array
  maximum: jax.Array
  first: jax.Array
  last: jax.Array
  begin_V: jax.Array


def make(batch: Batch, V: int, options: Options, keys_B: jax.Array) -> LogitsProcessors:
  """The rules of `options` for a vocabulary of V. Raises UserError if they leave no token to
  choose.
  """
  bias_V = np.where(np.arange(V) < batch.words, 0, -np.inf).astype(np.float32)
  if options.allowed is not None:
    bias_V[~np.isin(np.arange(V), list(options.allowed))] = -np.inf
  for token, bias in (options.logit_bias or {}).items():
    bias_V[token] += bias
  stop_V = np.isin(np.arange(V), batch.eos)
  left = np.isfinite(bias_V)
  if not left.any():
    raise errors.UserError(
      'generate: allowed and logit_bias leave no token to choose. Expected at least one.'
    )
  if options.min_new_tokens and not (left & ~stop_V).any():
    raise errors.UserError(
      f'generate: every token left to choose ends a row, but '
      f'min_new_tokens={options.min_new_tokens}. Expected 0.'
    )
  begin_V = np.isin(np.arange(V), list(options.forbidden_first))
  if options.forced_first is None and not (left & ~begin_V).any():
    raise errors.UserError(
      'generate: forbidden_first leaves no first token to choose. Expected at least one.'
    )
  return LogitsProcessors(
    keys_B=keys_B,
    knobs=options.knobs(),
    prices=options.prices(),
    prompt_BS=jnp.asarray(batch.prompt),
    bias_V=jnp.asarray(bias_V),
    stop_V=jnp.asarray(stop_V),
    minimum=jnp.int32(options.min_new_tokens),
    maximum=jnp.int32(options.max_new_tokens),
    first=jnp.int32(-1 if options.forced_first is None else options.forced_first),
    last=jnp.int32(-1 if options.forced_last is None else options.forced_last),
    begin_V=jnp.asarray(begin_V),
  )


def priced(
  rules: LogitsProcessors, logits_BV: jax.Array, tokens_BT: jax.Array, n_B: jax.Array
) -> jax.Array:
  """The float32 logits of each row's new token number `n_B`, with biases and penalties; -inf:
  never.
  """
  logits_BV = logits_BV.astype(jnp.float32) + rules.bias_V[None]
  if rules.prices:
    S = rules.prompt_BS.shape[1]
    said_BS = jnp.concatenate([rules.prompt_BS, tokens_BT], axis=1)
    new_BS = jnp.broadcast_to((jnp.arange(said_BS.shape[1]) >= S)[None], said_BS.shape)
    logits_BV = penalized(logits_BV, said_BS, new_BS, S + n_B, rules.prices)
  early_B1 = (n_B < rules.minimum)[:, None]
  barred_BV = (early_B1 & rules.stop_V[None]) | ((n_B == 0)[:, None] & rules.begin_V[None])
  logits_BV = jnp.where(barred_BV, -jnp.inf, logits_BV)
  for token, here_B in ((rules.first, n_B == 0), (rules.last, n_B == rules.maximum - 1)):
    others_V = jnp.arange(logits_BV.shape[1]) != token
    forced_BV = jnp.where(others_V[None], -jnp.inf, 0.0)
    logits_BV = jnp.where((here_B & (token >= 0))[:, None], forced_BV, logits_BV)
  return logits_BV


def choose(
  rules: LogitsProcessors, logits_BV: jax.Array, tokens_BT: jax.Array, n_B: jax.Array
) -> jax.Array:
  """Each row's new token number `n_B`, drawn with the row's key and that number alone, whatever its
  fellows are.
  """
  keys_B = jax.vmap(jax.random.fold_in)(rules.keys_B, n_B)
  return sample(priced(rules, logits_BV, tokens_BT, n_B), keys_B, rules.knobs)
