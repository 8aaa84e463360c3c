"""Meshes over several slices keep their fast axes within a slice."""

import dataclasses

import jax
import numpy as np
import pytest

from tfm.core.errors import UserError
from tfm.train import shard
from tfm.train.mesh import Mesh


@dataclasses.dataclass(frozen=True)
class Device:
  """A device with the attributes that place it in a slice or a process."""

  id: int
  slice_index: int
  process_index: int
  platform: str = 'cpu'
  device_kind: str = 'cpu'


def devices(slices, processes=1):
  """Return eight devices, in an order that mixes slices and processes."""
  return [Device(i, i % slices, i % processes) for i in range(8)]


def test_tensor_axis_stays_within_a_slice():
  mesh = Mesh(data=2, tensor=4, dcn=('data:2',))
  placed = shard.make_mesh(mesh, devices(slices=2))
  of_slice = np.vectorize(lambda d: d.slice_index)(placed.devices.squeeze())
  np.testing.assert_array_equal(of_slice, [[0] * 4, [1] * 4])


def test_an_axis_may_be_partly_within_slices():
  placed = shard.make_mesh(Mesh(data=4, fsdp=2, dcn=('data:2',)), devices(slices=2))
  of_slice = np.vectorize(lambda d: d.slice_index)(placed.devices.squeeze())
  np.testing.assert_array_equal(of_slice, [[0, 0], [0, 0], [1, 1], [1, 1]])


def test_processes_are_slices_where_devices_have_none():
  placed = shard.make_mesh(Mesh(stage=4, data=2, dcn=('stage:4',)), devices(1, processes=4))
  of_process = np.vectorize(lambda d: d.process_index)(placed.devices.squeeze())
  np.testing.assert_array_equal(of_process, [[0, 1, 2, 3], [0, 1, 2, 3]])


def test_wrong_numbers_of_slices_are_errors():
  with pytest.raises(
    UserError, match=r'^mesh.dcn: data:4 needs 4 slices, but there are 2. Expected'
  ):
    shard.make_mesh(Mesh(data=8, dcn=('data:4',)), devices(slices=2))
  with pytest.raises(
    UserError, match=r'^mesh.dcn: data:2 needs 2 processes, but there are 1. Expec'
  ):
    shard.make_mesh(Mesh(data=8, dcn=('data:2',)), jax.devices())
  with pytest.raises(
    UserError, match=r'^mesh.dcn: data:3 does not divide data=8. Expected a divisor'
  ):
    shard.make_mesh(Mesh(dcn=('data:3',)), devices(slices=2))


def test_wrong_factors_are_listed():
  assert list(Mesh(fsdp=4, dcn=('fsdp:3', 'rows:2', 'data', 'data:2', 'data:2')).check()) == [
    'dcn: fsdp:3 does not divide fsdp=4. Expected a divisor; the size of an axis includes its '
    'slices.',
    "dcn: 'rows:2' is not a factor of an axis. Expected AXIS:SIZE, such as data:2.",
    "dcn: 'data' is not a factor of an axis. Expected AXIS:SIZE, such as data:2.",
    'dcn: data is given twice. Expected one factor.',
    'dcn: data is given twice. Expected one factor.',
  ]
