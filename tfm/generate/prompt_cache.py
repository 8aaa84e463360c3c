"""The cache of a prompt in a file: the next run that begins alike reads only what is new."""

from collections.abc import Sequence
import functools
from pathlib import Path
from typing import Any

from flax import struct
import jax
import numpy as np
from numpy.typing import NDArray

from tfm.core import config, errors
from tfm.generate import cache_export, chunks, prompt_file
from tfm.generate import prompts as prompts_lib
from tfm.generate.drafts import Draft
from tfm.generate.penalties import NOTHING
from tfm.generate.prompts import Batch
from tfm.model.cache import init_cache, keeps
from tfm.model.spec import Model
from tfm.parts.context import Run

_DRAFT = 'draft.'


@struct.dataclass
class Start:
  """What a prefill begins with: the inputs that are left to read, caches of the others for the
  model and for its draft.

  Without a cache (None) all inputs are left; a draft that keeps none of its own with the prompt's
  has None."""

  inputs: dict[str, Any]
  cache: Any = None
  draft: Any = None


def start(
  path: str | Path,
  spec: Model,
  params: Any,
  batch: Batch,
  run: Run,
  draft: Draft,
  slots: int | None = None,
  chunk: int | None = None,
) -> Start:
  """The prompts of `batch` without what `path` holds of each, if there is such a file.

  The cache has `slots`, or those of the batch; `chunk` is how many tokens are read at a time (None:
  all).

  A causal model takes from it as many tokens as the file and a prompt have in common, as far as a
  ring can be cut back to them. What a prefix LM or an encoder says of a token depends on the whole
  prompt, so their prompts must be the file's. The last token of a decoder is always read: it gives
  the logits.

  A row state continues only from the last token of the file. So a model with row states writes the
  file here, of the first prompt without its last token; the prompt itself and every prompt that
  continues those tokens can use it.

  Raises: UserError for a file of something else, saying what differs, or one that is broken; for a prefix LM with row
    states, and for row states with a draft that keeps its cache in the file.
  """
  if _has_rows(spec):
    _check_rows(path, spec, draft)
    if not Path(path).exists():
      _save_without_last(path, spec, params, batch, run, chunk)
  if not Path(path).exists():
    return Start(batch.inputs)
  tokens, arrays = prompt_file.load(path, spec, params, run)
  slots = slots or batch.slots
  rows = _rows(spec, batch)
  if spec.encoder is not None:
    _all_alike(path, tokens.tolist(), rows)
    B, source = batch.inputs['input_ids'].shape
    cache = cache_export.filled_source(spec, run, B, slots, source, arrays)
    return Start({'decoder_input_ids': batch.inputs['decoder_input_ids']}, cache)
  if spec.reads_prefix:
    _all_alike(path, tokens.tolist(), rows)
  held_B = _held(path, spec, run, draft, tokens.tolist(), arrays, rows)
  left = [row[n:] for n, row in zip(held_B, rows, strict=True)]
  width = min(prompts_lib.bucket(max(map(len, left))), batch.inputs['input_ids'].shape[1])
  names = ('input_ids', 'attention_mask', *(['prefix_mask'] if spec.reads_prefix else []))
  ids, mask = prompts_lib.padded(left, width, left=True)
  own = {name.removeprefix(_DRAFT): a for name, a in arrays.items() if name.startswith(_DRAFT)}
  cache, kept = cache_export.filled(spec, run, slots, arrays, len(tokens), held_B), None
  if (stack := draft.stack(spec)) is not None:
    if not own:
      raise errors.UserError(
        f"prompt_cache: {path}: drafts differ: the file has nothing of the model's own heads for "
        f'later tokens, from '
        'which this draft goes on. Expected a file that was made with it, or another draft.'
      )
    # They have not been told the token after the last one.
    kept = cache_export.filled(stack, run, batch.slots, own, len(tokens) - 1, held_B)
  return Start(dict(zip(names, (ids, mask, mask), strict=False)), cache, kept)


def finish(
  path: str | Path,
  spec: Model,
  params: Any,
  batch: Batch,
  run: Run,
  cache: Any,
  draft: Draft,
  memory: Any,
) -> None:
  """Keeps the first prompt's caches, right after it was read, unless there is a file or `start`
  writes one.
  """
  if Path(path).exists() or _has_rows(spec):
    return
  tokens = np.asarray(_rows(spec, batch)[0], np.int32)
  if spec.encoder is not None:
    arrays = cache_export.taken_of_source(spec, cache, len(tokens))
  else:
    arrays = cache_export.taken(spec, run, cache)
  if (stack := draft.stack(spec)) is not None:
    arrays |= {
      f'{_DRAFT}{name}': a
      for name, a in cache_export.taken(stack, run, draft.cache(memory)).items()
    }
  prompt_file.save(path, spec, params, run, tokens, arrays)


