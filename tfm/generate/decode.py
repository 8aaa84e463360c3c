"""Text (or token ids) that goes on from prompts: all at once with `generate`, token by token with
`stream`.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.core import errors
from tfm.generate import beam, beam_stops, prefix_sharing, prompt_cache, speculate, step
from tfm.generate import logits_processors as rules_lib
from tfm.generate import options as options_lib
from tfm.generate import prompts as prompts_lib
from tfm.generate.detokenizer import Detokenizer
from tfm.generate.drafts import Draft
from tfm.generate.options import Options
from tfm.generate.penalties import NOTHING
from tfm.generate.prepare import prepare, prepared
from tfm.generate.prompts import Batch, Prompts, Tokenizer
from tfm.model.spec import Model
from tfm.parts.context import Run

RUN = Run(loop='unroll')

#: How many steps are run before their text is looked through for `stop`.
LOOK = 8


def generate(
  spec: Model,
  params: Any,
  prompts: Prompts,
  *,
  tokenizer: Tokenizer | None = None,
  key: jax.Array | None = None,
  run: Run = RUN,
  draft: Draft | None = None,
  **options: Any,
) -> Any:
  """What the model says after each prompt: a list of strings if the prompts are strings, else of
  lists of token ids.

  An encoder of audio or images reads arrays: `prompts` is then a dict of its inputs, as the model's
  processor returns, or the array itself. With a tokenizer the result is strings.

  Prompts (of any lengths: each row is what it would be alone) go before the new tokens of a
  decoder, are in mutual view in a prefix LM, and feed the encoder of an encoder-decoder. `options`
  are the fields of `Options`: `max_new_tokens=64`, `min_new_tokens=0`, `eos`, `stop`,
  `decoder_start`, `forced_first`, `forced_last`, `forbidden_first`; `temperature=1.0` (0: the
  likeliest token), `top_k`, `top_p`, `min_p`; `repetition_penalty`, `frequency_penalty`,
  `presence_penalty`, `no_repeat_ngram`, `logit_bias`, `allowed`; `beams`, `length_penalty`,
  `early_stopping`; `prefill_chunk`, `prompt_cache`. `key` is one key, or one a row (`[B]`); by
  default `jax.random.key(0)`, so the same call gives the same text. `draft` (`Lookup()`,
  `Smaller(spec, params)`, `Later()`) guesses `draft_tokens=4` tokens, which one pass of the model
  then takes or leaves: greedy rows stay the same, drawn ones come from the same distribution, in
  fewer passes.

  Ids end with the token that ended the row; strings leave it out, and what is from a `stop` text
  on. Rows of the token table beyond the tokenizer's `size` are never chosen.

  *Cost*: prompt lengths, cache slots and `max_new_tokens` are rounded up to few sizes, and what is
  compiled for one call serves the next; the values of options are not compiled in. The parameters
  are laid out a layer at a time first: a copy, which `prepare(spec, params)` makes once for many
  calls, and which `run=Run(loop='scan')` goes without, at slower steps; that compiles in a time
  that does not grow with depth.

  *Raises*: UserError for an unknown option or a value out of range, an empty prompt, a token
  outside the vocabulary, text without a tokenizer, more tokens than a learned position table has
  rows, or a model that looks ahead.

  *Example*: `tfm.generate(spec, params, ['def '], tokenizer=tokenizer, max_new_tokens=64,
  temperature=0.8)`, and speech to text:

      m = tfm.load('whisper-tiny.en')
      features = m.processor(audio=samples, sampling_rate=16000)
      m.generate(features, max_new_tokens=224)  # with the folder's own settings
  """
  chosen = options_lib.parse(options)
  batch = prompts_lib.batch(spec, prompts, tokenizer, chosen)
  stops = options_lib.several(chosen.stop)
  before = _before(spec, prompts, batch)
  watch = _Watch(tokenizer, stops, batch, before)
  if chosen.beams > 1:
    holds = beam_stops.held(tokenizer, stops) if stops and tokenizer else None
    rows = _searched(spec, params, batch, chosen, key, run, draft, holds)
  else:
    chunk = LOOK if stops else chosen.max_new_tokens
    rows = np.concatenate(
      [*_chunks(spec, params, batch, chosen, key, run, draft, watch, chunk)], axis=1
    )
  ids = [[int(t) for t in row if t != NOTHING] for row in rows]
  if not _wants_text(spec, prompts, tokenizer):
    return ids
  assert tokenizer is not None
  words = [[t for t in row if t not in batch.eos] for row in ids]
  return [_text(tokenizer, row, stops, prompt) for row, prompt in zip(words, before, strict=True)]


def stream(
  spec: Model,
  params: Any,
  prompts: Prompts,
  *,
  tokenizer: Tokenizer | None = None,
  key: jax.Array | None = None,
  run: Run = RUN,
  draft: Draft | None = None,
  chunk: int = 1,
  **options: Any,
) -> Iterator[NDArray[np.int32]]:
  """The tokens of `generate`, the same ones, as they come: int32 `[B]` a step, -1 for a row that
  has ended.

  `chunk` steps are run before their tokens come out together: more are faster where a step is
  short. A `Detokenizer` turns a row's ids into text as they arrive, and shows nothing that may yet
  be part of a `stop` text."""
  if chunk < 1:
    raise errors.UserError(f'generate: chunk={chunk} is no number of steps. Expected at least 1.')
  chosen = options_lib.parse(options)
  if chosen.beams > 1:
    raise errors.UserError(
      f'generate: beams={chosen.beams} are chosen at the end, no stream. Expected beams=1.'
    )
  batch = prompts_lib.batch(spec, prompts, tokenizer, chosen)
  watch = _Watch(tokenizer, options_lib.several(chosen.stop), batch, _before(spec, prompts, batch))
  chunks = _chunks(spec, params, batch, chosen, key, run, draft, watch, chunk)
  return (tokens_B for tokens_BT in chunks for tokens_B in tokens_BT.T)


def _chunks(
  spec: Model,
  params: Any,
  batch: Batch,
  options: Options,
  key: jax.Array | None,
  run: Run,
  draft: Draft | None,
  watch: Any,
  chunk: int,
) -> Iterator[NDArray[np.int32]]:
  """New tokens `[B, n]` as far as all rows have them, in pieces of `chunk` or so (the first has but
  one).
  """
  if draft is not None and (wrong := list(draft.fits(spec))):
    raise errors.UserError(f'generate: draft: {" ".join(wrong)}')
  ahead = 0 if draft is None else draft.ahead(spec, options.draft_tokens)
  if run.cache.back is not None and ahead >= run.cache.back:
    raise errors.UserError(
      f'generate: the cache can be cut back by fewer than {run.cache.back} tokens, but the draft '
      f'guesses {ahead}. '
      f'Expected a margin of more than {ahead}, or draft_tokens of less than {run.cache.back}.'
    )
  params, rules = _ready(spec, params, batch, options, key, run)
  guess = Draft() if draft is None else draft
  layout = prefix_sharing.prefix_layout(spec, run.cache, batch, 1, options.max_new_tokens)
  begin, fan = (
    _begin(spec, params, batch, options, run, guess, layout),
    None if layout is None else layout.fan,
  )
  sizes: dict[str, Any] = {'slots': batch.slots, 'room': batch.room, 'chunk': options.prefill_chunk}
  state = step.prefill(spec, params, begin, rules, guess, batch.inputs, fan, run=run, **sizes)
  if options.prompt_cache is not None:
    prompt_cache.finish(
      options.prompt_cache, spec, params, batch, run, state.cache, guess, state.memory
    )
  seen = 0
  while True:
    # Read before the next call: it takes the state's memory over.
    tokens_BT, n_B, done_B = jax.device_get((state.tokens_BT, state.n_B, state.done_B))
    now = n_B.max() if done_B.all() else n_B[~done_B].min()
    yield watch(tokens_BT[:, seen:now])
    seen, done_B = now, done_B | watch.done_B
    if done_B.all():
      # With a draft, rows that have ended may be ahead of the one whose stop text was the last.
      yield watch(tokens_BT[:, seen : n_B.max()])
      return
    state, until = dataclasses.replace(state, done_B=jnp.asarray(done_B)), jnp.int32(seen + chunk)
    if draft is None:
      state = step.go_on(spec, params, state, rules, until, run=run)
    else:
      state = speculate.go_on(spec, params, state, rules, draft, until, ahead=ahead, run=run)


def _searched(
  spec: Model,
  params: Any,
  batch: Batch,
  options: Options,
  key: jax.Array | None,
  run: Run,
  draft: Draft | None,
  holds: Callable[[list[int]], bool] | None,
) -> NDArray[np.int32]:
  """The best beam of each prompt, `[B, room]`; `holds` says which new tokens are as many as a beam
  may have.
  """
  if draft is not None:
    raise errors.UserError(
      f'generate: beams={options.beams} have no use for a draft. Expected draft=None, or beams=1.'
    )
  params, rules = _ready(spec, params, batch, options, key, run)
  eager, patient = options.early_stopping is True, options.early_stopping == 'never'
  aims = beam.Aims(jnp.float32(options.length_penalty), jnp.asarray(eager), jnp.asarray(patient))
  layout = prefix_sharing.prefix_layout(
    spec, run.cache, batch, options.beams, options.max_new_tokens
  )
  begin, fan = (
    _begin(spec, params, batch, options, run, Draft(), layout),
    None if layout is None else layout.fan,
  )
  chunk = options.prefill_chunk
  begun = beam.begin(spec, params, begin, rules, fan, run=run, slots=batch.slots, chunk=chunk)
  if options.prompt_cache is not None:
    prompt_cache.finish(options.prompt_cache, spec, params, batch, run, begun.cache, Draft(), ())
  sizes: dict[str, Any] = {'beams': options.beams, 'room': batch.room}
  if holds is not None:
    return beam_stops.search(spec, params, begun, rules, aims, holds, fan, run=run, **sizes)
  return np.asarray(beam.search(spec, params, begun, rules, aims, fan, run=run, **sizes))


def _begin(
  spec: Model,
  params: Any,
  batch: Batch,
  options: Options,
  run: Run,
  draft: Draft,
  layout: prefix_sharing.PrefixLayout | None,
) -> prompt_cache.Start:
  """What is left to read of the prompts, and a cache of the rest, if there is a file of it."""
  if options.prefill_chunk is not None and (spec.reads_prefix or spec.encoder is not None):
    raise errors.UserError(
      f'generate: prefill_chunk={options.prefill_chunk}: a prompt whose tokens see later ones is '
      f'read at once. '
      'Expected None.'
    )
  # Prompts that are the same are read once where their rows can share what is cached of them.
  batch = batch if layout is None else layout.batch
  if options.prompt_cache is None:
    return prompt_cache.Start(batch.inputs)
  if 'input_ids' not in batch.inputs:
    raise errors.UserError(
      f'generate: prompt_cache={options.prompt_cache} keeps prompts of tokens, and the encoder '
      f'reads '
      f'{", ".join(n for n in batch.inputs if n != "decoder_input_ids")}. Expected None.'
    )
  slots = batch.slots if layout is None else batch.prompt.shape[1]
  chunk = options.prefill_chunk
  return prompt_cache.start(options.prompt_cache, spec, params, batch, run, draft, slots, chunk)


def _ready(
  spec: Model, params: Any, batch: Batch, options: Options, key: jax.Array | None, run: Run
) -> tuple[Any, rules_lib.LogitsProcessors]:
  """(the parameters as the steps read them, the rules)."""
  keys_B = _row_keys(jax.random.key(0) if key is None else key, len(batch.prompt))
  rules = rules_lib.make(batch, spec.vocab, options, keys_B)
  return prepare(spec, params) if run.loop == 'unroll' and not prepared(params) else params, rules


def _wants_text(spec: Model, prompts: Any, tokenizer: Tokenizer | None) -> bool:
  """Return whether the result is text: of prompts that are, and of arrays where there is a
  tokenizer.
  """
  return (
    tokenizer is not None if prompts_lib.are_arrays(spec, prompts) else isinstance(prompts[0], str)
  )


class _Watch:
  """Ends rows with the token that completes a text of `stops`."""

  def __init__(
    self, tokenizer: Tokenizer | None, stops: Sequence[str], batch: Batch, before: list[list[int]]
  ):
    if stops and tokenizer is None:
      raise errors.UserError(
        f'generate: stop={stops[0]!r} is text, but there is no tokenizer. Expected tokenizer=, or '
        f'eos= for token ids.'
      )
    self.done_B = np.zeros(len(batch.prompt), bool)
    self._eos = batch.eos
    self._typists = (
      [Detokenizer(tokenizer, stops, ids) for ids in before] if stops and tokenizer else []
    )

  def __call__(self, tokens_BT: NDArray[np.int32]) -> NDArray[np.int32]:
    """The tokens up to the last row's end, `NOTHING` after each row's."""
    tokens_BT = tokens_BT.copy()
    for i, detokenizer in enumerate(self._typists):
      for t in range(tokens_BT.shape[1]):
        if self.done_B[i]:
          tokens_BT[i, t] = NOTHING
        elif (token := int(tokens_BT[i, t])) not in self._eos:
          detokenizer.push(token)
          self.done_B[i] = detokenizer.done
    return tokens_BT[:, (tokens_BT != NOTHING).any(axis=0)]


def _before(spec: Model, prompts: Any, batch: Batch) -> list[list[int]]:
  """Return the ids that the text of each row continues: none for a decoder that an encoder's input
  feeds.
  """
  if spec.encoder is not None or prompts_lib.are_arrays(spec, prompts):
    return [[] for _ in batch.prompt]
  return [[int(t) for t in row if t != NOTHING] for row in batch.prompt]


def _text(tokenizer: Tokenizer, row: list[int], stops: Sequence[str], before: list[int]) -> str:
  """Return the text of new tokens, as they continue the tokens before."""
  if not stops and not before:
    return tokenizer.decode(row)
  detokenizer = Detokenizer(tokenizer, stops, before)
  return ''.join([*map(detokenizer.push, row), detokenizer.flush()])


def _row_keys(key: jax.Array, B: int) -> jax.Array:
  """A key a row, each the same whatever the number of rows."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  if key.ndim == 0:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(B))
  if key.shape != (B,):
    raise errors.UserError(
      f'generate: key has shape {key.shape} for {B} prompts. Expected one key, or one a prompt.'
    )
  return key
