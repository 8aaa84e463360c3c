"""Rewards that compare a response with its answer, or with a pattern."""

from collections.abc import Iterator
import dataclasses
from fractions import Fraction
import re

from tfm.tasks.rewards.base import Reward

_NUMBER = re.compile(r'-?\d[\d,]*(?:\.\d+)?(?:/\d+)?')


@dataclasses.dataclass(frozen=True)
class ExactMatch(Reward):
  """1 if the response is the answer, up to space at both ends.

  Attributes:
    after: Only the text after the last occurrence of this marker is compared, such as 'Answer:'.
      A response without it gets 0. Empty compares the whole response.
    ignore_case: Ignore upper and lower case.
  """

  after: str = ''
  ignore_case: bool = False

  def score(self, prompt: str, response: str, answer: str) -> float:
    del prompt
    if self.after:
      _, marker, response = response.rpartition(self.after)
      if not marker:
        return 0.0
    given, expected = response.strip(), answer.strip()
    if self.ignore_case:
      given, expected = given.casefold(), expected.casefold()
    return float(given == expected)


@dataclasses.dataclass(frozen=True)
class LastNumber(Reward):
  """1 if the last number of the response equals the last number of the answer.

  Commas between digits are ignored, and fractions are compared exactly. GSM8K's answers
  ('... #### 42') need no preparation.
  """

  def score(self, prompt: str, response: str, answer: str) -> float:
    del prompt
    given, expected = last_number(response), last_number(answer)
    return float(given is not None and given == expected)


def last_number(text: str) -> Fraction | None:
  """Return the last number of a text, or None."""
  found = _NUMBER.findall(text)
  try:
    return Fraction(found[-1].replace(',', '')) if found else None
  except ZeroDivisionError:
    return None


@dataclasses.dataclass(frozen=True)
class Regex(Reward):
  """1 if a pattern is found in the response.

  Attributes:
    pattern: A regular expression of Python. `{answer}` becomes the escaped answer.
  """

  pattern: str = r'\b{answer}\b'

  def score(self, prompt: str, response: str, answer: str) -> float:
    del prompt
    pattern = self.pattern.replace('{answer}', re.escape(answer.strip()))
    return float(re.search(pattern, response, re.DOTALL) is not None)

  def check(self) -> Iterator[str]:
    try:
      re.compile(self.pattern.replace('{answer}', 'a'))
    except re.error as error:
      yield f'pattern: {self.pattern!r} is no regular expression ({error}). Expected one.'


@dataclasses.dataclass(frozen=True)
class Tags(Reward):
  """1 if the response is a sequence of tagged parts, as in DeepSeek-R1 (arXiv:2501.12948).

  Attributes:
    tags: The names of the parts in order, by default <think>...</think> <answer>...</answer>.
  """

  tags: tuple[str, ...] = ('think', 'answer')

  def score(self, prompt: str, response: str, answer: str) -> float:
    del prompt, answer
    parts = [rf'<{re.escape(t)}>(?:(?!</?{re.escape(t)}>).)*</{re.escape(t)}>' for t in self.tags]
    return float(re.fullmatch(r'\s*'.join(parts), response.strip(), re.DOTALL) is not None)

  def check(self) -> Iterator[str]:
    if not self.tags:
      yield 'tags: is empty. Expected at least one name.'
