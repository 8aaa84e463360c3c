"""The chips that a program can be planned for: memory, bandwidths, and how XLA names them."""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """A kind of chip, as one jax device.

  Attributes:
    platform: 'tpu', 'cuda' or 'cpu'.
    hbm: The bytes of HBM that a program can use; None for the memory of a CPU.
    flops: Dense bfloat16 FLOP/s; None if unknown.
    bandwidth: HBM bytes/s; None if unknown.
    link: Bytes/s of one link in one direction; None for a single chip.
    links: The links that a chip receives from at once, per axis of the topology (TPU), or in all.
    target: The name that the compiler knows: of libtpu, or the card of a GPU.
    cores: For GPUs, the number of multiprocessors.
    memory: For GPUs, the bytes of the card.
    capability: For GPUs, the compute capability.
    options: Further arguments of the topology.
  """

  platform: str
  hbm: int | None = None
  flops: float | None = None
  bandwidth: float | None = None
  link: float | None = None
  links: int = 2
  target: str = ''
  cores: int = 0
  memory: int = 0
  capability: tuple[int, int] = (0, 0)
  options: tuple[tuple[str, str], ...] = ()


def _gpu(
  target: str,
  capability: tuple[int, int],
  cores: int,
  memory: int,
  flops: float,
  bandwidth: float,
  link: float | None,
) -> Chip:
  # By default, jax takes three quarters of a GPU (XLA_PYTHON_CLIENT_MEM_FRACTION=0.75).
  return Chip(
    'cuda', int(0.75 * memory), flops, bandwidth, link, 1, target, cores, memory, capability
  )


#: Chips by the name in `--topology`. FLOP/s, bandwidths and links are from the vendors' data
#: sheets, the HBM of TPUs is what libtpu 0.0.52 lets a program use. A TPU has a link in each
#: direction of each axis, so a ring receives from two.
CHIPS: dict[str, Chip] = {
  'v4': Chip(
    'tpu',
    int(30.5 * GIB),
    275e12,
    1228e9,
    50e9,
    2,
    'v4',
    options=(('chip_config_name', 'megacore'),),
  ),
  'v5e': Chip('tpu', int(15.75 * GIB), 197e12, 819e9, 50e9, 2, 'v5e'),
  'v5p': Chip('tpu', int(95.73 * GIB), 459e12, 2765e9, 100e9, 2, 'v5p'),
  'v6e': Chip('tpu', int(31.24 * GIB), 918e12, 1640e9, 100e9, 2, 'v6e'),
  'a100': _gpu('NVIDIA A100-SXM4-80GB', (8, 0), 108, 80 * GIB, 312e12, 2039e9, 300e9),
  'a100-40gb': _gpu('NVIDIA A100-SXM4-40GB', (8, 0), 108, 40 * GIB, 312e12, 1555e9, 300e9),
  'h100': _gpu('NVIDIA H100 80GB HBM3', (9, 0), 132, 80 * GIB, 989e12, 3352e9, 450e9),
  'h200': _gpu('NVIDIA H200', (9, 0), 132, 141 * 10**9, 989e12, 4800e9, 450e9),
  'b200': _gpu('NVIDIA B200', (10, 0), 148, 180 * 10**9, 2250e12, 8000e9, 900e9),
  'l4': _gpu('NVIDIA L4', (8, 9), 58, 24 * GIB, 121e12, 300e9, None),
  'cpu': Chip('cpu'),
}

#: Other names of chips.
ALIASES = {'v5litepod': 'v5e', 'v5lite': 'v5e', 'trillium': 'v6e', 'a100-80gb': 'a100'}
