"""A function of the user as a reward."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import importlib
import importlib.util
from typing import Any

from tfm.core.errors import UserError
from tfm.tasks.rewards.base import Reward


@dataclasses.dataclass(frozen=True)
class Function(Reward):
  """The result of `function(prompt, response, answer)`, a number.

  Attributes:
    path: `module:name` for an installed module, or `file.py:name`.
  """

  path: str = ''

  def score(self, prompt: str, response: str, answer: str) -> float:
    return float(_function(self.path)(prompt, response, answer))

  def check(self) -> Iterator[str]:
    if not self.path.partition(':')[2]:
      yield f'path: is {self.path!r}. Expected module:function or file.py:function.'


@functools.cache
def _function(path: str) -> Callable[[str, str, str], Any]:
  """Return the function at a path.

  Raises:
    UserError: There is no such module, file or function.
  """
  place, _, name = path.partition(':')
  try:
    if place.endswith('.py'):
      spec = importlib.util.spec_from_file_location('tfm_reward', place)
      assert spec is not None
      assert spec.loader is not None
      module = importlib.util.module_from_spec(spec)
      spec.loader.exec_module(module)
    else:
      module = importlib.import_module(place)
  except (ImportError, OSError) as error:
    raise UserError(
      f'task.rewards: cannot import {place} ({error}). Expected an installed module, or a file.'
    ) from error
  found = getattr(module, name, None)
  if not callable(found):
    raise UserError(f'task.rewards: {place} has no function {name!r}. Expected its name.')
  return found
