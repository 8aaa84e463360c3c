"""Bounds on tokenizer files, and UserErrors in place of errors of the libraries that run them."""

from collections.abc import Iterable, Iterator, Mapping
import contextlib
import json
from typing import Any

import tokenizers

from tfm.core import errors

#: Ids must be below. Published vocabularies have up to 10**6 tokens.
MAX_IDS = 1 << 24
#: The most tokens that a setting may add to a vocabulary without a list of them.
MAX_NEW = 1 << 16
#: The most characters that the replacements of a normaliser may make of one.
_MAX_GROWTH = 1000


@contextlib.contextmanager
def reported(where: str, expected: str = 'valid tokenizer files') -> Iterator[None]:
  """Raise UserError for errors and panics of a tokenizer library.

  A panic of Rust code is no `Exception`. A regular expression that backtracks too often ends in
  one: the library gives up after 10 million steps, which take a second.

  Args:
    where: The file or folder, for errors.
    expected: What the files should be, for errors.

  Raises:
    UserError: The library failed.
  """
  try:
    yield
  except (errors.UserError, MemoryError):
    raise
  except BaseException as error:
    if not isinstance(error, Exception) and type(error).__name__ != 'PanicException':
      raise
    raise errors.UserError(
      f'{where} ({str(error).strip() or type(error).__name__:.200}). Expected {expected}.'
    ) from error


def check_ids(where: str, ids: Iterable[int]) -> None:
  """Check that ids of tokens can be indices of a table.

  Raises:
    UserError: An id is negative or too large.
  """
  for number in ids:
    if not 0 <= number < MAX_IDS:
      raise errors.UserError(
        f'{where}: a token has the id {number}. Expected ids of at least 0 and below {MAX_IDS}.'
      )


def check_count(where: str, name: str, count: Any) -> None:
  """Check the number of tokens that a setting adds to a vocabulary.

  Raises:
    UserError: It is no integer, negative or too large.
  """
  if not isinstance(count, int) or not 0 <= count <= MAX_NEW:
    raise errors.UserError(
      f'{where}: {name} is {count!r:.60}. Expected an integer from 0 to {MAX_NEW}.'
    )


def check_tokenizer(where: str, inner: tokenizers.Tokenizer) -> None:
  """Check the ids of a tokenizer, the size of its texts, and that it runs.

  Args:
    where: The file or folder, for errors.
    inner: The tokenizer.

  Raises:
    UserError: An id is too large, a normaliser multiplies the length of a text, or the library
      fails on a short text.
  """
  inner.no_padding()
  inner.no_truncation()
  check_ids(where, inner.get_vocab(with_added_tokens=True).values())
  for kind in ('normalizer', 'decoder'):
    part = getattr(inner, kind)
    growth = 1 if part is None else _growth(json.loads(part.__getstate__()))
    if growth > _MAX_GROWTH:
      raise errors.UserError(
        f'{where}: the {kind} makes up to {growth:.0e} characters of one. '
        f'Expected at most {_MAX_GROWTH}.'
      )
  # A text without any known token is an error of the text; a panic is one of the files.
  with reported(f'{where}: its tokenizer fails on a text'), contextlib.suppress(Exception):
    inner.encode('a b')


def _growth(step: Mapping[str, Any]) -> int:
  """Return how many characters the replacements of a normaliser can make of one."""
  steps = next((step[name] for name in ('normalizers', 'decoders') if name in step), None)
  if steps is None:
    pattern = step.get('pattern') or {}
    length = len(pattern.get('String') or ' ')
    return max(1, len(step.get('content') or '') // length) if step.get('type') == 'Replace' else 1
  total = 1
  for inner in steps:
    total *= _growth(inner)
  return total
