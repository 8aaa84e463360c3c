"""Topologies such as `v5p:4x4x8` or `h100:8`: devices to compile for that need not be there."""

from collections.abc import Sequence
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax

from tfm.core import errors
from tfm.plan.chips import ALIASES, CHIPS, Chip

_EXAMPLES = 'v5e:4x4, v5p:2x2x2, v6e-8, h100:8 or cpu:8'

#: Settings of libtpu on a machine without a TPU: no search for it, and no warnings about that.
_WITHOUT_TPU = {
  'TPU_SKIP_MDS_QUERY': '1',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_MIN_LOG_LEVEL': '3',
  'TPU_STDERR_LOG_LEVEL': '3',
}

#: The shapes of slices by their number of chips, where the name gives only that number.
_SQUARES = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 128: (8, 16)}
_SQUARES |= {256: (16, 16)}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Chips of one kind and how they are connected.

  Attributes:
    name: The kind of chip, a key of `CHIPS`.
    shape: The sizes of the axes of the torus of a TPU slice, or the number of chips.
  """

  name: str
  shape: tuple[int, ...]

  @property
  def chip(self) -> Chip:
    """The kind of chip."""
    return CHIPS[self.name]

  @property
  def count(self) -> int:
    """The number of chips."""
    return math.prod(self.shape)

  def __str__(self) -> str:
    return f'{self.name}:{"x".join(map(str, self.shape))}'

  @property
  def received_per_second(self) -> float | None:
    """The most bytes/s that a chip receives from others, over all its links in use."""
    chip = self.chip
    if chip.link is None:
      return None
    if chip.platform != 'tpu':
      return chip.link * chip.links
    # An axis of two chips has one neighbour.
    return chip.link * sum(min(chip.links, n - 1) for n in self.shape)

  def devices(self) -> Sequence[jax.Device]:
    """Return the devices to compile for.

    Raises:
      UserError: The compiler of the platform is not installed, or does not know the topology.
    """
    chip = self.chip
    if chip.platform == 'cpu':
      return _cpus(self.count)
    if chip.platform == 'tpu':
      _need('libtpu', "'tfm[tpu]'", self)
      for name, value in _WITHOUT_TPU.items():
        os.environ.setdefault(name, value)
      _remove_cpu_flags()
      return self._described('tpu', f'{chip.target}:{self._three()}', dict(chip.options))
    _need('jax_plugins.xla_cuda12', 'jax-cuda12-plugin jax-cuda12-pjrt', self)
    arguments = {'target_config': _target_config(chip), 'topology': f'1x1x{self.count}'}
    return self._described('cuda', str(self), arguments)

  def _three(self) -> str:
    """Return the shape as libtpu writes it: v4 and v5p have three axes."""
    axes = 3 if self.name in ('v4', 'v5p') else 2
    return 'x'.join(map(str, (*self.shape, *(1,) * (axes - len(self.shape)))))

  def _described(self, platform: str, name: str, arguments: dict[str, Any]) -> Sequence[jax.Device]:
    from jax.experimental import topologies

    try:
      described = topologies.get_topology_desc(platform=platform, topology_name=name, **arguments)
    except Exception as error:
      reason = str(error).splitlines()[0]
      raise errors.UserError(
        f'--topology: {self} is unknown to the compiler ({reason}). Expected a slice that exists, '
        f'such as {_EXAMPLES}.'
      ) from error
    return list(described.devices)


def parse(text: str) -> Topology:
  """Return the topology of a name such as 'v5p:4x4x8', 'v5e-16' or 'h100:8'.

  Raises:
    UserError: The name is not valid.
  """
  match = re.fullmatch(r'([a-z0-9]+(?:-\d+gb)?)(?:([:-])([0-9x]+))?', text.strip().lower())
  name = '' if match is None else ALIASES.get(match[1], match[1])
  if name not in CHIPS:
    unknown = errors.unknown('chip', name or text, CHIPS)
    raise errors.UserError(f'--topology: {unknown} Expected CHIP:SHAPE, such as {_EXAMPLES}.')
  assert match is not None
  sizes = tuple(int(n) for n in (match[3] or '1').split('x') if n)
  if not sizes or min(sizes) < 1:
    raise errors.UserError(f'--topology: {text!r} has no chips. Expected such as {_EXAMPLES}.')
  if CHIPS[name].platform != 'tpu':
    return Topology(name, (math.prod(sizes),))
  if len(sizes) == 1:
    sizes = _slice_shape(name, sizes[0], match[2] == '-', text)
  if len(sizes) > (3 if name in ('v4', 'v5p') else 2):
    raise errors.UserError(f'--topology: {text!r} has too many axes. Expected such as {_EXAMPLES}.')
  return Topology(name, sizes)


def _slice_shape(name: str, count: int, slice_name: bool, text: str) -> tuple[int, ...]:
  """Return the shape of a slice of `count` chips; names of v4 and v5p slices count cores."""
  chips = count // 2 if slice_name and name in ('v4', 'v5p') else count
  if name in ('v4', 'v5p'):
    shape = _cuboid(chips)
  else:
    shape = _SQUARES.get(chips, ())
  if not shape or math.prod(shape) != chips:
    raise errors.UserError(
      f'--topology: {text!r} is no slice with a known shape. Expected the shape, such as '
      f'{name}:{"2x2x2" if name in ("v4", "v5p") else "4x4"}.'
    )
  return shape


def _cuboid(chips: int) -> tuple[int, ...]:
  """Return the most cubic 2^a x 2^b x 2^c shape of a number of chips."""
  power = chips.bit_length() - 1
  if chips < 4:
    return ()
  return tuple(sorted(2 ** (power // 3 + (i < power % 3)) for i in range(3)))


def _cpus(count: int) -> Sequence[jax.Device]:
  from jax.extend import backend

  try:
    found = backend.get_backend('cpu').devices()
  except RuntimeError as error:
    raise errors.UserError(f'--topology: cpu:{count}: {error}') from error
  if len(found) < count:
    raise errors.UserError(
      f'--topology: cpu:{count} needs {count} simulated devices, but jax has {len(found)}. '
      f'Expected XLA_FLAGS=--xla_force_host_platform_device_count={count}, or `tfm plan`, which '
      'sets it.'
    )
  return found[:count]


def _need(module: str, packages: str, topology: Topology) -> None:
  """Raise a UserError if the compiler of a platform is not installed."""
  try:
    found = importlib.util.find_spec(module) is not None
  except ModuleNotFoundError:
    found = False
  if not found:
    raise errors.UserError(
      f'--topology: {topology} needs the compiler of its chip. Expected: pip install '
      f'{packages}, best in a separate environment. The chip itself is not needed.'
    )


def _remove_cpu_flags() -> None:
  """Remove flags of the CPU backend from XLA_FLAGS: libtpu parses it too, and ends the process."""
  flags = os.environ.get('XLA_FLAGS', '').split()
  kept = [f for f in flags if not f.startswith(('--xla_cpu', '--xla_force_host'))]
  os.environ['XLA_FLAGS'] = ' '.join(kept)


def _target_config(chip: Chip) -> str:
  """Return the description of a GPU that XLA compiles for (`GpuTargetConfigProto` as text).

  Sizes that all data-centre GPUs share are those of compute capability 8 and 9.
  """
  major, minor = chip.capability
  threads = 1536 if minor == 9 else 2048
  units = 64 if (major, minor) == (8, 0) else 128
  shared = {80: 167936, 89: 102400}.get(10 * major + minor, 233472)
  return f"""
    gpu_device_info {{
      threads_per_block_limit: 1024
      threads_per_warp: 32
      shared_memory_per_block: 49152
      shared_memory_per_core: {shared}
      shared_memory_per_block_optin: {shared - 1024}
      threads_per_core_limit: {threads}
      core_count: {chip.cores}
      fpus_per_core: {units}
      block_dim_limit_x: 2147483647
      block_dim_limit_y: 65535
      block_dim_limit_z: 65535
      memory_bandwidth: {int(chip.bandwidth or 0)}
      l2_cache_size: 52428800
      clock_rate_ghz: 1.7
      device_memory_size: {chip.memory}
      cuda_compute_capability {{ major: {major} minor: {minor} }}
      registers_per_core_limit: 65536
      registers_per_block_limit: 65536
    }}
    platform_name: "CUDA"
    dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
    device_description_str: "{chip.target}"
    runtime_version {{ major: 12 minor: 8 }}
  """
