"""Text (or token ids) that goes on from prompts: all at once with `generate`, token by token with `stream`."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.core import errors
from tfm.generate import options as options_lib
from tfm.generate import prompts as prompts_lib
from tfm.generate import step
from tfm.generate.prepare import prepare, prepared
from tfm.generate.prompts import Batch, Prompts, Tokenizer
from tfm.model.spec import Model
from tfm.parts.context import Run

RUN = Run(loop='unroll')


def generate(
  spec: Model,
  params: Any,
  prompts: Prompts,
  *,
  tokenizer: Tokenizer | None = None,
  key: jax.Array | None = None,
  run: Run = RUN,
  **options: Any,
) -> Any:
  """What the model says after each prompt: a list of strings if the prompts are strings, else of lists of token ids.

  Prompts (of any lengths: each row is what it would be alone) go before the new tokens of a decoder, are in mutual view
  in a prefix LM, and feed the encoder of an encoder-decoder. `options` are the fields of `Options`:
  `max_new_tokens=64`, `min_new_tokens=0`, `stop`, `decoder_start`, `temperature=1.0` (0: the likeliest token), `top_k`,
  `top_p`, `min_p`.
  `key` is one key, or one a row (`[B]`); by default `jax.random.key(0)`, so the same call gives the same text.

  Ids end with the stop token where there was one; strings leave it out. Rows of the token table beyond the tokenizer's
  `size` are never chosen.

  *Cost*: prompt lengths, cache slots and `max_new_tokens` are rounded up to few sizes, and what is compiled for one
  call serves the next; sampling values are not compiled in. The parameters are laid out a layer at a time
  first: a copy, which `prepare(spec, params)` makes once for many calls, and which `run=Run(loop='scan')` goes without,
  at slower steps; that compiles in a time that does not grow with depth.

  *Raises*: UserError for an unknown option or a value out of range, an empty prompt, a token outside the vocabulary,
  text without a tokenizer, more tokens than a learned position table has rows, or a model that looks ahead.

  *Example*: `tfm.generate(spec, params, ['def '], tokenizer=tokenizer, max_new_tokens=64, temperature=0.8)`
  """
  chosen = options_lib.parse(options)
  batch = prompts_lib.batch(spec, prompts, tokenizer, chosen)
  params, rules, state = _begin(spec, params, batch, chosen, key, run)
  state = step.go_on(spec, params, state, rules, jnp.int32(chosen.max_new_tokens), run=run)
  rows = [_row(tokens_T) for tokens_T in np.asarray(state.tokens_BT)]
  if not isinstance(prompts[0], str):
    return rows
  assert tokenizer is not None
  return [tokenizer.decode(_without_stop(row, batch.stop)) for row in rows]


def stream(
  spec: Model,
  params: Any,
  prompts: Prompts,
  *,
  tokenizer: Tokenizer | None = None,
  key: jax.Array | None = None,
  run: Run = RUN,
  chunk: int = 1,
  **options: Any,
) -> Iterator[NDArray[np.int32]]:
  """The tokens of `generate`, the same ones, as they come: int32 `[B]` a step, -1 for a row that has ended.

  `chunk` steps are run before their tokens come out together: more are faster where a step is short. A tokenizer's
  `StreamDecoder` turns a row's ids into text as they arrive.
  """
  if chunk < 1:
    raise errors.UserError(f'generate: chunk={chunk} is no number of steps. Wanted at least 1.')
  chosen = options_lib.parse(options)
  batch = prompts_lib.batch(spec, prompts, tokenizer, chosen)

  def steps():
    ready, rules, state = _begin(spec, params, batch, chosen, key, run)
    seen = 0
    while True:
      # Read before the next call: it takes the state's memory over.
      tokens_BT, now, done = jax.device_get((state.tokens_BT, state.step, jnp.all(state.done_B)))
      yield from tokens_BT[:, seen : int(now)].T
      seen = int(now)
      if done or seen == chosen.max_new_tokens:
        return
      until = min(seen + chunk, chosen.max_new_tokens)
      state = step.go_on(spec, ready, state, rules, jnp.int32(until), run=run)

  return steps()


def _begin(
  spec: Model, params: Any, batch: Batch, options: options_lib.Options, key: jax.Array | None, run: Run
) -> tuple[Any, step.Rules, step.State]:
  """(the parameters as the steps read them, how to choose tokens, the state after the prompts)."""
  B = len(batch.inputs['input_ids'])
  stop_V = np.zeros(spec.vocab, bool)
  stop_V[list(batch.stop)] = True
  never_V = np.arange(spec.vocab) >= batch.words
  keys_B = _row_keys(jax.random.key(0) if key is None else key, B)
  if run.loop == 'unroll' and not prepared(params):
    params = prepare(spec, params)
  minimum = jnp.int32(options.min_new_tokens)
  rules = step.Rules(keys_B, options.knobs(), jnp.asarray(stop_V), jnp.asarray(never_V), minimum)
  return params, rules, step.prefill(spec, params, batch.inputs, rules, run=run, slots=batch.slots, room=batch.room)


def _row_keys(key: jax.Array, B: int) -> jax.Array:
  """A key a row, each the same whatever the number of rows."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  if key.ndim == 0:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(B))
  if key.shape != (B,):
    raise errors.UserError(f'generate: key has shape {key.shape} for {B} prompts. Wanted one key, or one a prompt.')
  return key


def _row(tokens_T: NDArray[np.int32]) -> list[int]:
  return [int(t) for t in tokens_T if t != step.NOTHING]


def _without_stop(row: list[int], stop: tuple[int, ...]) -> list[int]:
  return row[:-1] if row and row[-1] in stop else row
