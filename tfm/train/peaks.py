"""Peak FLOP/s of devices: the denominator of MFU."""

import re

import jax

#: Dense bfloat16 FLOP/s of one jax device, by a pattern of `device_kind`. From the vendors' data
#: sheets, without sparsity. A TPU v2 or v3 device is a core, half of a chip. From v4 it is a chip.
PEAKS = (
  (r'TPU v2', 22.5e12),
  (r'TPU v3', 61.5e12),
  (r'TPU v4 lite|TPU v4i', 137e12),
  (r'TPU v4', 275e12),
  (r'TPU v5 lite|TPU v5e', 197e12),
  (r'TPU v5p|TPU v5', 459e12),
  (r'TPU v6 lite|TPU v6e', 918e12),
  (r'TPU ?v?7x?', 1153.5e12),
  (r'GB200|B200', 2250e12),
  (r'H200|H100.*(SXM|HBM3)|GH200', 989e12),
  (r'H100 NVL', 835e12),
  (r'H100', 756e12),
  (r'A100', 312e12),
  (r'L40S', 362e12),
  (r'L4\b', 121e12),
  (r'A10G', 70e12),
  (r'V100', 125e12),
  (r'T4', 65e12),
)


def peak(device: jax.Device) -> float | None:
  """Return the peak FLOP/s of a device, or None if it is unknown (a CPU)."""
  if device.platform == 'cpu':
    return None
  return next((flops for pattern, flops in PEAKS if re.search(pattern, device.device_kind)), None)
