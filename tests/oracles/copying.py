"""Convert weights of PyTorch modules to trees of tfm, by maps of names."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tfm.model import transformer
from tfm.model.spec import Model

Flat = dict[str, np.ndarray]


class Theirs:
  """A state dict or its gradients, with access in tfm's layouts."""

  def __init__(self, tensors: Mapping[str, Any], head_dim: int = 8):
    self.arrays = {name: t.detach().float().numpy() for name, t in tensors.items() if t is not None}
    self.H = head_dim

  def __getitem__(self, name: str) -> np.ndarray:
    return self.arrays[name]

  def dense(self, ours: str, theirs: str) -> Flat:
    """Return a `Linear`: [out, in] in PyTorch, [in, out] in tfm."""
    found = {f'{ours}/kernel': self.arrays[f'{theirs}.weight'].T}
    bias = self.arrays.get(f'{theirs}.bias')
    return found if bias is None else found | {f'{ours}/bias': bias}

  def heads(self, ours: str, theirs: str) -> Flat:
    """Return a projection to heads, D -> N H."""
    flat = self.dense(ours, theirs)
    return {k: v.reshape(*v.shape[:-1], -1, self.H) for k, v in flat.items()}

  def merge(self, ours: str, theirs: str) -> Flat:
    """Return a projection from heads, N H -> D."""
    flat = self.dense(ours, theirs)
    kernel = flat[f'{ours}/kernel']
    return flat | {f'{ours}/kernel': kernel.reshape(-1, self.H, kernel.shape[-1])}

  def fused(self, ours: str, theirs: str) -> Flat:
    """Return q, k and v of a fused `Linear` with outputs ordered by head, q k v, H (BLOOM)."""
    found = {}
    for k, v in self.dense('x', theirs).items():
      parts = v.reshape(*v.shape[:-1], -1, 3, self.H)
      found |= {f'{ours}/{n}/{k[2:]}': parts[..., i, :] for i, n in enumerate('qkv')}
    return found

  def norm(self, ours: str, theirs: str) -> Flat:
    found = {f'{ours}/scale': self.arrays[f'{theirs}.weight']}
    bias = self.arrays.get(f'{theirs}.bias')
    return found if bias is None else found | {f'{ours}/bias': bias}


def stacked(at: str, layers: range, block: Callable[[int], Flat]) -> Flat:
  """Stack the maps of several layers on the leading axis.

  Args:
    at: The path of the layers in tfm.
    layers: The indices of the layers.
    block: Returns the map of a layer.

  Returns:
    The map of the stacked layers.
  """
  every = [block(i) for i in layers]
  stack = lambda name: np.stack([one[name] for one in every])
  return {f'{at}/{name}': stack(name) for name in every[0]}


def tree(spec: Model, flat: Flat) -> Any:
  """Return a flat map as the parameters of a spec, after a check of names and shapes."""
  shapes, treedef = jax.tree_util.tree_flatten_with_path(transformer.param_shapes(spec))
  names = [jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in shapes]
  assert sorted(names) == sorted(flat), set(names) ^ set(flat)
  for name, (_, leaf) in zip(names, shapes, strict=True):
    assert flat[name].shape == leaf.shape, (name, flat[name].shape, leaf.shape)
  return jax.tree_util.tree_unflatten(
    treedef, [np.asarray(flat[name], np.float32) for name in names]
  )


def randomized(model: Any, std: float = 0.2) -> Any:
  """Return a module in eval mode with noise on every parameter, so that no norm is trivial."""
  import torch

  # For small models, PyTorch's threads would mostly wait for each other.
  torch.set_num_threads(1)
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for p in model.parameters():
      p.copy_(p + std * torch.randn(p.shape, generator=generator))
  return model.eval()


def logits(spec: Model, params: Any, **inputs: np.ndarray) -> np.ndarray:
  run = jax.jit(lambda p, x: transformer.apply(spec, p, **x)['logits'])
  return np.asarray(run(params, {k: np.asarray(v, np.int32) for k, v in inputs.items()}))


def tokens(*shape: int, vocab: int = 61, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(1, vocab, shape)


def assert_same_gradients(ours: Any, theirs: Any) -> float:
  """Check that gradients are close, and return the largest relative difference.

  The tolerance of a leaf is 1e-3 of its largest number plus 1e-5 of the largest of all. The result
  ignores leaves that are nearly zero.
  """
  most, found = max(np.abs(g).max() for g in jax.tree.leaves(theirs)), 0.0
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
  ):
    limit = 1e-3 * np.abs(b).max() + 1e-5 * most
    np.testing.assert_allclose(a, b, atol=limit, rtol=0, err_msg=jax.tree_util.keystr(path))
    if np.abs(b).max() > 1e-3 * most:
      found = max(found, float(np.abs(a - b).max() / np.abs(b).max()))
  return found
