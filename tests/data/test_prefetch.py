import threading
import time

import pytest

from tfm.data.prefetch import prefetch


def test_steps_come_in_order():
  assert list(prefetch(lambda step: step * step, 3, 8)) == [9, 16, 25, 36, 49]


def test_at_most_depth_steps_are_prefetched():
  made = []
  batches = prefetch(lambda step: made.append(step) or step, 0, 100, depth=2)
  next(batches)
  time.sleep(0.3)
  assert len(made) <= 5
  batches.close()


def test_error_is_raised_at_its_step():
  def fn(step):
    if step == 2:
      raise RuntimeError('step two')
    return step

  batches = prefetch(fn, 0, 5)
  assert [next(batches), next(batches)] == [0, 1]
  with pytest.raises(RuntimeError, match='step two'):
    next(batches)


def test_closing_ends_the_thread():
  batches = prefetch(lambda step: step, 0, 10**9)
  next(batches)
  batches.close()
  assert not any(t.name == 'tfm-prefetch' for t in threading.enumerate())
