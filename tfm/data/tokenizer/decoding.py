"""Post-processing of decoded text, as published tokenizers do it."""

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
    suffix: The end-of-word mark, which becomes a space. The text is then stripped (CLIP).
    prompt: The ids that start a prompt and the transcript. The ids of the prompt are dropped
      (Whisper).
    times: Drop time stamps (Whisper).
  """

  clean: bool = False
  suffix: str = ''
  prompt: tuple[int, ...] = ()
  times: bool = False

  def tokens(self, ids: Sequence[int]) -> Sequence[int]:
    """Drop the ids of a prompt."""
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
    """Return how many characters at the end of a text may change when more follow."""
    if self.suffix:
      return len(text) - len(text.rstrip())
    return uncleaned(text) if self.clean else 0


def uncleaned(text: str) -> int:
  """Return how many characters at the end of a text `clean` may change when more follow."""
  tails = (n for before, _ in _CLEAN for n in range(1, len(before)) if text.endswith(before[:n]))
  return max(tails, default=0)


def clean(text: str) -> str:
  """Drop the spaces before punctuation and contractions."""
  for before, after in _CLEAN:
    text = text.replace(before, after)
  return text
