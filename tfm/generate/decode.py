"""Text generation: `generate` returns whole continuations, `stream` yields tokens as they come."""

from collections.abc import Iterator, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.core import errors
from tfm.generate import beam, beam_stops, decode_loop, prefix_sharing, prompt_cache, speculate
from tfm.generate import logits_processors as processors_lib
from tfm.generate import options as options_lib
from tfm.generate import prompts as prompts_lib
from tfm.generate.check_arguments import check_arguments
from tfm.generate.detokenizer import Detokenizer
from tfm.generate.drafts import Draft
from tfm.generate.memory_limit import check_memory
from tfm.generate.option_types import is_integer
from tfm.generate.options import Options
from tfm.generate.penalties import NOTHING
from tfm.generate.prepare import prepare, prepared
from tfm.generate.prompts import Batch, Prompts, Tokenizer
from tfm.model import check_call
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.parts.context import Run

RUN = Run(loop='unroll')

#: The number of steps between two searches for stop texts.
STOP_CHECK_STEPS = 8


def generate(
  spec: Model,
  params: Params,
  prompts: Prompts,
  *,
  tokenizer: Tokenizer | None = None,
  key: jax.Array | None = None,
  run: Run = RUN,
  draft: Draft | None = None,
  **options: Any,
) -> list[Any]:
  """Return the continuation of each prompt, as text or token ids.

  Prompts may have any lengths; each result is the same as for the prompt alone. They precede the
  new tokens of a decoder, are the bidirectional prefix of a prefix LM, or the encoder input of an
  encoder-decoder.

  Lengths, cache slots and `max_new_tokens` are rounded up to few sizes, and option values are not
  compiled in, so calls reuse compiled functions. By default the parameters are first copied into
  one tree per layer. Call `prepare(spec, params)` once to avoid the copy in each call, or use
  `run=Run(loop='scan')`: slower steps, but a compile time that does not grow with depth.

  Args:
    spec: A model with a language-model head that attends to earlier tokens only (or to a prefix).
    params: Its parameters, prepared or not.
    prompts: A list of texts, a list of lists of token ids, or the inputs of an encoder of audio or
      images: a dict of arrays, as the model's processor returns it, or its only array.
    tokenizer: Encodes and decodes texts. Ids beyond its `size` are never sampled.
    key: One random key, or one per sequence `[B]`. Default: `jax.random.key(0)`, so that the same
      call returns the same text.
    run: Kernels, precision, loop and cache.
    draft: Proposes tokens for speculative decoding: `LookupDraft()`, `ModelDraft(spec, params)` or
      `MTPDraft()`. Greedy results stay the same, sampled ones have the same distribution, and fewer
      passes of the model are needed.
    **options: The fields of `Options`: `max_new_tokens=64`, `min_new_tokens=0`, `eos`, `stop`,
      `decoder_start`, `forced_first`, `forced_last`, `forbidden_first`; `temperature=1.0` (0:
      greedy), `top_k`, `top_p`, `min_p`; `repetition_penalty`, `frequency_penalty`,
      `presence_penalty`, `no_repeat_ngram`, `logit_bias`, `allowed`; `draft_tokens=4`; `beams`,
      `length_penalty`, `early_stopping`; `prefill_chunk`, `prompt_cache`.

  Returns:
    A list of strings for text prompts, and for arrays if there is a tokenizer. Otherwise a list of
    lists of token ids. Ids include the token that ended the sequence. Strings exclude it, and the
    text from a `stop` on.

  Raises:
    UserError: for an unknown option or an invalid value; an empty prompt; a token outside the
      vocabulary; text without a tokenizer; parameters of another model; or a model that attends to
      later tokens. Also for more tokens than a learned position table has, or than fit into memory.

  Example:
    `tfm.generate(spec, params, ['def '], tokenizer=tokenizer, max_new_tokens=64, temperature=0.8)`

    Speech to text, with the settings of the published folder:

      m = tfm.load('whisper-tiny.en')
      features = m.processor(audio=samples, sampling_rate=16000)
      m.generate(features, max_new_tokens=224)
  """
  check_arguments(spec, tokenizer, key, run, draft)
  chosen = options_lib.parse(options)
  batch = prompts_lib.batch(spec, prompts, tokenizer, chosen)
  stops = options_lib.several(chosen.stop)
  prefixes = _text_prefixes(spec, prompts, batch)
  stopper = _StopChecker(tokenizer, stops, batch, prefixes)
  if chosen.beams > 1:
    contains_stop = beam_stops.stop_check(tokenizer, stops) if stops and tokenizer else None
    tokens_BT = _beam_search(spec, params, batch, chosen, key, run, draft, contains_stop)
  else:
    chunk = STOP_CHECK_STEPS if stops else chosen.max_new_tokens
    chunks = _decode_chunks(spec, params, batch, chosen, key, run, draft, stopper, chunk)
    tokens_BT = np.concatenate([*chunks], axis=1)
  ids = [prompts_lib.without_padding(row) for row in tokens_BT]
  if not _returns_text(spec, prompts, tokenizer):
    return ids
  assert tokenizer is not None
  texts = []
  for sequence, prefix in zip(ids, prefixes, strict=True):
    without_eos = [t for t in sequence if t not in batch.eos]
    texts.append(_text(tokenizer, without_eos, stops, prefix))
  return texts


