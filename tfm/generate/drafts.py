"""Who guesses the next tokens in speculative decoding: each a pytree that proposes, and is told
what stayed.

To add one: a class with the methods of `Draft`. Its arrays are arguments of the compiled steps, its
other fields are not (`flax.struct.field(pytree_node=False)`)."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.logits_processors import LogitsProcessors, priced
from tfm.generate.penalties import NOTHING
from tfm.generate.sampling import warp
from tfm.model import mtp
from tfm.model.cache import init_cache, rewind, row_states
from tfm.model.spec import Model
from tfm.model.transformer import apply, source_length
from tfm.parts.context import Run


@struct.dataclass
class Said:
  """What a draft goes on from: new tokens `[B, room]`, how many each row has, the last one (not in
  any cache yet).
  """

  tokens_BT: jax.Array
  n_B: jax.Array
  last_B: jax.Array


@struct.dataclass
class Draft:
  """Proposes tokens; this one, none. What it remembers from round to round is a pytree of arrays,
  its `memory`.
  """

  def fits(self, spec: Model) -> Iterator[str]:
    """Yields a sentence for each reason why it cannot draft for the model."""
    yield from ()

  def ahead(self, spec: Model, tokens: int) -> int:
    """How many tokens it guesses at a time where so many are asked for."""
    return tokens

  def begin(
    self,
    spec: Model,
    params: Any,
    run: Run,
    slots: int,
    inputs: dict[str, jax.Array],
    out: dict[str, Any],
    cache: Any = None,
  ) -> Any:
    """The memory after the prompts `inputs`; `out` is what `apply` said of them (or of their end).

    `cache`, of a draft that has a `stack`, holds what stands before `inputs`. `spec` and `params`,
    here and below, are the model drafted for."""
    return ()

  def stack(self, spec: Model) -> Model | None:
    """The layers whose cache belongs into a prompt's file beside the model's, in the segments of a
    spec; None: none.
    """
    return None

  def cache(self, memory: Any) -> Any:
    """The cache of these layers."""
    raise AssertionError(f'{type(self).__name__} keeps no cache with the prompt')

  def behind(self, spec: Model) -> int:
    """How many of the last tokens that a file and a prompt have in common must be read again for
    it.
    """
    return 0

  def propose(
    self,
    spec: Model,
    params: Any,
    run: Run,
    rules: LogitsProcessors,
    said: Said,
    memory: Any,
    keys_GB: jax.Array,
  ) -> tuple[jax.Array, jax.Array | None, Any]:
    """(drafted_BG, the distributions q_BGV that they were drawn from or None if there was no
    chance, memory).
    """
    raise AssertionError(f'{type(self).__name__} must propose')

  def keep(self, memory: Any, out: dict[str, Any], kept_B: jax.Array) -> Any:
    """The memory when the first `kept_B` of (last, drafted) are said; `out` is what the model said
    of them all.
    """
    return memory


@struct.dataclass
class Lookup(Draft):
  """What came after the last time that the row's last `longest` tokens (or fewer, down to one)
  stood in it.

  Costs no model; good where a text repeats its prompt. A row without a match guesses that the last
  token repeats."""

  longest: int = struct.field(pytree_node=False, default=3)

  def fits(self, spec):
    if self.longest < 1:
      yield f'longest={self.longest} is no number of tokens to look up. Expected at least 1.'

  def propose(self, spec, params, run, rules, said, memory, keys_GB):
    said_BS = jnp.concatenate([rules.prompt_BS, said.tokens_BT], axis=1)
    end_B = rules.prompt_BS.shape[1] + said.n_B
    return jax.vmap(self._after, (0, 0, None))(said_BS, end_B, len(keys_GB)), None, memory

  def _after(self, said_S: jax.Array, end: jax.Array, G: int) -> jax.Array:
    S, longest = len(said_S), self.longest
    place_S = jnp.arange(S)
    # The tokens k places before each place, against those k places before the end.
    same_KS = jnp.stack(
      [(jnp.roll(said_S, k) == said_S[end - k]) & (place_S >= k) for k in range(1, longest + 1)]
    )
    length_S = jnp.sum(jnp.cumprod(same_KS, axis=0), axis=0)
    there_S = (place_S < end) & (said_S != NOTHING)
    best = jnp.argmax(jnp.where(there_S, length_S * S + place_S, -1))
    found = there_S[best] & (length_S[best] > 0)
    # Beyond the end, the guesses themselves go on: the stretch from the match to the end, again and
    # again.
    period = jnp.maximum(end - best, 1)
    guess_G = said_S[jnp.minimum(best + jnp.arange(G) % period, S - 1)]
    return jnp.where(found, guess_G, said_S[end - 1])


@struct.dataclass
class Smaller(Draft):
  """What a smaller model of the same vocabulary says, drawn by the same rules; it reads the same
  prompts.

  Beyond the rows of a learned position table of its own its guesses are poor, and are not taken.
  """

  spec: Model = struct.field(pytree_node=False)
  params: Any

  def fits(self, spec):
    if self.spec.vocab != spec.vocab:
      yield f'it has a vocabulary of {self.spec.vocab}, the model one of {spec.vocab}. Expected the same tokens.'
    if (self.spec.encoder is None) != (spec.encoder is None):
      which = (
        'it has no encoder, the model has'
        if self.spec.encoder is None
        else 'it has an encoder, the model has none'
      )
      yield f'{which}. Expected both or neither.'

  def begin(self, spec, params, run, slots, inputs, out, cache=None):
    B, source = len(next(iter(inputs.values()))), source_length(self.spec, self.params, inputs)
    slots = min(slots, self.spec.max_positions or slots)
    cache = init_cache(self.spec, B, slots, run.precision.dtype('compute'), source, run.cache.roomy)
    return apply(self.spec, self.params, run=run, cache=cache, logits_to_keep=0, **inputs)['cache']

  def propose(self, spec, params, run, rules, said, memory, keys_GB):
    name = 'input_ids' if self.spec.encoder is None else 'decoder_input_ids'

    def one(carry, keys_B):
      cache, tokens_BT, n_B, last_B = carry
      out = apply(
        self.spec, self.params, run=run, cache=cache, logits_to_keep=1, **{name: last_B[:, None]}
      )
      next_B, q_BV, tokens_BT = _draw(rules, out['logits'][:, -1], tokens_BT, n_B, keys_B)
      return (out['cache'], tokens_BT, n_B + 1, next_B), (next_B, q_BV, row_states(out['cache']))

    # One step more than tokens: the last draft must be in the cache too, in case that it stays.
    keys_TB = jnp.concatenate([keys_GB, keys_GB[-1:]])
    start = (memory, said.tokens_BT, said.n_B, said.last_B)
    (cache, *_), (next_TB, q_TBV, after) = jax.lax.scan(one, start, keys_TB)
    states = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), row_states(memory), after)
    q_BGV = None if q_TBV is None else jnp.swapaxes(q_TBV[:-1], 0, 1)
    return next_TB[:-1].T, q_BGV, {'before': memory, 'after': cache, 'states': states}

  def keep(self, memory, out, kept_B):
    return rewind(memory['after'], memory['before']['slot'] + kept_B, memory['states'])


@struct.dataclass
class Later(Draft):
  """What the model's own heads for later tokens say (`Model.mtp`): as many tokens as there are
  depths, or fewer.
  """

  def fits(self, spec):
    if spec.mtp is None:
      yield 'the model predicts the next token only. Expected one with mtp, or another draft.'
    elif spec.encoder is not None:
      yield 'heads for later tokens need a decoder alone. Expected a model without encoder, or another draft.'

  def ahead(self, spec, tokens):
    return min(tokens, spec.mtp.depth)

  def stack(self, spec):
    return dataclasses.replace(spec, segments=mtp.one_layer(spec).segments * spec.mtp.depth)

  def cache(self, memory):
    return memory['cache']

  def behind(self, spec):
    # Depth k of a place has been told the k tokens after it.
    return spec.mtp.depth

  def begin(self, spec, params, run, slots, inputs, out, cache=None):
    state_BTD = out['mtp_state']
    B, T, D = state_BTD.shape
    ids_BT, mask_BT = (jnp.asarray(inputs[n])[:, -T:] for n in ('input_ids', 'attention_mask'))
    # The token after the last one is not chosen yet: that place waits for the first proposal.
    mask_BT = mask_BT.at[:, -1].set(0)
    if cache is None:
      cache = mtp.init_cache(spec, B, slots, state_BTD.dtype, run.cache.roomy)
    cache = mtp.draft(spec, params, cache, state_BTD, mtp.shifted(ids_BT), mask_BT, run=run)[
      'cache'
    ]
    places = spec.mtp.depth + 1
    last_BTD = jnp.zeros((B, places, D), state_BTD.dtype).at[:, 0].set(state_BTD[:, -1])
    return {
      'cache': cache,
      'state': last_BTD,
      'next': jnp.zeros((B, places), jnp.int32),
      'kept': jnp.ones(B, jnp.int32),
    }

  def propose(self, spec, params, run, rules, said, memory, keys_GB):
    G, place_T = len(keys_GB), jnp.arange(spec.mtp.depth + 1)
    kept_B1 = memory['kept'][:, None]
    next_BT = jnp.where(place_T[None] == kept_B1 - 1, said.last_B[:, None], memory['next'])
    mask_BT = (place_T[None] < kept_B1).astype(jnp.int32)
    tokens_BT, q = said.tokens_BT, list[Any]()

    def choose(logits_BV, k):
      nonlocal tokens_BT
      keys_B = keys_GB[min(k, G) - 1]
      next_B, q_BV, tokens_BT = _draw(rules, logits_BV, tokens_BT, said.n_B + k - 1, keys_B)
      q.append(q_BV)
      return next_B

    out = mtp.draft(spec, params, memory['cache'], memory['state'], next_BT, mask_BT, choose, run)
    drafted_BG = out['tokens'][:, :G]
    after_BT = jnp.zeros_like(next_BT).at[:, :G].set(drafted_BG)
    q_BGV = jnp.stack(q[:G], axis=1) if rules.knobs else None
    return drafted_BG, q_BGV, memory | {'cache': out['cache'], 'next': after_BT}

  def keep(self, memory, out, kept_B):
    state_BTD = out['mtp_state']
    T = state_BTD.shape[1]
    return memory | {'state': memory['state'].at[:, :T].set(state_BTD), 'kept': kept_B}


def _draw(
  rules: LogitsProcessors,
  logits_BV: jax.Array,
  tokens_BT: jax.Array,
  n_B: jax.Array,
  keys_B: jax.Array,
) -> tuple[jax.Array, jax.Array | None, jax.Array]:
  """(token number `n_B` of each row by the rules, its distribution if it is drawn, the tokens with
  it).
  """
  # Where a draft has no position for a token it says NaN: any guess will do, but it must have a
  # probability.
  logits_BV = priced(rules, jnp.where(jnp.isnan(logits_BV), 0, logits_BV), tokens_BT, n_B)
  if not rules.knobs:
    next_B, q_BV = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), None
  else:
    logits_BV = warp(logits_BV, rules.knobs)
    next_B = jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)
    q_BV = jax.nn.softmax(logits_BV, axis=-1)
  return next_B, q_BV, tokens_BT.at[jnp.arange(len(n_B)), n_B].set(next_B, mode='drop')
