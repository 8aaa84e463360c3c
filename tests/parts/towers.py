"""Small models around an input layer, with random parameters, for tests."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import config
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.embed import Embed, Features
from tfm.parts.ffn import Glu
from tfm.parts.head import Regress
from tfm.parts.mask import Causal, Mask
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm, Norm

#: Compare up to the rounding of float32.
close = functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-4)


def block(mask: Mask = Mask(), **fields: Any) -> Block:
  """Return a block of 4 heads, bidirectional by default."""
  return dataclasses.replace(
    Block(Attention(4, None, 8, mask=mask), Glu(48), LayerNorm()), **fields
  )


def model(embed: Embed, *pattern: Block, norm: Norm | None = LayerNorm(), **fields: Any) -> Model:
  """Return a valid model of width 32 with two repeats of the pattern.

  Its head returns 3 values for each token.
  """
  usual = {'heads': {'regress': Regress(3)}, 'segments': (Segment(pattern or (block(),), 2),)}
  return config.validate(Model(embed, 32, norm=norm, **(usual | fields)))


def causal(embed: Embed, **fields: Any) -> Model:
  """Return a causal model around an input layer."""
  return model(embed, block(Causal()), **fields)


def source(name: str = 'vectors', size: int = 5, norm: Norm | None = None) -> Tower:
  """Return a tower without layers that projects vectors."""
  return Tower(Features(name, size), segments=(), norm=norm)


def params(spec: Model, seed: int = 1) -> Any:
  """Return random parameters: scales near 1, all others N(0, 0.2^2)."""
  rng = np.random.default_rng(seed)

  def leaf(path, shape):
    noise = rng.standard_normal(shape.shape).astype(np.float32)
    return jnp.asarray(1 + 0.1 * noise if path[-1].key == 'scale' else 0.2 * noise)

  return jax.tree_util.tree_map_with_path(leaf, transformer.param_shapes(spec))


@functools.partial(jax.jit, static_argnums=0)
def apply(spec: Model, p: Any, inputs: dict[str, jax.Array], cache: Any = None) -> dict[str, Any]:
  """Return the outputs of a model, compiled."""
  return transformer.apply(spec, p, cache=cache, **inputs)


def embedded(spec: Model, p: Any, inputs: dict[str, jax.Array]) -> np.ndarray:
  """Return the input of the first layer."""
  return np.asarray(
    transformer.apply(spec, p, output_hidden_states=True, **inputs)['hidden_states'][0]
  )


def linear(x: Any, layer: Any) -> np.ndarray:
  """Return x W + b of the parameters of a projection."""
  return np.asarray(x) @ np.asarray(layer['kernel']) + np.asarray(layer['bias'])


def normalised(x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
  """Return x with mean 0 and variance 1 over its last axis."""
  return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def normal(*shape: int, seed: int = 0) -> jax.Array:
  """Return floats drawn from a normal distribution."""
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))
