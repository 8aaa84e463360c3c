"""A chip of simulated devices with the limits of a small accelerator."""

import pytest

from tfm.plan.chips import CHIPS, Chip
from tfm.plan.topology import Topology


@pytest.fixture
def toy(monkeypatch):
  """Return a function `(chips, HBM bytes) -> topology` of the chip 'toy'."""

  def make(count: int, hbm: int = 10**9) -> Topology:
    chip = Chip('cpu', hbm, flops=1e12, bandwidth=1e10, link=1e9)
    monkeypatch.setitem(CHIPS, 'toy', chip)
    return Topology('toy', (count,))

  return make
