"""Text of any length in pieces of a size that fits in memory, parted where that changes no token."""

from collections.abc import Callable, Iterable, Iterator
import logging

_MUCH = 1 << 26


def pieces(parts: Iterable[str], cut: Callable[[str], int], size: int) -> Iterator[str]:
  """The text that `parts` are joined, in pieces of about `size` characters, none of them empty.

  `cut(text)` is the last place where `text` may be parted, 0 if there is none yet; the piece then
  grows, and a warning tells of one that grows large."""
  held: list[str] = []
  length, goal, told = 0, size, False
  for part in _sliced(parts, size):
    held.append(part)
    length += len(part)
    if length < goal:
      continue
    text = ''.join(held)
    if at := cut(text):
      yield text[:at]
      text, goal = text[at:], size
    else:
      if length >= _MUCH and not told:
        told = True
        logging.getLogger(__name__).warning(
          'data: %d million characters on end in which this tokenizer may not be interrupted: they '
          'are held in memory '
          'until it may. Text with spaces or line ends was wanted, or data.tokenizer=byte or char.',
          length // 10**6,
        )
      # Twice as much before the next look: looking must not cost the square of the text.
      goal = 2 * length
    held, length = [text], len(text)
  if text := ''.join(held):
    yield text


def _sliced(parts: Iterable[str], size: int) -> Iterator[str]:
  for part in parts:
    if len(part) <= size:
      yield part
    else:
      yield from (part[i : i + size] for i in range(0, len(part), size))
