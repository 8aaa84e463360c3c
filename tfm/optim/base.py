"""The interface of an optimizer: a config that builds an optax chain."""

import abc
from collections.abc import Iterator
import dataclasses
import difflib
import fnmatch
from typing import Any, Literal

import jax
import optax

from tfm.core import errors
from tfm.core.registry import Part
from tfm.optim.clip import clip_by_global_norm
from tfm.optim.layout import layout
from tfm.optim.rounding import in_float32
from tfm.optim.schedule import Cosine, Schedule
from tfm.optim.schedule.base import StepToRate
from tfm.optim.subset import select

Letters = Any  #: the tree of axis letters ('LDNH') of a tree of parameters
#: The dtypes of moments.
DTYPES = ('float32', 'bfloat16', 'int8')


@dataclasses.dataclass(frozen=True)
class Optim(Part, abc.ABC):
  """p <- p - lr(step) scale (rule(clip(g)) + decay p), where subclasses define `rule`.

  The links of the chain have names (`clip`, `rule`, `decay`, `scale`, `lr`), so the paths of its
  state are stable.

  Attributes:
    lr: The peak learning rate.
    schedule: The shape of the learning rate over the run.
    clip: The largest global norm of the gradient. None for no clipping.
    decay: Decoupled weight decay (arXiv:1711.05101), multiplied by the learning rate as in PyTorch.
    no_decay: Globs over parameter paths (`segment_0/*/b`) without decay. Vectors never decay.
    ema: Decay of a moving average of the parameters (`tfm.optim.ema`). None for no average.
    accumulate: The number of micro-batches of a step (`tfm.optim.accumulate`).
    rounding: How 16-bit parameters are updated. 'nearest' adds in their dtype. 'stochastic' adds in
      float32 and rounds at random. 'master' adds to a float32 copy (`tfm.optim.rounding`).
    memory: Where the state is stored between steps, on the device or in the memory of the host.
    only: Globs over the paths of trained parameters. Other parameters have neither gradients nor
      state. Empty trains all.
  """

  lr: float = 1e-3
  schedule: Schedule = Cosine(warmup=100)
  clip: float | None = 1.0
  decay: float = 0.1
  no_decay: tuple[str, ...] = ()
  ema: float | None = None
  accumulate: int = 1
  rounding: Literal['nearest', 'stochastic', 'master'] = 'nearest'
  memory: Literal['device', 'host'] = 'device'
  only: tuple[str, ...] = ()

  @abc.abstractmethod
  def rule(self, letters: Letters) -> optax.GradientTransformation:
    """Return the transformation of gradients to directions, before decay and learning rate."""

  def scale(self, letters: Letters) -> Any | None:
    """Return a factor of the learning rate for each parameter, as a tree. None means 1."""
    del letters
    return None

  def make(self, steps: int, letters: Letters) -> optax.GradientTransformation:
    """Return the optax transformation of a run.

    It transforms the `trained` parameters only.

    Args:
      steps: The number of updates of the run.
      letters: The axis letters of all parameters.

    Returns:
      A named chain.

    Raises:
      UserError: A glob of `only` or `no_decay` matches no parameter.
    """
    letters = self.trained(letters)
    decayed, scale = self.decayed(letters), self.scale(letters)
    links: list[tuple[str, optax.GradientTransformation]] = []
    if self.clip is not None:
      links.append(('clip', clip_by_global_norm(self.clip)))
    links.append(('rule', self.rule(letters)))
    if self.decay:
      links.append(('decay', optax.add_decayed_weights(self.decay, decayed)))
    if scale is not None:
      multiply = lambda updates, _: jax.tree.map(lambda x, s: x * s, updates, scale)
      links.append(('scale', optax.stateless(multiply)))
    links.append(('lr', optax.scale_by_learning_rate(self.schedule_fn(steps))))
    chain = optax.named_chain(*links)
    return chain if self.rounding == 'nearest' else in_float32(chain, self.rounding)

  def trained(self, tree: Any) -> Any:
    """Return the trained leaves of a tree with the paths of the parameters, as nested dicts.

    Raises:
      UserError: A glob of `only` matches no parameter.
    """
    return select(tree, matching('optim.only', self.only, tree)) if self.only else tree

  def frozen(self, tree: Any) -> Any:
    """Return the leaves that are not trained."""
    if not self.only:
      return {}
    trained = matching('optim.only', self.only, tree)
    return select(tree, jax.tree.map(lambda is_trained: not is_trained, trained))

  def schedule_fn(self, steps: int) -> StepToRate:
    """Return `step -> learning rate` of a run, for the updates `step` = 0, 1, ..."""
    return self.schedule.make(self.lr, steps)

  def decayed(self, letters: Letters) -> Any:
    """Return which parameters decay, as a tree of booleans.

    Matrices and tables do. Vectors of a layer and `no_decay` do not.
    """
    exempt = matching('optim.no_decay', self.no_decay, letters)
    return jax.tree.map(lambda x, out: len(layout(x).groups) >= 2 and not out, letters, exempt)

  def check(self) -> Iterator[str]:
    if self.lr <= 0:
      yield f'lr: is {self.lr}. Expected more than 0.'
    if self.clip is not None and self.clip <= 0:
      yield f'clip: is {self.clip}. Expected more than 0, or none.'
    if self.decay < 0:
      yield f'decay: is {self.decay}. Expected 0 or more.'
    if self.ema is not None:
      yield from check_decay('ema', self.ema)
    if self.accumulate < 1:
      yield f'accumulate: is {self.accumulate}. Expected 1 or more.'


def matching(where: str, globs: tuple[str, ...], tree: Any) -> Any:
  """Return which parameters match a glob, as a tree of booleans.

  Args:
    where: The field in errors, such as 'optim.only'.
    globs: Globs over paths such as `segment_0/block_0/mixer/q/w`.
    tree: A tree with the paths of the parameters.

  Returns:
    A tree of the same structure.

  Raises:
    UserError: A glob matches no parameter.
  """
  path = lambda keys: jax.tree_util.keystr(keys, simple=True, separator='/')
  # A quantized weight is one parameter of several arrays.
  is_leaf = lambda node: not isinstance(node, dict)
  paths = [path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree, is_leaf)]
  for glob in globs:
    if not any(fnmatch.fnmatchcase(p, glob) for p in paths):
      near = difflib.get_close_matches(glob, paths, n=3, cutoff=0) or paths
      raise errors.UserError(
        f'{where}: {glob!r} matches no parameter. Expected a glob over paths such as '
        f'{", ".join(map(repr, near))}.'
      )
  return jax.tree_util.tree_map_with_path(
    lambda keys, _: any(fnmatch.fnmatchcase(path(keys), g) for g in globs), tree, is_leaf=is_leaf
  )


def check_decay(name: str, value: float) -> Iterator[str]:
  """Yield a message if `value` is not a valid decay of a moving average."""
  if not 0 <= value < 1:
    yield f'{name}: is {value}. Expected a decay from 0 to below 1.'


def check_dtype(name: str, value: str | None) -> Iterator[str]:
  """Yield a message if `value` is not a supported dtype of a moment."""
  if value not in (None, *DTYPES):
    yield f'{name}: {errors.unknown("dtype", value, DTYPES)}'
