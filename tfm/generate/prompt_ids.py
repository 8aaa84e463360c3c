"""The token ids of prompts, with an error for each prompt that has none."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfm.core import errors
from tfm.generate.option_types import is_integer


def listed(prompts: Any) -> list[Any]:
  """Return prompts as a list of texts or of sequences of ids.

  Raises:
    UserError: for a single prompt, none, another type, or texts mixed with ids.
  """
  is_array = hasattr(prompts, 'ndim') and hasattr(prompts, '__array__')
  if isinstance(prompts, (str, bytes)) or (is_array and prompts.ndim == 1 and len(prompts)):
    raise _single(prompts)
  if is_array and prompts.ndim != 0:
    prompts = list(np.asarray(prompts))
  if not isinstance(prompts, Sequence):
    raise errors.UserError(
      f'generate: prompts is of type {type(prompts).__name__}. '
      'Expected a list of texts or of lists of token ids.'
    )
  if not len(prompts):
    raise errors.UserError('generate: prompts is empty. Expected at least one.')
  if is_integer(prompts[0]):
    raise _single(prompts)
  if len({isinstance(prompt, str) for prompt in prompts}) > 1:
    raise errors.UserError(
      'generate: prompts has both texts and token ids. Expected only texts, or only token ids.'
    )
  return list(prompts)


def _single(prompts: Any) -> errors.UserError:
  return errors.UserError(
    f'generate: prompts is a single prompt ({prompts!r:.60}). Expected a list of prompts.'
  )


def encode(i: int, prompt: Any, tokenizer: Any) -> list[int]:
  """Return the token ids of a prompt.

  Args:
    i: Its number, for errors.
    prompt: A text, or a sequence of ids.
    tokenizer: Encodes texts. None: prompts are ids.

  Returns:
    At least one id. Their range is not checked.

  Raises:
    UserError: for an empty prompt, text without a tokenizer, or ids that are no integers.
  """
  if isinstance(prompt, str):
    if tokenizer is None:
      raise errors.UserError(
        f'generate: prompt {i} is text ({prompt!r:.60}), but there is no tokenizer. '
        'Expected tokenizer=, or token ids.'
      )
    if any(0xD800 <= ord(character) < 0xE000 for character in prompt):
      raise errors.UserError(
        f'generate: prompt {i} has half of a surrogate pair ({prompt!r:.60}). Expected valid text.'
      )
    prompt = list(getattr(tokenizer, 'prompt', tokenizer.encode)(prompt))
  ids = _integers(i, prompt)
  if not ids:
    raise errors.UserError(f'generate: prompt {i} is empty. Expected at least one token.')
  return ids


def _integers(i: int, prompt: Any) -> list[int]:
  """Return a sequence of ids as a list of integers."""
  if hasattr(prompt, '__array__') and getattr(prompt, 'ndim', 0) == 1:
    prompt = np.asarray(prompt).tolist()
  if isinstance(prompt, (bytes, Mapping)) or not isinstance(prompt, Sequence):
    raise errors.UserError(
      f'generate: prompt {i} is of type {type(prompt).__name__} ({prompt!r:.60}). '
      'Expected a text, or a list of token ids.'
    )
  for token in prompt:
    whole = isinstance(token, (int, np.integer)) or getattr(token, 'ndim', None) == 0
    if not whole or isinstance(token, bool) or not hasattr(token, '__index__'):
      raise errors.UserError(
        f'generate: prompt {i} has {token!r:.60}, which is no token id. Expected integers.'
      )
  try:
    return [int(token) for token in prompt]
  except TypeError:
    raise errors.UserError(
      f'generate: prompt {i} has ids of another type ({prompt!r:.60}). Expected integers.'
    ) from None