def stream(
  spec: Model,
  params: Params,
  prompts: Prompts,
  *,
  tokenizer: Tokenizer | None = None,
  key: jax.Array | None = None,
  run: Run = RUN,
  draft: Draft | None = None,
  chunk: int = 1,
  **options: Any,
) -> Iterator[NDArray[np.int32]]:
  """Yield the tokens of `generate` step by step.

  A `Detokenizer` turns the ids of a sequence into text as they arrive, and withholds text that may
  be the start of a `stop`.

  Args:
    spec: The model.
    params: Its parameters.
    prompts: As for `generate`.
    tokenizer: Encodes texts.
    key: One random key, or one per sequence.
    run: Kernels, precision, loop and cache.
    draft: Proposes tokens for speculative decoding.
    chunk: The number of steps per transfer from the device. More is faster where steps are short.
    **options: The fields of `Options`; `beams` must be 1.

  Yields:
    int32 `[B]` per step, -1 for a sequence that has ended.

  Raises:
    UserError: as `generate`, and for `beams` > 1.
  """
  check_arguments(spec, tokenizer, key, run, draft)
  if not is_integer(chunk):
    raise errors.UserError(f'generate: chunk={chunk!r:.60} is not an integer. Expected 1 or more.')
  if chunk < 1:
    raise errors.UserError(f'generate: chunk={chunk} is too small. Expected at least 1 step.')
  chosen = options_lib.parse(options)
  if chosen.beams > 1:
    raise errors.UserError(
      f'generate: beams={chosen.beams} cannot be streamed, because the search selects the best '
      'beam at the end. Expected beams=1.'
    )
  batch = prompts_lib.batch(spec, prompts, tokenizer, chosen)
  stops, prefixes = options_lib.several(chosen.stop), _text_prefixes(spec, prompts, batch)
  stopper = _StopChecker(tokenizer, stops, batch, prefixes)
  chunks = _decode_chunks(spec, params, batch, chosen, key, run, draft, stopper, chunk)
  return (tokens_B for tokens_BT in chunks for tokens_B in tokens_BT.T)


class _Prepared(NamedTuple):
  """The inputs of a prefill, with parameters in the layout of `run`."""

  params: Params
  processors: processors_lib.LogitsProcessors
  prompts: prompt_cache.PrefillInputs
  expansion: prefix_sharing.Expansion | None


