"""NVIDIA's own attention for its GPUs, by `jax.nn.dot_product_attention(implementation='cudnn')`."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.tokeninfo import TokenInfo

#: How many bytes of the mask, as the numbers that cuDNN reads, are worth its speed: half a
#: gigabyte.
_MASK = 1 << 29
_WIDEST = 128


@dataclasses.dataclass(frozen=True)
class Cudnn(Attend):
  """softmax(q k) v by cuDNN, fused forward and backward (arXiv:2307.08691), in bfloat16 or float16.

  Any mask goes, as an array of queries by keys that all heads share; where nobody sees a later
  token cuDNN is told so besides, and leaves that half out. Kv heads are not repeated, and rows and
  heads may be split over a mesh.

  Nobody here has a GPU: what is passed on is tested on a CPU by JAX's other implementation of the
  same function, and the program has been lowered for CUDA; it has not run.

  *Cost*: 4 N H FLOPs a pair, half of them where causal, 10 N H backward; B N T (H + 1) numbers, and
  beside them B T S, in the numbers of the queries, for the mask, as many again for the gradient of
  it that cuDNN finds unasked.

  *Differs*: the softmax is float32 whatever the precision's `reduce`. A key out of sight has -2^41
  (in float16 -2^15) added to its score rather than none. Windows are in the array alone: told of
  both, a cuDNN before 9.10.2 refuses.

  *Raises*: UserError for what it refuses, all off an NVIDIA GPU.
  """

  def refuses(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores):
    T, H, S = q_BTNH.shape[1], q_BTNH.shape[-1], k_BSKH.shape[1]
    if scores.offsets:
      return (
        'biases would be arrays of heads by queries by keys, rounded to the numbers of the queries'
      )
    if scores.contents:
      return 'scores by content and distance (`contents`) are not among what cuDNN computes'
    if scores.added:
      return 'vectors that are added to values (`added`) are not among what cuDNN computes'
    if scores.cap is not None:
      return 'it has no cap on scores'
    if scores.sink_N is not None:
      return 'it has no sink'
    if scores.drop is not None:
      return 'the function that JAX has of it has no dropout'
    if v_BSKH.shape[-1] != H:
      return f'values of {v_BSKH.shape[-1]} numbers are not as wide as keys of {H}'
    if q_BTNH.dtype not in (jnp.bfloat16, jnp.float16):
      return (
        f'{q_BTNH.dtype} is neither bfloat16 nor float16, the numbers that its attention multiplies'
      )
    if H > _WIDEST or H % 8:
      return f'heads of {H} numbers are not a multiple of 8 up to {_WIDEST}'
    if T % 2 or S % 2:
      return (
        f'of {T} queries and {S} keys one number is odd, and it has no gradient then beside a mask'
      )
    return lacking()

  def loses(self, platform, B, N, T, S):
    if platform != 'gpu':
      return f'its kernels are for GPUs, and this is a {platform}.'
    if 2 * B * T * S > _MASK:
      return f'a mask of {B * T * S:,} numbers is too much to keep.'
    return None

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    if (why := self.refuses(q_BTNH, k_BSKH, v_BSKH, q, k, scores)) is not None:
      raise errors.UserError(
        f'attend=cudnn: {why}. Expected attend=blockwise, which takes any scores.'
      )
    return attended(q_BTNH, k_BSKH, v_BSKH, q, k, scores, 'cudnn')


def attended(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  q: TokenInfo,
  k: TokenInfo,
  scores: Scores,
  implementation: Literal['cudnn', 'xla'],
) -> jax.Array:
  """y_BTNH by that implementation of `jax.nn.dot_product_attention`."""
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
  # To the function a query whose keys are all out of sight sees them all alike.
  return jnp.where(ok_BTS.any(-1)[..., None, None], y_BTNH, 0)


def lacking() -> str | None:
  """A sentence what this machine lacks to run cuDNN's attention; None if it has it."""
  if (platform := jax.default_backend()) != 'gpu':
    return f'its kernels are for GPUs, and this is a {platform}'
  device = jax.local_devices()[0]
  if 'cuda' not in device.client.platform_version:
    return f'its kernels are for GPUs of NVIDIA, and this is {device.device_kind}'
  if tuple(int(n) for n in device.compute_capability.split('.')) < (8, 0):
    return f'its kernels are for compute capability 8.0 and later, and that of {device.device_kind} is less'
  return None
