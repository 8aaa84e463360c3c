"""Types of the options of `generate`, checked before their values."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import numbers
import os
from typing import Any

import numpy as np

#: The largest number of an int32, in which steps and ids are counted.
LARGEST = 2**31 - 1
# Larger integers overflow as float32.
_LARGEST_REAL = 2**127


def plain(value: Any) -> Any:
  """Return a number that is given as an array without axes as a Python number."""
  return value.item() if hasattr(value, 'item') and getattr(value, 'ndim', None) == 0 else value


def type_problems(given: Mapping[str, Any]) -> Iterator[str]:
  """Yield a sentence for each option of a wrong type.

  Args:
    given: Values by name of option.
  """
  for name, value in given.items():
    if name in _CHECKS:
      is_valid, expected = _CHECKS[name]
      if not is_valid(value):
        yield f'{name}={value!r:.60} is not {expected[0]}. Expected {expected[1]}.'


def is_integer(value: Any) -> bool:
  """Return whether a value is an integer that fits into an int32, and no boolean."""
  whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
  return whole and -LARGEST <= value <= LARGEST


def is_ids(value: Any) -> bool:
  """Return whether a value is a token id or several."""
  if is_integer(value):
    return True
  if not isinstance(value, Iterable) or isinstance(value, (str, bytes, Mapping)):
    return False
  return getattr(value, 'ndim', 1) == 1 and all(is_integer(plain(token)) for token in value)


def _is_real(value: Any) -> bool:
  real = isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))
  return real and not (isinstance(value, int) and abs(value) > _LARGEST_REAL)


def _is_bias(value: Any) -> bool:
  if not isinstance(value, Mapping):
    return False
  return all(is_integer(plain(token)) and _is_real(plain(bias)) for token, bias in value.items())


def _is_stop(value: Any) -> bool:
  return value is None or (isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
  return lambda value: value is None or check(value)


_INTEGER = ('an integer', f'an integer up to {LARGEST}')
_INTEGER_OR_NONE = (_INTEGER[0], f'{_INTEGER[1]}, or None')
_REAL = ('a number', 'a number')
_IDS = ('a token id or several', 'integers, or None')
#: Option -> (check, description of the error, expected value).
_CHECKS: dict[str, tuple[Callable[[Any], bool], tuple[str, str]]] = {
  **dict.fromkeys(
    ('max_new_tokens', 'min_new_tokens', 'draft_tokens', 'beams'), (is_integer, _INTEGER)
  ),
  **dict.fromkeys(
    ('forced_first', 'forced_last', 'no_repeat_ngram', 'top_k', 'prefill_chunk'),
    (_or_none(is_integer), _INTEGER_OR_NONE),
  ),
  **dict.fromkeys(
    ('temperature', 'repetition_penalty', 'frequency_penalty', 'presence_penalty',
     'length_penalty'),
    (_is_real, _REAL),
  ),
  **dict.fromkeys(('top_p', 'min_p'), (_or_none(_is_real), ('a number', 'a number, or None'))),
  **dict.fromkeys(('eos', 'decoder_start', 'allowed'), (_or_none(is_ids), _IDS)),
  'forbidden_first': (is_ids, ('a token id or several', 'integers')),
  'logit_bias': (
    _or_none(_is_bias), ('a mapping of token ids to numbers', 'a dict such as {5: -1.0}, or None')
  ),
  'stop': (_is_stop, ('text', 'one or more strings; use eos for token ids')),
  'early_stopping': (
    lambda value: isinstance(value, (bool, str)),
    ('known', "True, False or 'never'"),
  ),
  'prompt_cache': (
    _or_none(lambda value: isinstance(value, (str, os.PathLike))), ('a path', 'a path, or None')
  ),
}  # fmt: skip
