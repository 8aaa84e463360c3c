"""Drafts of speculative decoding: they propose the next tokens, which the model then verifies.

To add one, derive from `Draft`. Its arrays are arguments of the compiled steps. Mark other fields
with `flax.struct.field(pytree_node=False)`.
"""

from collections.abc import Iterator
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.logits_processors import LogitsProcessors, process_logits
from tfm.generate.penalties import NOTHING
from tfm.generate.sampling import warp
from tfm.model import mtp
from tfm.model.cache import init_cache, recurrent_states, rewind
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.model.transformer import apply, source_length
from tfm.parts.context import Run


@struct.dataclass
class NewTokens:
  """The new tokens that a draft continues.

  Attributes:
    tokens_BT: New tokens of each sequence.
    n_B: Their number.
    last_B: The last token, which is in no cache yet.
  """

  tokens_BT: jax.Array
  n_B: jax.Array
  last_B: jax.Array


@struct.dataclass
class Draft:
  """The base class of drafts, which proposes nothing.

  A draft keeps its state between rounds in a pytree of arrays, the `draft_state`. In all methods,
  `spec` and `params` are the model that verifies the tokens.
  """

  def fits(self, spec: Model) -> Iterator[str]:
    """Yield a sentence for each reason why the draft cannot be used with the model."""
    yield from ()

  def length(self, spec: Model, tokens: int) -> int:
    """Return the number of tokens proposed per round, at most `tokens`."""
    return tokens

  def init_state(
    self,
    spec: Model,
    params: Params,
    run: Run,
    slots: int,
    inputs: dict[str, jax.Array],
    out: dict[str, Any],
    cache: Any = None,
  ) -> Any:
    """Return the draft state after the prompts.

    Args:
      spec: The model.
      params: Its parameters.
      run: Kernels and precision.
      slots: Cache slots per sequence.
      inputs: The prompts, or their part after `cache`.
      out: The outputs of `apply` for the prompts, or for the end of them.
      cache: The cache of the draft's layers for the tokens before `inputs` (see `cached_layers`).

    Returns:
      A pytree of arrays.
    """
    return ()

  def cached_layers(self, spec: Model) -> Model | None:
    """Return a spec of the draft's layers to cache in prompt files, None if there are none."""
    return None

  def cache(self, draft_state: Any) -> Any:
    """Return the cache of these layers."""
    raise AssertionError(f'{type(self).__name__} has no cached layers')

  def recomputed(self, spec: Model) -> int:
    """Return how many tokens at the end of a cached prefix the draft recomputes."""
    return 0

  def propose(
    self,
    spec: Model,
    params: Params,
    run: Run,
    processors: LogitsProcessors,
    new: NewTokens,
    draft_state: Any,
    keys_GB: jax.Array,
  ) -> tuple[jax.Array, jax.Array | None, Any]:
    """Propose G tokens for each sequence.

    Args:
      spec: The model.
      params: Its parameters.
      run: Kernels and precision.
      processors: How tokens are sampled.
      new: The tokens to continue.
      draft_state: The state of the draft.
      keys_GB: Random keys.

    Returns:
      (drafted_BG, the distributions q_BGV that they were drawn from or None for a deterministic
      draft, the new state).
    """
    raise AssertionError(f'{type(self).__name__} must implement propose')

  def update(self, draft_state: Any, out: dict[str, Any], kept_B: jax.Array) -> Any:
    """Return the state after verification.

    Args:
      draft_state: The state after `propose`.
      out: The outputs of `apply` for the last token and the drafted ones.
      kept_B: The number of these tokens that are kept, int32 `[B]`.

    Returns:
      The new state.
    """
    return draft_state


