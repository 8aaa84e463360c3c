"""What the letters of a parameter's axes tell an optimizer: what is stacked, what is a matrix, what
is a table.
"""

import re
from typing import NamedTuple

#: Axes that are looked up, not multiplied: vocabulary, positions, token types, buckets of a
#: relative bias.
LOOKED_UP = frozenset('VPYU')


class Layout(NamedTuple):
  """`stack`: leading axes of independent copies (layers, experts). `groups`: the rest, heads folded
  into one axis.
  """

  stack: str
  groups: tuple[str, ...]


def layout(letters: str) -> Layout:
  """The layout of an array whose axes are `letters`.

  Heads and their dimension are one axis of a matrix written as two, so the bias of a query (`NH`)
  is a vector.

  Example:
    >>> layout('LDNH'), layout('LEFD'), layout('NH')
    (Layout(stack='L', groups=('D', 'NH')), Layout(stack='LE', groups=('F', 'D')), Layout(stack='',
    groups=('NH',)))
  """
  match = re.match(r'L*(?:E(?=.))?', letters)
  assert match is not None, letters
  return Layout(match[0], tuple(re.findall(r'KGH?|[NKG]H|.', letters[match.end() :])))


def is_hidden_matrix(letters: str) -> bool:
  """Whether the array is, layer by layer and expert by expert, a matrix from activations to
  activations.
  """
  return len(layout(letters).groups) == 2 and not LOOKED_UP & set(letters)
