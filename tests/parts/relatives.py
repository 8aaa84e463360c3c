"""Attention with relative positions, without a mixer."""

import functools

from flax import linen as nn
import jax.numpy as jnp

from tfm.parts.attend.base import Scores
from tfm.parts.tokeninfo import TokenInfo


def started(spec, dims, key):
  """Return initial parameters of a relative position."""
  module, one = spec.make(dims), jnp.zeros((1, 1), jnp.int32)
  if not isinstance(module, nn.Module):
    return {}
  at, x = TokenInfo(one, one), jnp.zeros((1, 1, dims.heads, dims.head_dim))
  by_place = ('product', at, at) if spec.placed else ('bias', dims.heads, at, at)
  method, *given = ('content', x, x, at, at) if spec.contextual else by_place
  return nn.unbox(module.init(key, *given, method=method))['params']


def attended(kernel, dims, specs, params, qkv, q_info, k_info, **fields):
  """Return attention with all relative positions of `specs`."""
  q, k, v = qkv
  made = [(spec, spec.make(dims), p) for spec, p in zip(specs, params, strict=True)]
  made = [(spec, m.bind({'params': p}) if isinstance(m, nn.Module) else m) for spec, m, p in made]
  for _, m in made:
    q, k = m.queries(q, q_info.positions), m.rotate(k, k_info.positions)
  having = lambda name: [m for spec, m in made if getattr(spec, name)]
  scores = Scores(
    dims.head_dim**-0.5,
    biases=tuple(functools.partial(m.bias, dims.heads) for m in having('biased')),
    contents=tuple(m.content for m in having('contextual')),
    products=tuple(m.product for m in having('placed')),
    **fields,
  )
  return kernel(q, k, v, q_info, k_info, scores, 'float32')