@struct.dataclass
class LookupDraft(Draft):
  """Prompt lookup (n-gram) drafts, which copy the tokens after an earlier match.

  The match is of the last `longest` tokens, or as many of them as possible. It runs no model, and
  works well for texts that repeat their prompt. Without a match, the last token is repeated.

  Attributes:
    longest: The longest n-gram to match.
  """

  longest: int = struct.field(pytree_node=False, default=3)

  def fits(self, spec: Model) -> Iterator[str]:
    if self.longest < 1:
      yield f'longest={self.longest} is too small. Expected at least 1.'

  def propose(
    self,
    spec: Model,
    params: Params,
    run: Run,
    processors: LogitsProcessors,
    new: NewTokens,
    draft_state: Any,
    keys_GB: jax.Array,
  ) -> tuple[jax.Array, jax.Array | None, Any]:
    tokens_BS = jnp.concatenate([processors.prompt_BS, new.tokens_BT], axis=1)
    end_B = processors.prompt_BS.shape[1] + new.n_B
    return jax.vmap(self._lookup, (0, 0, None))(tokens_BS, end_B, len(keys_GB)), None, draft_state

  def _lookup(self, tokens_S: jax.Array, end: jax.Array, G: int) -> jax.Array:
    S, longest = len(tokens_S), self.longest
    place_S = jnp.arange(S)
    # Compares the token k before each place with the token k before the end.
    same_KS = jnp.stack(
      [(jnp.roll(tokens_S, k) == tokens_S[end - k]) & (place_S >= k) for k in range(1, longest + 1)]
    )
    length_S = jnp.sum(jnp.cumprod(same_KS, axis=0), axis=0)
    real_S = (place_S < end) & (tokens_S != NOTHING)
    best = jnp.argmax(jnp.where(real_S, length_S * S + place_S, -1))
    found = real_S[best] & (length_S[best] > 0)
    # Beyond the end, the tokens from the match to the end are repeated.
    period = jnp.maximum(end - best, 1)
    guess_G = tokens_S[jnp.minimum(best + jnp.arange(G) % period, S - 1)]
    return jnp.where(found, guess_G, tokens_S[end - 1])


@struct.dataclass
class ModelDraft(Draft):
  """A smaller draft model with the same vocabulary (arXiv:2211.17192).

  It reads the same prompts, and its tokens are sampled with the same settings. Its proposals beyond
  its own learned position table are arbitrary, so they are usually rejected.

  Attributes:
    spec: The draft model.
    params: Its parameters.
  """

  spec: Model = struct.field(pytree_node=False)
  params: Params

  def fits(self, spec: Model) -> Iterator[str]:
    if self.spec.vocab != spec.vocab:
      yield (
        f'vocabularies differ (draft {self.spec.vocab}, model {spec.vocab}). '
        'Expected the same tokens.'
      )
    if self.spec.encoder is None and spec.encoder is not None:
      yield 'the model has an encoder, but the draft has none. Expected both or neither.'
    if self.spec.encoder is not None and spec.encoder is None:
      yield 'the draft has an encoder, but the model has none. Expected both or neither.'

  def init_state(
    self,
    spec: Model,
    params: Params,
    run: Run,
    slots: int,
    inputs: dict[str, Any],
    out: dict[str, Any],
    cache: Any = None,
  ) -> Any:
    B, source = len(next(iter(inputs.values()))), source_length(self.spec, self.params, inputs)
    slots = min(slots, self.spec.max_positions or slots)
    cache = init_cache(self.spec, B, slots, run.precision.dtype('compute'), source, run.cache.roomy)
    return apply(self.spec, self.params, run=run, cache=cache, logits_to_keep=0, **inputs)['cache']

  def propose(
    self,
    spec: Model,
    params: Params,
    run: Run,
    processors: LogitsProcessors,
    new: NewTokens,
    draft_state: Any,
    keys_GB: jax.Array,
  ) -> tuple[jax.Array, jax.Array | None, Any]:
    name = 'input_ids' if self.spec.encoder is None else 'decoder_input_ids'

    def one(carry: tuple[Any, ...], keys_B: jax.Array) -> tuple[Any, Any]:
      cache, tokens_BT, n_B, last_B = carry
      inputs: dict[str, Any] = {name: last_B[:, None]}
      out = apply(self.spec, self.params, run=run, cache=cache, logits_to_keep=1, **inputs)
      next_B, q_BV, tokens_BT = _draw(processors, out['logits'][:, -1], tokens_BT, n_B, keys_B)
      states = recurrent_states(out['cache'])
      return (out['cache'], tokens_BT, n_B + 1, next_B), (next_B, q_BV, states)

    # One step more than tokens: the last drafted token must be cached too, in case it is accepted.
    keys_TB = jnp.concatenate([keys_GB, keys_GB[-1:]])
    start = (draft_state, new.tokens_BT, new.n_B, new.last_B)
    (cache, *_), (next_TB, q_TBV, after) = jax.lax.scan(one, start, keys_TB)
    before = recurrent_states(draft_state)
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), before, after)
    q_BGV = None if q_TBV is None else jnp.swapaxes(q_TBV[:-1], 0, 1)
    return next_TB[:-1].T, q_BGV, {'before': draft_state, 'after': cache, 'states': states}

  def update(self, draft_state: Any, out: dict[str, Any], kept_B: jax.Array) -> Any:
    slot_B = draft_state['before']['slot'] + kept_B
    return rewind(draft_state['after'], slot_B, draft_state['states'])


