"""The interface of a reward that a program can verify."""

import abc
import dataclasses

from tfm.core.registry import Part


@dataclasses.dataclass(frozen=True)
class Reward(Part, abc.ABC):
  """A number for a response to a problem, usually from 0 to 1.

  Attributes:
    weight: Factor of the reward in a sum of several.
  """

  weight: float = 1.0

  @abc.abstractmethod
  def score(self, prompt: str, response: str, answer: str) -> float:
    """Return the reward, without `weight`.

    Args:
      prompt: The text of the problem.
      response: The text that the model generated, without the end token.
      answer: The reference answer.

    Returns:
      The reward.
    """

  @classmethod
  def from_text(cls, text: str) -> 'Reward':
    """Return the reward with a name, or the function at `module:name` or `file.py:name`."""
    from tfm.tasks.rewards.function import Function

    return Function(path=text) if ':' in text else cls.table()[text]()
