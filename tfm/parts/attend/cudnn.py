"""cuDNN's fused attention for NVIDIA GPUs, through `jax.nn.dot_product_attention`."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.core.platform import target
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.tokeninfo import TokenInfo

#: The maximum size of the mask array in bytes, in the dtype that cuDNN reads.
_MASK = 1 << 29
#: The maximum head size.
_WIDEST = 128


@dataclasses.dataclass(frozen=True)
class Cudnn(Attend):
  """Fused attention by cuDNN in bfloat16 or float16, forward and backward (arXiv:2307.08691).

  Any mask is supported, as an array of queries by keys that all heads share. For causal masks cuDNN
  also skips the masked-out half. Key/value heads are not repeated, and batch and heads may be
  sharded over a mesh.

  A pair costs 4 N H FLOPs, half of them if causal, and 10 N H backward. Memory is B N T (H + 1)
  numbers, and B T S for the mask in the dtype of the queries. The gradient of the mask, which cuDNN
  always computes, takes B T S more.

  Note:
    It has not run on a GPU. Its arguments are tested on a CPU with the XLA implementation of the
    same function, and the program was lowered for CUDA.

    The softmax is float32 whatever the precision's `reduce`. Masked-out scores are lowered by 2^41
    (float16: 2^15) instead of removed. Windows are part of the mask array only: cuDNN before 9.10.2
    rejects a window together with a mask.

  Raises:
    UserError: if the call is not supported, or the device is not an NVIDIA GPU.
  """

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    T, H, S = q_BTNH.shape[1], q_BTNH.shape[-1], k_BSKH.shape[1]
    if scores.offsets:
      return 'biases would be arrays of heads by queries by keys in the dtype of the queries'
    if scores.contents:
      return 'cuDNN does not support content terms (`contents`)'
    if scores.value_tables:
      return 'cuDNN does not support position vectors of values (`value_tables`)'
    if scores.cap is not None:
      return 'cuDNN does not support a score cap'
    if scores.sink_N is not None:
      return 'cuDNN does not support a sink'
    if scores.drop is not None:
      return "JAX's function for it does not support dropout"
    if v_BSKH.shape[-1] != H:
      return f'values of size {v_BSKH.shape[-1]} differ from keys of size {H}'
    if q_BTNH.dtype not in (jnp.bfloat16, jnp.float16):
      return f'{q_BTNH.dtype} is neither bfloat16 nor float16'
    if H > _WIDEST or H % 8:
      return f'head size {H} is not a multiple of 8 up to {_WIDEST}'
    if T % 2 or S % 2:
      return f'{T} queries and {S} keys are not both even, which its gradient with a mask needs'
    return missing_support()

  def loses(self, platform, B, N, T, S):
    if platform != 'gpu':
      return f'its kernels are for GPUs, and this is a {platform}'
    if 2 * B * T * S > _MASK:
      return f'a mask of {B * T * S:,} entries is too large'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    if (why := self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)) is not None:
      raise errors.UserError(
        f'attend=cudnn: {why}. Expected attend=blockwise, which supports all scores.'
      )
    return fused_attention(q_BTNH, k_BSKH, v_BSKH, q, k, scores, 'cudnn')


def fused_attention(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  q: TokenInfo,
  k: TokenInfo,
  scores: Scores,
  implementation: Literal['cudnn', 'xla'],
) -> jax.Array:
  """Return the output of `jax.nn.dot_product_attention`.

  Args:
    q_BTNH: queries.
    k_BSKH: keys.
    v_BSKH: values.
    q: token info of the queries.
    k: token info of the keys.
    scores: how scores are formed; only `mask`, `scale` and `ordered` are used.
    implementation: 'cudnn', or 'xla' for tests on a CPU.

  Returns:
    y_BTNH, 0 for queries that may attend to no key.
  """
  B, T, S = *q_BTNH.shape[:2], k_BSKH.shape[1]
  ok_BTS = jnp.broadcast_to(scores.mask(q.rows(), k.columns()), (B, T, S))
  y_BTNH = jax.nn.dot_product_attention(
    q_BTNH,
    k_BSKH,
    v_BSKH,
    mask=ok_BTS[:, None],
    scale=scores.scale,
    is_causal=scores.ordered and T == S,
    implementation=implementation,
  )
  # The function attends uniformly if all keys are masked out; return 0 instead.
  return jnp.where(ok_BTS.any(-1)[..., None, None], y_BTNH, 0)


def missing_support() -> str | None:
  """Return why this machine cannot run cuDNN's attention, or None if it can."""
  if (platform := target()) != 'gpu':
    return f'its kernels are for GPUs, and this is a {platform}'
  if jax.default_backend() != 'gpu':
    return 'it compiles only on a machine with a GPU'
  device = jax.local_devices()[0]
  if 'cuda' not in device.client.platform_version:
    return f'its kernels are for NVIDIA GPUs, and this is {device.device_kind}'
  if tuple(int(n) for n in device.compute_capability.split('.')) < (8, 0):
    return f'{device.device_kind} is older than compute capability 8.0'
  return None
