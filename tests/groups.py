"""The large group: slow cases that add little, run nightly and with TFM_ALL=1.

A test or a case joins the group where it is defined:

    @pytest.mark.large                                        # the whole test
    @pytest.mark.large(when=lambda name: name in ('a', 'b'))  # the cases with these arguments
    pytest.param(..., marks=pytest.mark.large)                # one case
"""

import inspect
import os

import pytest

#: Whether the large group runs.
ALL = bool(os.environ.get('TFM_ALL'))


def is_large(item: pytest.Item) -> bool:
  """Return whether a case belongs to the large group.

  `when` takes arguments of the test, or of its fixtures, by name: the values of `parametrize` and
  of `params`."""
  for mark in item.iter_markers('large'):
    when = mark.kwargs.get('when')
    if when is None:
      return True
    params = item.callspec.params
    if when(**{name: params[name] for name in inspect.signature(when).parameters}):
      return True
  return False
