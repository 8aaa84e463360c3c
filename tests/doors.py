"""Wrong values for the fuzz tests of public functions, drawn from a seed."""

import random

import jax.numpy as jnp
import numpy as np

from tfm.core.errors import UserError

#: Words that end the sentence of an error: what is expected, or which names exist.
_WORDS = ('expected', 'known', 'missing')


def wrong_values():
  """Return values that are no valid input, option or prompt of any function, or rarely are."""
  deep = [1]
  for _ in range(50):
    deep = [deep]
  return [
    'text', '', b'bytes', 1.5, float('nan'), float('inf'), -1, 2**31, 2**70, 10**400, True, (), [],
    {}, {'a': 1}, {1: 'a'}, {2}, [None], [1.5], ['a', 1], [[1], [1, 2]], [[1.5]], [[2**70]], deep,
    object(), range(3), iter([1]), np.zeros((0, 3), np.int32), np.zeros((2, 0), np.int32),
    np.zeros(()), np.zeros(3, complex), np.array(['a']), np.array([None]), np.array([[-1]]),
    np.array([[10**9]]), np.full((1, 3), np.nan), np.zeros((1, 1, 1, 1)), jnp.zeros((1, 3)),
  ]  # fmt: skip


def attempt(call, *args, **kwargs):
  """Call a function with wrong values; return whether it raised UserError, and let others pass."""
  message = ''
  try:
    call(*args, **kwargs)
  except UserError as error:
    message = str(error)
  assert not message or any(word in message.lower() for word in _WORDS), message
  return bool(message)


def rng(seed):
  """Return the random numbers of a fuzz test."""
  return random.Random(seed)