def _decode_chunks(
  spec: Model,
  params: Params,
  batch: Batch,
  options: Options,
  key: jax.Array | None,
  run: Run,
  draft: Draft | None,
  stopper: '_StopChecker',
  chunk: int,
) -> Iterator[NDArray[np.int32]]:
  """Yield new tokens `[B, n]` in pieces of about `chunk`; the first piece has one token."""
  draft_length = _draft_length(spec, options, run, draft)
  proposer = Draft() if draft is None else draft
  ready = _prepare_decoding(spec, params, batch, options, key, run, proposer)
  params, processors = ready.params, ready.processors
  sizes: dict[str, Any] = {'slots': batch.slots, 'new_slots': batch.new_slots}
  state = decode_loop.prefill(
    spec, params, ready.prompts, processors, proposer, batch.inputs, ready.expansion,
    run=run, chunk=options.prefill_chunk, **sizes,
  )  # fmt: skip
  if options.prompt_cache is not None:
    prompt_cache.store(
      options.prompt_cache, spec, params, batch, run, state.cache, proposer, state.draft_state
    )
  n_yielded = 0
  while True:
    # Transfer before the next call, which donates the buffers of the state.
    tokens_BT, n_B, done_B = jax.device_get((state.tokens_BT, state.n_B, state.done_B))
    n = n_B.max() if done_B.all() else n_B[~done_B].min()
    yield stopper(tokens_BT[:, n_yielded:n])
    n_yielded, done_B = n, done_B | stopper.done_B
    if done_B.all():
      # With a draft, sequences that ended earlier may have more tokens than the last one.
      yield stopper(tokens_BT[:, n_yielded : n_B.max()])
      return
    state = dataclasses.replace(state, done_B=jnp.asarray(done_B))
    until = jnp.int32(n_yielded + chunk)
    if draft is None:
      state = decode_loop.decode_loop(spec, params, state, processors, until, run=run)
    else:
      state = speculate.speculative_loop(
        spec, params, state, processors, draft, until, draft_length=draft_length, run=run
      )


def _draft_length(spec: Model, options: Options, run: Run, draft: Draft | None) -> int:
  """Return the number of tokens proposed per round, 0 without a draft."""
  if draft is None:
    return 0
  if wrong := list(draft.fits(spec)):
    raise errors.UserError(f'generate: draft: {" ".join(wrong)}')
  length, back = draft.length(spec, options.draft_tokens), run.cache.back
  if back is not None and length >= back:
    raise errors.UserError(
      f'generate: the draft proposes {length} tokens, but the cache can be rewound by fewer than '
      f'{back}. Expected a margin of more than {length}, or draft_tokens of less than {back}.'
    )
  return length


def _beam_search(
  spec: Model,
  params: Params,
  batch: Batch,
  options: Options,
  key: jax.Array | None,
  run: Run,
  draft: Draft | None,
  contains_stop: beam_stops.StopCheck | None,
) -> NDArray[np.int32]:
  """Return the best beam of each prompt, `[B, T]`."""
  if draft is not None:
    raise errors.UserError(
      f'generate: beams={options.beams} does not support a draft. Expected draft=None, or beams=1.'
    )
  ready = _prepare_decoding(spec, params, batch, options, key, run, Draft())
  scoring = beam.BeamScoring(
    jnp.float32(options.length_penalty),
    early=jnp.asarray(options.early_stopping is True),
    never=jnp.asarray(options.early_stopping == 'never'),
  )
  prefilled = beam.prefill(
    spec, ready.params, ready.prompts, ready.processors, ready.expansion,
    run=run, slots=batch.slots, chunk=options.prefill_chunk,
  )  # fmt: skip
  if options.prompt_cache is not None:
    prompt_cache.store(
      options.prompt_cache, spec, ready.params, batch, run, prefilled.cache, Draft(), ()
    )
  sizes: dict[str, Any] = {'beams': options.beams, 'new_slots': batch.new_slots}
  args = (spec, ready.params, prefilled, ready.processors, scoring)
  if contains_stop is not None:
    return beam_stops.search(*args, contains_stop, ready.expansion, run=run, **sizes)
  return np.asarray(beam.search(*args, ready.expansion, run=run, **sizes))


def _prepare_decoding(
  spec: Model,
  params: Params,
  batch: Batch,
  options: Options,
  key: jax.Array | None,
  run: Run,
  draft: Draft,
) -> _Prepared:
  """Return the inputs of a prefill."""
  check_memory(spec, batch, options, run)
  keys_B = _sequence_keys(jax.random.key(0) if key is None else key, len(batch.prompt))
  check_call.check_model('generate', spec, params)
  processors = processors_lib.make(batch, spec.vocab, options, keys_B)
  if run.loop == 'unroll' and not prepared(params):
    params = prepare(spec, params)
  new = options.max_new_tokens
  layout = prefix_sharing.prefix_layout(spec, run.cache, batch, options.beams, new)
  prompts = _prefill_inputs(spec, params, batch, options, run, draft, layout)
  return _Prepared(params, processors, prompts, None if layout is None else layout.expansion)


