"""Prompt caching in a file: a later call computes only the tokens after the common prefix."""

from collections.abc import Sequence
import functools
from pathlib import Path
from typing import Any

from flax import struct
import jax
import numpy as np
from numpy.typing import NDArray

from tfm.core import config, errors
from tfm.generate import cache_export, chunked_prefill, prompt_file
from tfm.generate import prompts as prompts_lib
from tfm.generate.drafts import Draft
from tfm.generate.prompts import Batch
from tfm.model.cache import has_state, init_cache
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.parts.context import Run

_DRAFT = 'draft.'


@struct.dataclass
class PrefillInputs:
  """The uncached part of the prompts, and the caches of the part before it.

  Attributes:
    inputs: Inputs of `apply` for the tokens that are not cached.
    cache: The model's cache of the others. None: there are none.
    draft_cache: The draft's cache of the others. None: the draft reads the whole prompt.
  """

  inputs: dict[str, Any]
  cache: Any = None
  draft_cache: Any = None


def restore(
  path: str | Path,
  spec: Model,
  params: Params,
  batch: Batch,
  run: Run,
  draft: Draft,
  slots: int | None = None,
  chunk: int | None = None,
) -> PrefillInputs:
  """Return the prompts without the prefixes that a file has cached.

  Causal models use the common prefix of the file and each prompt, as far as a ring cache can be
  rewound to it. In a prefix LM or an encoder each token depends on the whole prompt, so the prompts
  must equal the file's. The last token of a decoder is always computed, because its logits are
  needed.

  Recurrent states are stored only after the last token of the file. For a model with recurrent
  states this function therefore writes the file, of the first prompt without its last token.

  Args:
    path: The file. If it does not exist, nothing is cached.
    spec: The model.
    params: Its parameters.
    batch: The prompts.
    run: Kernels, precision and the kind of cache.
    draft: The draft of speculative decoding; `Draft()` for none.
    slots: Cache slots per sequence. None: `batch.slots`.
    chunk: Prompt tokens per pass. None: all.

  Returns:
    The inputs that are left to compute, and the caches.

  Raises:
    UserError: for a file that is damaged, or of another model, run or prompt. Also for recurrent
      states in a prefix LM, or with a draft that has a cache in the file.
  """
  if _stores_states(spec):
    _check_states(path, spec, draft)
    if not Path(path).exists():
      _store_without_last(path, spec, params, batch, run, chunk)
  if not Path(path).exists():
    return PrefillInputs(batch.inputs)
  tokens, arrays = prompt_file.load(path, spec, params, run)
  slots = slots or batch.slots
  prompts = _prompts(spec, batch)
  if spec.encoder is not None:
    _check_same(path, tokens.tolist(), prompts)
    B, source = batch.inputs['input_ids'].shape
    cache = cache_export.import_source(spec, run, B, slots, source, arrays)
    return PrefillInputs({'decoder_input_ids': batch.inputs['decoder_input_ids']}, cache)
  if spec.reads_prefix:
    _check_same(path, tokens.tolist(), prompts)
  cached_B = _cached_lengths(path, spec, run, draft, tokens.tolist(), arrays, prompts)
  left = [prompt[n:] for n, prompt in zip(cached_B, prompts, strict=True)]
  width = min(prompts_lib.bucket(max(map(len, left))), batch.inputs['input_ids'].shape[1])
  ids, mask = prompts_lib.padded(left, width, left=True)
  inputs = {'input_ids': ids, 'attention_mask': mask}
  inputs |= {'prefix_mask': mask} if spec.reads_prefix else {}
  cache = cache_export.import_tokens(spec, run, slots, arrays, len(tokens), cached_B)
  if (stack := draft.cached_layers(spec)) is None:
    return PrefillInputs(inputs, cache)
  draft_arrays = {
    name.removeprefix(_DRAFT): a for name, a in arrays.items() if name.startswith(_DRAFT)
  }
  if not draft_arrays:
    raise errors.UserError(
      f"prompt_cache: {path}: drafts differ: the file has no cache of the model's multi-token "
      'prediction layers, which this draft needs. '
      'Expected a file that was made with this draft, or another draft.'
    )
  # The draft's cache ends one token earlier, because its layers also read the next token.
  draft_cache = cache_export.import_tokens(
    stack, run, batch.slots, draft_arrays, len(tokens) - 1, cached_B
  )
  return PrefillInputs(inputs, cache, draft_cache)


def store(
  path: str | Path,
  spec: Model,
  params: Params,
  batch: Batch,
  run: Run,
  cache: Any,
  draft: Draft,
  draft_state: Any,
) -> None:
  """Write the caches of the first prompt right after its prefill.

  Does nothing if the file exists, or if `restore` writes it.

  Args:
    path: The file.
    spec: The model.
    params: Its parameters.
    batch: The prompts.
    run: Kernels, precision and the kind of cache.
    cache: The model's cache after the prefill.
    draft: The draft of speculative decoding; `Draft()` for none.
    draft_state: Its state after the prefill.
  """
  if Path(path).exists() or _stores_states(spec):
    return
  tokens = np.asarray(_prompts(spec, batch)[0], np.int32)
  if spec.encoder is not None:
    arrays = cache_export.export_source(spec, cache, len(tokens))
  else:
    arrays = cache_export.export_tokens(spec, run, cache)
  if (stack := draft.cached_layers(spec)) is not None:
    exported = cache_export.export_tokens(stack, run, draft.cache(draft_state))
    arrays |= {f'{_DRAFT}{name}': a for name, a in exported.items()}
  prompt_file.save(path, spec, params, run, tokens, arrays)


