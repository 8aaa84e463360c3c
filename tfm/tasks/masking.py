"""Random masks of tokens, shared by the objectives that mask."""

from collections.abc import Iterator
import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data import stateless_rng
from tfm.data.tokenizer import Vocabulary
from tfm.data.words import word_bounds, word_numbers


class Masked(NamedTuple):
  """Sequences with masked tokens, [b, n].

  Attributes:
    tokens: The token ids after masking, int32.
    chosen: Which tokens were chosen for prediction, bool.
  """

  tokens: NDArray[np.int32]
  chosen: NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Masking:
  """A choice of tokens, and what replaces them.

  Attributes:
    rate: Probability that an ordinary token is chosen.
    masked: Share of the chosen tokens that become the mask token.
    random: Share of the chosen tokens that become a random ordinary token. The rest is unchanged.
    whole_word: Choose words, with all of their tokens.
  """

  rate: float
  masked: float
  random: float
  whole_word: bool

  def apply(
    self,
    tokens: NDArray[np.int32],
    segments: NDArray[np.int32],
    key: NDArray[np.uint64],
    vocabulary: Vocabulary,
  ) -> Masked:
    """Mask sequences. Special tokens and padding are never chosen.

    Args:
      tokens: Token ids [b, n].
      segments: Document numbers [b, n]. 0 is padding.
      key: The random key of each sequence, uint64 [b].
      vocabulary: The vocabulary, with a mask token.

    Returns:
      The masked sequences.
    """
    n, special = tokens.shape[1], vocabulary.is_special
    draws = stateless_rng.uniform(key, 'chosen', n)
    if self.whole_word:
      words = word_numbers(tokens, segments, word_bounds(vocabulary))
      draws = np.take_along_axis(draws, words, 1)
    chosen = (draws < self.rate) & (segments > 0) & ~special[tokens]
    draw = stateless_rng.uniform(key, 'fate', n)
    ordinary = np.flatnonzero(~special).astype(np.int32)
    random = ordinary[(stateless_rng.uniform(key, 'token', n) * len(ordinary)).astype(np.int64)]
    masked = draw < self.masked
    replaced = ~masked & (draw < self.masked + self.random)
    out = np.where(chosen & masked, np.int32(vocabulary.special('mask')), tokens)
    return Masked(np.where(chosen & replaced, random, out), chosen)

  def suits(self, vocabulary: Vocabulary) -> Iterator[str]:
    """Yield a message if words are chosen, and the tokens have no marks of words."""
    if self.whole_word:
      try:
        word_bounds(vocabulary)
      except UserError as error:
        yield str(error)

  def check(self) -> Iterator[str]:
    """Yield a message for each impossible share."""
    if not 0 < self.rate <= 1:
      yield f'rate: is {self.rate}. Expected a share above 0, at most 1.'
    if self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
      yield (
        f'masked, random: are {self.masked} and {self.random}. Expected two shares that add up to '
        'at most 1.'
      )


def content_keys(tokens: NDArray[Any]) -> NDArray[np.uint64]:
  """Return a random key for each sequence that depends on its tokens only, uint64 [b]."""
  places = np.arange(tokens.shape[1])[None]
  return stateless_rng.mix(stateless_rng.mix(places, tokens).sum(1, dtype=np.uint64))
