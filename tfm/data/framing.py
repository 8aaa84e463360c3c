"""Special tokens around documents and rows, as the model of a published tokenizer was trained with
them.
"""

from typing import Literal, NamedTuple

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Vocabulary

#: auto: as the tokenizer's model was trained. always, never: whatever the model.
Choice = Literal['auto', 'always', 'never']

_SAMPLES = ('a', 'the', '1', 'A.')


class NoEnd(UserError):
  """Documents need an end token, and the tokenizer has none."""


class Framing(NamedTuple):
  """Token ids before and after each document or row."""

  begin: tuple[int, ...] = ()
  end: tuple[int, ...] = ()


def prompt_frame(vocabulary: Vocabulary) -> Framing:
  """Return the special tokens that a tokenizer puts around a prompt, such as [CLS] and [SEP].

  Raises:
    UserError: if no sample text is found in its own prompt.
  """
  for text in _SAMPLES:
    bare, whole = vocabulary.encode(text).tolist(), vocabulary.prompt(text).tolist()
    places = range(len(whole) - len(bare) + 1) if bare else ()
    for at in (i for i in places if whole[i : i + len(bare)] == bare):
      return Framing(tuple(whole[:at]), tuple(whole[at + len(bare) :]))
  raise UserError(
    f'data.tokenizer: the special tokens around a prompt cannot be found: none of '
    f'{", ".join(map(repr, _SAMPLES))} '
    'has the same tokens alone and in a prompt. Expected data.begin=never, data.end=never and '
    'task.framed=false.'
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

  Raises:
    NoEnd: if there is no end token for separated documents.
    UserError: if there is no begin token for `begin='always'`.
  """
  wants_end = separated if end == 'auto' else end == 'always'
  if begin == 'never' and not wants_end:
    return Framing()
  frame = Framing() if vocabulary.eos is not None and begin == 'never' else prompt_frame(vocabulary)
  own = lambda token: () if token is None else (token,)
  before = (
    () if begin == 'never' else frame.begin or (own(vocabulary.bos) if begin == 'always' else ())
  )
  after = (own(vocabulary.eos) or frame.end) if wants_end else ()
  if begin == 'always' and not before:
    raise UserError(
      'data.begin: is always, and the tokenizer has no begin token. Expected auto or never.'
    )
  if wants_end and not after:
    raise NoEnd(
      'data.end: documents need an end token between them, and the tokenizer has none. Expected a '
      'tokenizer.json in '
      'one folder with its tokenizer_config.json, data.end=never (no token between documents), or '
      'data.new_tokens=add, '
      'which adds a token that no published model was trained with.'
    )
  return Framing(before, after)


def with_new_tokens(
  vocabulary: Vocabulary, names: tuple[str, ...], choice: Literal['refuse', 'add']
) -> Vocabulary:
  """Return a published tokenizer that has the special tokens `names`, its own ones where it has
  them.

  Raises:
    UserError: if it lacks one and `choice` is 'refuse'.
  """
  grown = vocabulary.with_specials(names)
  new = new_tokens(vocabulary, grown)
  if new and choice == 'refuse':
    raise UserError(
      f'data.new_tokens: the task needs the special tokens {_listed(names)}, and the tokenizer has '
      f'no {_listed(new)}. '
      'Expected a tokenizer that has them, or data.new_tokens=add, which adds tokens that no '
      'published model was '
      'trained with.'
    )
  return grown


def new_tokens(vocabulary: Vocabulary, grown: Vocabulary) -> dict[str, int]:
  """Return the special tokens of `grown` that `vocabulary` has no id for."""
  return {name: i for name, i in grown.specials.items() if i >= vocabulary.size}


def new_tokens_line(new: dict[str, int]) -> str:
  """Return the warning about added tokens."""
  added = ', '.join(f'{name} = {i}' for name, i in list(new.items())[:8])
  return f'data: new token ids are added to the tokenizer ({added}). No published model was trained with them.'


def _listed(names) -> str:
  names = list(names)
  return ', '.join(names[:8]) + (f', ... {len(names) - 8} more' if len(names) > 8 else '')
