"""New tokens of a row as text that can be shown: whole characters, and nothing of a stop text."""

from collections.abc import Iterable, Sequence

from tfm.data.tokenizer.base import StreamDecoder
from tfm.generate.prompts import Tokenizer


class Detokenizer:
  """The text of ids as they come, up to the first of `stops` (left out), an end of text or a token
  below 0.

  Args:
    tokenizer: Decodes the ids.
    stops: Texts that end the row.
    prompt_ids: The ids before the new ones. The text continues theirs: the space before its first
      word is kept. None: ids that are not known; `()`: the text begins with the new ones.

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
    self._held = ''

  def push(self, token: int) -> str:
    """Return the text that may be shown now that `token` is here."""
    if self.done or token < 0:
      return ''
    return self._type(self._stream.push(token))

  def flush(self) -> str:
    """Return the text that was held back, at the end."""
    if self.done:
      return ''
    text = self._type(self._stream.flush())
    rest, self._held, self.done = self._held, '', True
    self.text += rest
    return text + rest

  def _type(self, new: str) -> str:
    text = self._held + new
    ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
    if ends:
      self.done, self._held = True, ''
      shown = text[: min(ends)]
    else:
      hold = max(
        (n for stop in self._stops for n in range(len(stop)) if text.endswith(stop[:n])), default=0
      )
      shown, self._held = text[: len(text) - hold], text[len(text) - hold :]
    self.text += shown
    return shown
