import types

import pytest

from tfm.core import errors
from tfm.plan import topology
from tfm.plan.chips import CHIPS
from tfm.train.peaks import peak


@pytest.mark.parametrize(
  ('text', 'name', 'shape'),
  [
    ('v5p:4x4x8', 'v5p', (4, 4, 8)),
    ('v5e-16', 'v5e', (4, 4)),
    ('v5litepod-8', 'v5e', (2, 4)),
    ('v5p-16', 'v5p', (2, 2, 2)),
    ('v4-128', 'v4', (4, 4, 4)),
    ('h100:8', 'h100', (8,)),
    ('a100-40gb:4', 'a100-40gb', (4,)),
    ('CPU:2', 'cpu', (2,)),
    ('l4', 'l4', (1,)),
  ],
)
def test_names_of_topologies(text, name, shape):
  found = topology.parse(text)
  assert (found.name, found.shape) == (name, shape)
  assert topology.parse(str(found)) == found


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('v5q:4x4', "unknown chip 'v5q'"),
    ('', 'Expected CHIP:SHAPE'),
    ('v5e:4x4x4', 'too many axes'),
    ('v5e-7', 'no slice with a known shape'),
    ('h100:0', 'has no chips'),
  ],
)
def test_wrong_topologies_raise_with_an_example(text, message):
  with pytest.raises(errors.UserError, match=message):
    topology.parse(text)


def test_compilers_that_are_missing_are_named(monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(
    errors.UserError, match=r"v5e:4x4 needs the compiler.*pip install 'tfm\[tpu\]'"
  ):
    topology.parse('v5e:4x4').devices()


def test_too_few_simulated_devices_are_an_error():
  with pytest.raises(errors.UserError, match='cpu:4096 needs 4096 simulated devices'):
    topology.parse('cpu:4096').devices()


def test_receive_rate_counts_the_links_in_use():
  assert topology.parse('v5e:4x4').received_per_second == 4 * 50e9
  assert topology.parse('v5e:1x2').received_per_second == 50e9
  assert topology.parse('h100:8').received_per_second == 450e9
  assert topology.parse('l4').received_per_second is None


@pytest.mark.parametrize('name', ['v4', 'v5e', 'v5p', 'v6e', 'a100', 'h100', 'h200', 'b200', 'l4'])
def test_peaks_of_chips_equal_those_of_running_devices(name):
  chip = CHIPS[name]
  kind = f'TPU {name}' if chip.platform == 'tpu' else chip.target
  assert chip.flops == peak(types.SimpleNamespace(platform=chip.platform, device_kind=kind))