def _prefill_inputs(
  spec: Model,
  params: Params,
  batch: Batch,
  options: Options,
  run: Run,
  draft: Draft,
  layout: prefix_sharing.PrefixLayout | None,
) -> prompt_cache.PrefillInputs:
  """Return the prompts left to compute, and the cache of the rest if there is a prompt file."""
  if options.prefill_chunk is not None and (spec.reads_prefix or spec.encoder is not None):
    raise errors.UserError(
      f'generate: prefill_chunk={options.prefill_chunk} is not possible, because prompt tokens '
      'attend to later ones. Expected None.'
    )
  # With shared blocks, each distinct prompt is computed once.
  batch = batch if layout is None else layout.batch
  if options.prompt_cache is None:
    return prompt_cache.PrefillInputs(batch.inputs)
  if 'input_ids' not in batch.inputs:
    arrays = ', '.join(name for name in batch.inputs if name != 'decoder_input_ids')
    raise errors.UserError(
      f'generate: prompt_cache={options.prompt_cache} supports token prompts only, but the encoder '
      f'takes {arrays}. Expected None.'
    )
  slots = batch.slots if layout is None else batch.prompt.shape[1]
  chunk = options.prefill_chunk
  return prompt_cache.restore(options.prompt_cache, spec, params, batch, run, draft, slots, chunk)


def _returns_text(spec: Model, prompts: Any, tokenizer: Tokenizer | None) -> bool:
  """Return whether the result is text: for text prompts, and for arrays with a tokenizer."""
  if prompts_lib.are_arrays(spec, prompts):
    return tokenizer is not None
  return isinstance(prompts[0], str)


class _StopChecker:
  """Ends sequences with the token that completes a stop text."""

  def __init__(
    self,
    tokenizer: Tokenizer | None,
    stops: Sequence[str],
    batch: Batch,
    prefixes: list[list[int]],
  ):
    if stops and tokenizer is None:
      raise errors.UserError(
        f'generate: stop={stops[0]!r} is text, but there is no tokenizer. '
        'Expected tokenizer=, or eos= for token ids.'
      )
    self.done_B = np.zeros(len(batch.prompt), bool)
    self._eos = batch.eos
    self._detokenizers: list[Detokenizer] = []
    if stops and tokenizer is not None:
      self._detokenizers = [Detokenizer(tokenizer, stops, ids) for ids in prefixes]

  def __call__(self, tokens_BT: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return the tokens with `NOTHING` after the end of each sequence, without empty columns."""
    tokens_BT = tokens_BT.copy()
    for i, detokenizer in enumerate(self._detokenizers):
      for t in range(tokens_BT.shape[1]):
        if self.done_B[i]:
          tokens_BT[i, t] = NOTHING
        elif (token := int(tokens_BT[i, t])) not in self._eos:
          detokenizer.push(token)
          self.done_B[i] = detokenizer.done
    return tokens_BT[:, (tokens_BT != NOTHING).any(axis=0)]


def _text_prefixes(spec: Model, prompts: Any, batch: Batch) -> list[list[int]]:
  """Return the ids that the new text of each sequence continues; none after an encoder."""
  if spec.encoder is not None or prompts_lib.are_arrays(spec, prompts):
    return [[] for _ in batch.prompt]
  return [prompts_lib.without_padding(row) for row in batch.prompt]


def _text(tokenizer: Tokenizer, ids: list[int], stops: Sequence[str], prefix: list[int]) -> str:
  """Return the text of new tokens after the tokens of `prefix`."""
  if not stops and not prefix:
    return tokenizer.decode(ids)
  detokenizer = Detokenizer(tokenizer, stops, prefix)
  return ''.join([*map(detokenizer.push, ids), detokenizer.flush()])


def _sequence_keys(key: jax.Array, B: int) -> jax.Array:
  """Return a key per sequence, which does not depend on the batch size."""
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    key = jax.random.wrap_key_data(key)
  if key.ndim == 0:
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(B))
  if key.shape != (B,):
    raise errors.UserError(
      f'generate: key has shape {key.shape} for {B} prompts. Expected one key, or one per prompt.'
    )
  return key