def _has_rows(spec: Model) -> bool:
  """Whether prompt files of the model hold row states. Files of an encoder-decoder hold its source
  only.
  """
  return spec.encoder is None and keeps(spec, 'row')


def _check_rows(path: str | Path, spec: Model, draft: Draft) -> None:
  if spec.reads_prefix:
    raise errors.UserError(
      f'prompt_cache: {path}: the model has a prefix mask and row states, so the states before the '
      f'last token depend '
      'on that token. Expected prompt_cache=None.'
    )
  if draft.stack(spec) is not None:
    raise errors.UserError(
      f"prompt_cache: {path}: row states continue only after all tokens of a file, and the draft's "
      f'own layers read '
      'some of them again. Expected another draft, or prompt_cache=None.'
    )


def _save_without_last(
  path: str | Path, spec: Model, params: Any, batch: Batch, run: Run, chunk: int | None
) -> None:
  """Write a file of the first prompt without its last token. A prompt of one token writes no file."""
  tokens = _rows(spec, batch)[0][:-1]
  if not tokens:
    return
  width = prompts_lib.bucket(len(tokens))
  width = width if spec.max_positions is None else min(width, spec.max_positions)
  ids, mask = prompts_lib.padded([tokens], width, left=True)
  cache = _read(
    spec, params, {'input_ids': ids, 'attention_mask': mask}, run=run, slots=width, chunk=chunk
  )
  prompt_file.save(
    path, spec, params, run, np.asarray(tokens, np.int32), cache_export.taken(spec, run, cache)
  )


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'chunk'))
def _read(
  spec: Model, params: Any, inputs: dict[str, Any], *, run: Run, slots: int, chunk: int | None
) -> Any:
  cache = init_cache(spec, 1, slots, run.precision.dtype('compute'), kind=run.cache.roomy)
  return chunks.read(spec, params, cache, inputs, run=run, chunk=chunk)['cache']


def _rows(spec: Model, batch: Batch) -> list[list[int]]:
  """The prompts: what an encoder reads, or what stands before the new tokens."""
  if spec.encoder is None:
    return [[int(t) for t in row if t != NOTHING] for row in batch.prompt]
  pairs = zip(batch.inputs['input_ids'], batch.inputs['attention_mask'], strict=True)
  return [row[mask > 0].tolist() for row, mask in pairs]


def _all_alike(path: str | Path, tokens: list[int], rows: Sequence[list[int]]) -> None:
  other = next((row for row in rows if row != tokens), None)
  if other is not None:
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the file is {_short(tokens)}, the prompt is '
      f'{_short(other)}. '
      'Expected the same, or another file.'
    )


def _held(
  path: str | Path,
  spec: Model,
  run: Run,
  draft: Draft,
  tokens: list[int],
  arrays: cache_export.Arrays,
  rows: list[list[int]],
) -> NDArray[np.int32]:
  """How many tokens of each row come from the file."""
  n, back = len(tokens), run.cache.back
  common = [_common(tokens, row) for row in rows]
  if not any(common):
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the file begins with {_short(tokens)}, the prompt '
      f'begins with '
      f'{_short(rows[0])}. Expected the same, or another file.'
    )
  # What a draft was told of the tokens after a place is not known to be so near the end of what is
  # common.
  count = [
    max(min(c - draft.behind(spec), len(row) - 1), 0) for c, row in zip(common, rows, strict=True)
  ]
  if _has_rows(spec):
    return _held_whole(path, tokens, common, rows)
  whole = back is None or all(
    a.shape[1] >= n for name, a in arrays.items() if not name.startswith(_DRAFT)
  )
  # A ring that has gone round has overwritten what the tokens before its margin look at.
  served = [c if whole or c >= n - (back or 0) else 0 for c in count]
  if any(count) and not any(served):
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the prompt has {max(common)} of the {n} tokens of the '
      f'file, but '
      f'cache={config.text_of(run.cache)} has forgotten what stood before the last {back}. '
      f'Expected a prompt that goes '
      'on from all of them, another file, or a cache that keeps every token (dense, int8 or paged).'
    )
  return np.asarray(served, np.int32)


def _held_whole(
  path: str | Path, tokens: list[int], common: list[int], rows: list[list[int]]
) -> NDArray[np.int32]:
  """`_held` for a file with row states: all of its tokens, or none."""
  n = len(tokens)
  served = [n if c == n and len(row) > n else 0 for c, row in zip(common, rows, strict=True)]
  if not any(served):
    raise errors.UserError(
      f'prompt_cache: {path}: tokens differ: the prompt has {max(common)} of the {n} tokens of the '
      f'file, but row '
      'states are only kept for the last of them. Expected a prompt that continues all of them, or '
      'another file.'
    )
  return np.asarray(served, np.int32)


def _common(a: list[int], b: list[int]) -> int:
  return next(
    (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
  )


def _short(tokens: list[int]) -> str:
  return str(tokens if len(tokens) <= 8 else [*tokens[:8], '...']).replace("'", '')
