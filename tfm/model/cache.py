"""Empty caches for decoding: one of each mixer's own, stacked over a segment's repeats."""

from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.model.spec import Model


def init_cache(spec: Model, batch: int, slots: int, dtype: Any = jnp.float32, source: int = 0) -> dict[str, Any]:
  """A cache for `batch` rows of at most `slots` tokens (an encoder-decoder's `source` is the encoder's length).

  `slot` is where the next token goes, `next` each row's next position, `layers` the caches by segment and block.
  The caller keeps slot + T <= slots: a jitted call cannot check it.

  *Raises*: UserError if a learned position table has fewer rows than `slots`.
  """
  limit = spec.max_positions
  if limit is not None and slots > limit:
    raise errors.UserError(f'cache: {slots} slots exceed the {limit} rows of the position table.')
  D = spec.d_model
  layers = []
  for segment in spec.segments:
    pattern = []
    for block in segment.pattern:
      one = {'mixer': block.mixer.init_cache(D, batch, slots, dtype)}
      if block.cross is not None:
        one['cross'] = block.cross.init_cache(D, batch, source, dtype)
      pattern.append(one)
    repeat = lambda a, n=segment.repeats: jnp.repeat(a[None], n, axis=0)
    layers.append(jax.tree.map(repeat, pattern))
  return {'slot': jnp.zeros((), jnp.int32), 'next': jnp.zeros((batch,), jnp.int32), 'layers': layers}
