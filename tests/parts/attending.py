"""Run an attention kernel with its gradients on a named case of scores."""

import jax
import jax.numpy as jnp
import numpy as np

from tfm.parts.attend.base import Scores
from tfm.parts.attend.dropout import Dropout
from tfm.parts.mask import Mask, Segments
from tfm.parts.relative import ALiBi
from tfm.parts.relative.t5 import bucket
from tfm.parts.term import QueryLookup
from tfm.parts.tokeninfo import TokenInfo

B, N, K, H = 2, 4, 2, 8


def random_qkv(T, S, dtype=jnp.float32, seed=0, wide=H):
  draw = lambda i, *shape: jax.random.normal(jax.random.key(seed + i), shape).astype(dtype)
  return draw(0, B, T, N, H), draw(1, B, S, K, H), draw(2, B, S, K, wide)


def info(n, packed=True):
  """Return two documents with padding on the right, and one with padding on the left."""
  pos, segment = np.tile(np.arange(n), (B, 1)), np.ones((B, n), int)
  if packed:
    cut = n // 3
    pos[0, cut:] -= cut
    segment[0, cut:] = 2
    segment[0, -2:] = 0
    segment[1, :3] = 0
  return TokenInfo(jnp.asarray(pos), jnp.asarray(segment))


def t5(table_UN):
  return lambda q, k: jnp.moveaxis(
    table_UN[bucket(k.positions[:, None, :] - q.positions[:, :, None])], -1, 1
  )


def content_terms(table_UN):
  """Return content terms: each query times a table entry of the distance, of 32."""

  def content(q_BTNH, k_BSKH, q, k):
    score_BNTU = jnp.einsum('BTNH,UN->BNTU', q_BTNH, table_UN)
    return (QueryLookup(score_BNTU, lambda q, k: bucket(k.positions - q.positions)),)

  return content


def run_kernel(kernel, case, T=21, S=21, packed=True, wide=H, info=info):
  """Return the output, and the gradients of q, k, v, table and sink."""
  mask = case.get('mask', Mask()) & Segments()

  @jax.jit
  def program(q, k, v, table_UN, sink_N):
    def loss(q, k, v, table_UN, sink_N):
      biases = [t5(table_UN)] if 't5' in case else []
      biases += [lambda a, b: ALiBi().bias(N, a, b)] if 'alibi' in case else []
      contents = (content_terms(table_UN),) if 'content' in case else ()
      drop = Dropout.of(jax.random.key(9), B, N, case['drop']) if 'drop' in case else None
      sink_N, ordered = sink_N if 'sink' in case else None, T == S and 'mask' in case
      scores = Scores(
        H**-0.5, mask, tuple(biases), contents, case.get('cap'), sink_N, drop, ordered
      )
      y = kernel(q, k, v, info(T, packed), info(S, packed), scores, 'float32')
      return (y * jnp.cos(jnp.arange(y.size).reshape(y.shape))).sum(), y

    grads, y = jax.grad(loss, range(5), has_aux=True)(q, k, v, table_UN, sink_N)
    return y, grads

  table_UN, sink_N = jax.random.normal(jax.random.key(5), (32, N)), jnp.linspace(-1.0, 1.0, N)
  return program(*random_qkv(T, S, wide=wide), table_UN, sink_N)
