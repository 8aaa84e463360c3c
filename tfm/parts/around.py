"""Windows of tokens around each token of a sequence."""

import jax
import jax.numpy as jnp


def around(x_BTD: jax.Array, segment_BT: jax.Array, size: int) -> jax.Array:
  """Return the window of tokens around each token.

  Args:
    x_BTD: vectors of the tokens.
    segment_BT: document of each token, int `[B, T]`; 0 is padding.
    size: P, the odd number of tokens of a window.

  Returns:
    x_BTPD, with zeros at padding and outside the document of the token.
  """
  half, T = size // 2, x_BTD.shape[1]
  padded_BSD = jnp.pad(x_BTD, ((0, 0), (half, half), (0, 0)))
  padded_BS = jnp.pad(segment_BT, ((0, 0), (half, half)))
  same = lambda p: (padded_BS[:, p : p + T] == segment_BT) & (segment_BT > 0)
  return jnp.stack(
    [jnp.where(same(p)[..., None], padded_BSD[:, p : p + T], 0) for p in range(size)], 2
  )
