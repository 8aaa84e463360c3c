"""The structure of parameters for optimizers: stacks, matrices and tables."""

import re
from typing import NamedTuple

#: Axes of lookup tables: vocabulary, positions, token types, buckets of a relative bias.
TABLE_AXES = frozenset('VPYU')


class Layout(NamedTuple):
  """The structure of a parameter.

  Attributes:
    stack: The letters of leading axes of independent copies (layers, experts).
    groups: The letters of the other axes, with heads folded into a single axis.
  """

  stack: str
  groups: tuple[str, ...]


def layout(letters: str) -> Layout:
  """Return the structure of an array with axes `letters`.

  Heads and their dimension are a single axis of a matrix, so the bias of a query (`NH`) is a
  vector.

  Example:
    >>> layout('LDNH')
    Layout(stack='L', groups=('D', 'NH'))
    >>> layout('LEFD')
    Layout(stack='LE', groups=('F', 'D'))
    >>> layout('NH')
    Layout(stack='', groups=('NH',))
  """
  match = re.match(r'L*(?:E(?=.))?', letters)
  assert match is not None, letters
  return Layout(match[0], tuple(re.findall(r'KGH?|[NKG]H|.', letters[match.end() :])))


def is_hidden_matrix(letters: str) -> bool:
  """Return whether the array is a matrix between activations, for each layer and expert."""
  return len(layout(letters).groups) == 2 and not TABLE_AXES & set(letters)
