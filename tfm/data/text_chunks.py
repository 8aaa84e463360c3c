"""Split text into chunks that fit in memory, without changing its tokens."""

from collections.abc import Callable, Iterable, Iterator
import logging

#: Characters without a split point after which a warning is logged.
_WARN_SIZE = 1 << 26


def chunks(parts: Iterable[str], split_point: Callable[[str], int], size: int) -> Iterator[str]:
  """Yield a text in chunks of about `size` characters, none of them empty.

  A chunk without a split point grows until there is one. A warning reports very large chunks.

  Args:
    parts: The text, in parts of any size.
    split_point: Returns the last index at which a text may be split, or 0 if there is none yet.
    size: Characters of a chunk.

  Yields:
    Chunks, which are together the whole text.
  """
  buffer: list[str] = []
  length, goal, warned = 0, size, False
  for part in _sliced(parts, size):
    buffer.append(part)
    length += len(part)
    if length < goal:
      continue
    text = ''.join(buffer)
    if at := split_point(text):
      yield text[:at]
      text, goal = text[at:], size
    else:
      if length >= _WARN_SIZE and not warned:
        warned = True
        logging.getLogger(__name__).warning(
          'data: %d million characters are held in memory, because this tokenizer cannot split '
          'them. Expected text with spaces or line ends, or data.tokenizer=byte or char.',
          length // 10**6,
        )
      # Doubling keeps the total cost of the searches linear in the text.
      goal = 2 * length
    buffer, length = [text], len(text)
  if text := ''.join(buffer):
    yield text


def _sliced(parts: Iterable[str], size: int) -> Iterator[str]:
  for part in parts:
    if len(part) <= size:
      yield part
    else:
      yield from (part[i : i + size] for i in range(0, len(part), size))