@struct.dataclass
class MTPDraft(Draft):
  """The model's own multi-token prediction layers (`Model.mtp`), one token per depth."""

  def fits(self, spec: Model) -> Iterator[str]:
    if spec.mtp is None:
      yield 'the model has no mtp. Expected a model with mtp, or another draft.'
    elif spec.encoder is not None:
      yield (
        'multi-token prediction does not support an encoder. '
        'Expected a decoder-only model, or another draft.'
      )

  def length(self, spec: Model, tokens: int) -> int:
    return min(tokens, _depth(spec))

  def cached_layers(self, spec: Model) -> Model:
    return dataclasses.replace(spec, segments=mtp.one_layer(spec).segments * _depth(spec))

  def cache(self, draft_state: Any) -> Any:
    return draft_state['cache']

  def recomputed(self, spec: Model) -> int:
    # The entries of depth k depend on the next k tokens.
    return _depth(spec)

  def init_state(
    self,
    spec: Model,
    params: Params,
    run: Run,
    slots: int,
    inputs: dict[str, jax.Array],
    out: dict[str, Any],
    cache: Any = None,
  ) -> Any:
    state_BTD = out['mtp_state']
    B, T, D = state_BTD.shape
    ids_BT, mask_BT = (jnp.asarray(inputs[n])[:, -T:] for n in ('input_ids', 'attention_mask'))
    # The token after the last one is not sampled yet: the first proposal computes that place.
    mask_BT = mask_BT.at[:, -1].set(0)
    if cache is None:
      cache = mtp.init_cache(spec, B, slots, state_BTD.dtype, run.cache.roomy)
    next_BT = mtp.shift_left(ids_BT)
    cache = mtp.draft(spec, params, cache, state_BTD, next_BT, mask_BT, run=run)['cache']
    places = _depth(spec) + 1
    last_BTD = jnp.zeros((B, places, D), state_BTD.dtype).at[:, 0].set(state_BTD[:, -1])
    return {
      'cache': cache,
      'state': last_BTD,
      'next': jnp.zeros((B, places), jnp.int32),
      'kept': jnp.ones(B, jnp.int32),
    }

  def propose(
    self,
    spec: Model,
    params: Params,
    run: Run,
    processors: LogitsProcessors,
    new: NewTokens,
    draft_state: Any,
    keys_GB: jax.Array,
  ) -> tuple[jax.Array, jax.Array | None, Any]:
    G, place_T = len(keys_GB), jnp.arange(_depth(spec) + 1)
    kept_B1 = draft_state['kept'][:, None]
    next_BT = jnp.where(place_T[None] == kept_B1 - 1, new.last_B[:, None], draft_state['next'])
    mask_BT = (place_T[None] < kept_B1).astype(jnp.int32)
    tokens_BT, q = new.tokens_BT, list[Any]()

    def choose(logits_BV: jax.Array, k: int) -> jax.Array:
      nonlocal tokens_BT
      keys_B = keys_GB[min(k, G) - 1]
      next_B, q_BV, tokens_BT = _draw(processors, logits_BV, tokens_BT, new.n_B + k - 1, keys_B)
      q.append(q_BV)
      return next_B

    cache, state = draft_state['cache'], draft_state['state']
    out = mtp.draft(spec, params, cache, state, next_BT, mask_BT, choose, run)
    drafted_BG = out['tokens'][:, :G]
    after_BT = jnp.zeros_like(next_BT).at[:, :G].set(drafted_BG)
    q_BGV = jnp.stack(q[:G], axis=1) if processors.sampling else None
    return drafted_BG, q_BGV, draft_state | {'cache': out['cache'], 'next': after_BT}

  def update(self, draft_state: Any, out: dict[str, Any], kept_B: jax.Array) -> Any:
    state_BTD = out['mtp_state']
    T = state_BTD.shape[1]
    state = draft_state['state'].at[:, :T].set(state_BTD)
    return draft_state | {'state': state, 'kept': kept_B}


def _depth(spec: Model) -> int:
  assert spec.mtp is not None
  return spec.mtp.depth


def _draw(
  processors: LogitsProcessors,
  logits_BV: jax.Array,
  tokens_BT: jax.Array,
  n_B: jax.Array,
  keys_B: jax.Array,
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
  """Sample token number `n_B` of each sequence.

  Returns (the token, its distribution or None for greedy decoding, the tokens including it).
  """
  # Beyond its position table a draft model returns NaN. Zeros give a valid distribution.
  logits_BV = jnp.where(jnp.isnan(logits_BV), 0, logits_BV)
  logits_BV = process_logits(processors, logits_BV, tokens_BT, n_B)
  if not processors.sampling:
    next_B, q_BV = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), None
  else:
    logits_BV = warp(logits_BV, processors.sampling)
    next_B = jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)
    q_BV = jax.nn.softmax(logits_BV, axis=-1)
  return next_B, q_BV, tokens_BT.at[jnp.arange(len(n_B)), n_B].set(next_B, mode='drop')