def _stores_states(spec: Model) -> bool:
  """Return whether files of the model have recurrent states.

  Files of an encoder-decoder have only the encoder output.
  """
  return spec.encoder is None and has_state(spec, 'row')


def _check_states(path: str | Path, spec: Model, draft: Draft) -> None:
  if spec.reads_prefix:
    raise errors.UserError(
      f'prompt_cache: {path}: the model has a prefix mask and recurrent states, so the states '
      'before the last token depend on that token. Expected prompt_cache=None.'
    )
  if draft.cached_layers(spec) is not None:
    raise errors.UserError(
      f'prompt_cache: {path}: recurrent states continue only after all tokens of a file, but the '
      "draft's layers compute some of them again. Expected another draft, or prompt_cache=None."
    )


def _store_without_last(
  path: str | Path, spec: Model, params: Params, batch: Batch, run: Run, chunk: int | None
) -> None:
  """Write a file of the first prompt without its last token; none for a prompt of one token."""
  tokens = _prompts(spec, batch)[0][:-1]
  if not tokens:
    return
  width = prompts_lib.bucket(len(tokens))
  width = width if spec.max_positions is None else min(width, spec.max_positions)
  ids, mask = prompts_lib.padded([tokens], width, left=True)
  inputs = {'input_ids': ids, 'attention_mask': mask}
  cache = _prompt_cache(spec, params, inputs, run=run, slots=width, chunk=chunk)
  arrays = cache_export.export_tokens(spec, run, cache)
  prompt_file.save(path, spec, params, run, np.asarray(tokens, np.int32), arrays)


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'chunk'))
def _prompt_cache(
  spec: Model, params: Params, inputs: dict[str, Any], *, run: Run, slots: int, chunk: int | None
) -> Any:
  cache = init_cache(spec, 1, slots, run.precision.dtype('compute'), kind=run.cache.roomy)
  out = chunked_prefill.chunked_forward(spec, params, cache, inputs, run=run, chunk=chunk)
  return out['cache']


def _prompts(spec: Model, batch: Batch) -> list[list[int]]:
  """Return the token ids of the prompts: of the encoder, or before the new tokens."""
  if spec.encoder is None:
    return [prompts_lib.without_padding(row) for row in batch.prompt]
  pairs = zip(batch.inputs['input_ids'], batch.inputs['attention_mask'], strict=True)
  return [row[mask > 0].tolist() for row, mask in pairs]


def _check_same(path: str | Path, tokens: list[int], prompts: Sequence[list[int]]) -> None:
  other = next((prompt for prompt in prompts if prompt != tokens), None)
  if other is not None:
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the file has {_short(tokens)}, the prompt is '
      f'{_short(other)}. Expected the same, or another file.'
    )


def _cached_lengths(
  path: str | Path,
  spec: Model,
  run: Run,
  draft: Draft,
  tokens: list[int],
  arrays: cache_export.Arrays,
  prompts: list[list[int]],
) -> NDArray[np.int32]:
  """Return the number of tokens of each prompt that come from the file."""
  n, back = len(tokens), run.cache.back
  common = [_common(tokens, prompt) for prompt in prompts]
  if not any(common):
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the file begins with {_short(tokens)}, the prompt '
      f'begins with {_short(prompts[0])}. Expected the same, or another file.'
    )
  if _stores_states(spec):
    return _all_or_none(path, tokens, common, prompts)
  # The draft's cache of a token depends on the next tokens, which differ after the common prefix.
  usable = [
    max(min(c - draft.recomputed(spec), len(prompt) - 1), 0)
    for c, prompt in zip(common, prompts, strict=True)
  ]
  complete = back is None or all(
    a.shape[1] >= n for name, a in arrays.items() if not name.startswith(_DRAFT)
  )
  # Before its margin, a ring cache has overwritten tokens within the attention window.
  least = 0 if complete or back is None else n - back
  reachable = lambda c: c if c >= least else 0
  cached = [reachable(c) for c in usable]
  if any(usable) and not any(cached):
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the prompt has {max(common)} of the {n} tokens of '
      f'the file, but cache={config.text_of(run.cache)} can be rewound by {back} at most. '
      'Expected a prompt that continues all of them, another file, or a cache of all tokens '
      '(dense, int8 or paged).'
    )
  return np.asarray(cached, np.int32)


def _all_or_none(
  path: str | Path, tokens: list[int], common: list[int], prompts: list[list[int]]
) -> NDArray[np.int32]:
  """Return the cached lengths for a file with recurrent states: all of its tokens, or none."""
  n = len(tokens)
  continues = [c == n and len(p) > n for c, p in zip(common, prompts, strict=True)]
  cached = [n * whole for whole in continues]
  if not any(cached):
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the prompt has {max(common)} of the {n} tokens of '
      'the file, but recurrent states are stored only after the last of them. '
      'Expected a prompt that continues all of them, or another file.'
    )
  return np.asarray(cached, np.int32)


def _common(a: list[int], b: list[int]) -> int:
  """Return the length of the common prefix."""
  differing = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
  return next(differing, min(len(a), len(b)))


def _short(tokens: list[int]) -> str:
  return str(tokens if len(tokens) <= 8 else [*tokens[:8], '...']).replace("'", '')
