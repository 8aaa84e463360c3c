"""Special tokens around documents and sequences, as a published model expects them."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Vocabulary

#: 'auto' follows the training of the tokenizer's model. 'always' and 'never' override it.
Choice = Literal['auto', 'always', 'never']

_SAMPLES = ('a', 'the', '1', 'A.')


class NoEnd(UserError):
  """Documents need an end token, but the tokenizer has none."""


class Framing(NamedTuple):
  """Token ids around each document or sequence.

  Attributes:
    begin: The ids before it.
    end: The ids after it.
  """

  begin: tuple[int, ...] = ()
  end: tuple[int, ...] = ()


def prompt_frame(vocabulary: Vocabulary) -> Framing:
  """Return the special tokens that a tokenizer adds to a prompt, such as [CLS] and [SEP].

  Raises:
    UserError: No sample text has the same tokens alone and in a prompt.
  """
  for text in _SAMPLES:
    plain, prompt = vocabulary.encode(text).tolist(), vocabulary.prompt(text).tolist()
    starts = range(len(prompt) - len(plain) + 1) if plain else ()
    for start in starts:
      end = start + len(plain)
      if prompt[start:end] == plain:
        return Framing(tuple(prompt[:start]), tuple(prompt[end:]))
  raise UserError(
    f'data.tokenizer: cannot find the special tokens around a prompt, because the tokens of '
    f'{", ".join(map(repr, _SAMPLES))} change inside a prompt. Expected data.begin=never, '
    'data.end=never and task.framed=false.'
  )


def document_framing(
  vocabulary: Vocabulary, begin: Choice, end: Choice, separated: bool
) -> Framing:
  """Return the tokens around each document for a published tokenizer.

  A document starts with the first special tokens of a prompt, or with the begin token for
  `begin='always'`. It ends with the end token, or with the last special tokens of a prompt if there
  is no end token.

  Args:
    vocabulary: The published tokenizer.
    begin: Whether documents begin with special tokens.
    end: Whether they end with special tokens. 'auto' is `separated`.
    separated: Whether there are several documents.

  Returns:
    The token ids before and after each document.

  Raises:
    NoEnd: There is no end token for separated documents.
    UserError: There is no begin token for `begin='always'`.
  """
  needs_end = separated if end == 'auto' else end == 'always'
  if begin == 'never' and not needs_end:
    return Framing()
  frame = Framing()
  if vocabulary.eos is None or begin != 'never':
    frame = prompt_frame(vocabulary)
  before: tuple[int, ...] = () if begin == 'never' else frame.begin
  if begin == 'always' and not before and vocabulary.bos is not None:
    before = (vocabulary.bos,)
  after: tuple[int, ...] = ()
  if needs_end:
    after = frame.end if vocabulary.eos is None else (vocabulary.eos,)
  if begin == 'always' and not before:
    raise UserError(
      'data.begin: is always, but the tokenizer has no begin token. Expected auto or never.'
    )
  if needs_end and not after:
    raise NoEnd(
      'data.end: documents need an end token between them, but the tokenizer has none. Expected a '
      'tokenizer.json in one folder with its tokenizer_config.json, data.end=never (no token '
      'between documents), or data.new_tokens=add, which adds a token that no published model was '
      'trained with.'
    )
  return Framing(before, after)


def with_new_tokens(
  vocabulary: Vocabulary, names: tuple[str, ...], choice: Literal['refuse', 'add']
) -> Vocabulary:
  """Return a published tokenizer with the special tokens `names`.

  Special tokens that it already has are kept.

  Args:
    vocabulary: The published tokenizer.
    names: The names of the special tokens.
    choice: 'add' adds missing tokens, 'refuse' raises an error.

  Returns:
    The extended vocabulary.

  Raises:
    UserError: A token is missing, and `choice` is 'refuse'.
  """
  grown = vocabulary.with_specials(names)
  new = new_tokens(vocabulary, grown)
  if new and choice == 'refuse':
    raise UserError(
      f'data.new_tokens: the task needs the special tokens {_listed(names)}, but the tokenizer has '
      f'no {_listed(new)}. Expected a tokenizer that has them, or data.new_tokens=add, which adds '
      'tokens that no published model was trained with.'
    )
  return grown


def new_tokens(vocabulary: Vocabulary, grown: Vocabulary) -> dict[str, int]:
  """Return the special tokens of `grown` that `vocabulary` lacks."""
  return {name: i for name, i in grown.specials.items() if i >= vocabulary.size}


def new_tokens_line(new: dict[str, int]) -> str:
  """Return the warning about added tokens."""
  added = ', '.join(f'{name} = {i}' for name, i in list(new.items())[:8])
  return (
    f'data: new token ids are added to the tokenizer ({added}). No published model was trained '
    'with them.'
  )


def _listed(names: Iterable[str]) -> str:
  names = list(names)
  more = f', ... {len(names) - 8} more' if len(names) > 8 else ''
  return ', '.join(names[:8]) + more
