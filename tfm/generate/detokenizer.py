"""Streaming detokenization: new tokens as text, in whole characters and without stop texts."""

from collections.abc import Iterable, Sequence

from tfm.data.tokenizer.base import StreamDecoder
from tfm.generate.prompts import Tokenizer


class Detokenizer:
  """Incremental text of token ids, up to the first stop text (excluded).

  Args:
    tokenizer: Decodes the ids.
    stops: Texts that end the sequence.
    prompt_ids: The ids before the new ones. The new text continues theirs, so the space before its
      first word is kept. `()`: the text begins with the new ids. None: unknown ids.

  Attributes:
    text: The text returned by `push` and `flush` up to now.
    done: Whether a stop text has occurred, or `flush` was called.

  Example:
    >>> from tfm.data.tokenizer.byte import ByteVocabulary
    >>> detokenizer = Detokenizer(ByteVocabulary(), ['END'])
    >>> [detokenizer.push(i) for i in b'an EnEND.'], detokenizer.text, detokenizer.done
    (['a', 'n', ' ', '', 'En', '', '', '', ''], 'an En', True)
  """

  def __init__(
    self, tokenizer: Tokenizer, stops: Sequence[str] = (), prompt_ids: Iterable[int] | None = None
  ):
    self.text = ''
    self.done = False
    self._stream = StreamDecoder(tokenizer, prompt_ids)
    self._stops = [stop for stop in stops if stop]
    self._pending = ''

  def push(self, token: int) -> str:
    """Add a token and return the new text, without a possible start of a stop text.

    Tokens below 0 are ignored.
    """
    if self.done or token < 0:
      return ''
    return self._emit(self._stream.push(token))

  def flush(self) -> str:
    """Return the rest of the text, after the last token."""
    if self.done:
      return ''
    text = self._emit(self._stream.flush())
    rest, self._pending, self.done = self._pending, '', True
    self.text += rest
    return text + rest

  def _emit(self, new: str) -> str:
    text = self._pending + new
    ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
    if ends:
      self.done, self._pending = True, ''
      emitted = text[: min(ends)]
    else:
      n = max((_overlap(text, stop) for stop in self._stops), default=0)
      emitted, self._pending = text[: len(text) - n], text[len(text) - n :]
    self.text += emitted
    return emitted


def _overlap(text: str, stop: str) -> int:
  """Return the length of the longest proper prefix of `stop` that ends `text`."""
  return next(n for n in range(len(stop) - 1, -1, -1) if text.endswith(stop[:n]))
