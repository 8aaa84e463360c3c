"""The error of layers that depend on later tokens, if they are given a cache."""

from tfm.core import errors


def check_uncached(is_cached: bool, where: str, why: str) -> None:
  """Check that a layer that depends on later tokens has no cache.

  Args:
    is_cached: whether the tokens are those of a cached sequence.
    where: name of the layer, for the error.
    why: how the layer depends on later tokens.

  Raises:
    UserError: the layer has a cache.
  """
  if is_cached:
    raise errors.UserError(f'{where}: {why}. Expected an encoder without a cache.')
