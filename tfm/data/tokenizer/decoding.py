"""Post-processing of the text that a published tokenizer decodes."""

from collections.abc import Sequence
import dataclasses
import re

_TIMES = re.compile(r'<\|\d+\.\d+\|>')
#: Spaces that tokenizers of words leave before punctuation and contractions.
_CLEAN = (
  (' .', '.'), (' ?', '?'), (' !', '!'), (' ,', ','), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"),
  (" 's", "'s"),
  (" 've", "'ve"), (" 're", "'re"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Decoding:
  """Changes to decoded text.

  Attributes:
    clean: Drop spaces before punctuation (`clean_up_tokenization_spaces`).
    suffix: The mark of the end of a word, which becomes a space; the text is then stripped (CLIP).
    prompt: The ids that start a prompt and the transcript. Ids of the prompt are dropped (Whisper).
    times: Drop time stamps (Whisper).
  """

  clean: bool = False
  suffix: str = ''
  prompt: tuple[int, ...] = ()
  times: bool = False

  def tokens(self, ids: Sequence[int]) -> Sequence[int]:
    """Return the ids without those of a prompt."""
    if not self.prompt or not ids or ids[0] != self.prompt[0]:
      return ids
    return ids[ids.index(self.prompt[1]) :] if self.prompt[1] in ids else []

  def text(self, text: str) -> str:
    """Return the final form of a decoded text."""
    if self.suffix:
      text = text.replace(self.suffix, ' ').strip()
    if self.clean:
      text = clean(text)
    return _TIMES.sub('', text) if self.times else text

  def unsettled(self, text: str) -> int:
    """Return how many characters at the end of a text may still change when more follows."""
    if self.suffix:
      return len(text) - len(text.rstrip())
    return uncleaned(text) if self.clean else 0


def uncleaned(text: str) -> int:
  """Return how many characters at the end of a text `clean` may change when more follows."""
  tails = (n for before, _ in _CLEAN for n in range(1, len(before)) if text.endswith(before[:n]))
  return max(tails, default=0)


def clean(text: str) -> str:
  """Return a text without the spaces before its punctuation and contractions."""
  for before, after in _CLEAN:
    text = text.replace(before, after)
  return text
