"""The contract of an optimizer: a spec that turns itself into an optax chain."""

import abc
from collections.abc import Iterator
import dataclasses
import difflib
import fnmatch
from typing import Any

import jax
import optax

from tfm.core import errors
from tfm.core.registry import Part
from tfm.optim.clip import clip_by_global_norm
from tfm.optim.layout import layout
from tfm.optim.schedule import Cosine, Schedule
from tfm.optim.schedule.base import StepToRate
from tfm.optim.subset import picked

Letters = Any  #: the tree of axis letters ('LDNH') of a tree of parameters


@dataclasses.dataclass(frozen=True)
class Optim(Part, abc.ABC):
  """p <- p - lr(step) scale (rule(clip(g)) + decay p): a row of the table is its `rule`, the rest
  is here.

  The chain names its links (`clip`, `rule`, `decay`, `scale`, `lr`), so the paths of its state are
  stable."""

  #: The peak learning rate.
  lr: float = 1e-3
  schedule: Schedule = Cosine(warmup=100)
  #: The largest global norm of a gradient; None leaves it alone.
  clip: float | None = 1.0
  #: Decoupled weight decay (arXiv:1711.05101), multiplied by the learning rate as PyTorch does.
  decay: float = 0.1
  #: Globs over parameter paths (`segment_0/*/b`) that do not decay, besides vectors, which never
  #: do.
  no_decay: tuple[str, ...] = ()
  #: Decay of an exponential moving average of the parameters (`tfm.optim.ema`); None keeps none.
  ema: float | None = None
  #: Micro-batches a step (`tfm.optim.accumulate`).
  accumulate: int = 1
  #: Globs over the paths of parameters that are trained; empty is all. The others have no gradient
  #: and no state.
  only: tuple[str, ...] = ()

  @abc.abstractmethod
  def rule(self, letters: Letters) -> optax.GradientTransformation:
    """Gradient to direction of ascent, before decay and learning rate."""

  def scale(self, letters: Letters) -> Any | None:
    """A factor on the learning rate for every parameter, as a tree; None is 1 for all."""
    del letters
    return None

  def make(self, steps: int, letters: Letters) -> optax.GradientTransformation:
    """The optax transformation of a run of `steps` over parameters whose axes are `letters`.

    It is a transformation of those that are trained (`trained`).

    Raises: UserError if a glob of `only` or `no_decay` matches no parameter.
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
      links.append(
        ('scale', optax.stateless(lambda u, _: jax.tree.map(lambda x, s: x * s, u, scale)))
      )
    links.append(('lr', optax.scale_by_learning_rate(self.schedule_fn(steps))))
    return optax.named_chain(*links)

  def trained(self, tree: Any) -> Any:
    """The leaves of a tree like the parameters' that are trained: nested dicts of the same paths.

    Raises: UserError if a glob of `only` matches none.
    """
    return picked(tree, matching('optim.only', self.only, tree)) if self.only else tree

  def frozen(self, tree: Any) -> Any:
    """The other leaves."""
    kept = matching('optim.only', self.only, tree)
    return picked(tree, jax.tree.map(lambda out: not out, kept)) if self.only else {}

  def schedule_fn(self, steps: int) -> StepToRate:
    """The learning rate that update `step` = 0, 1, ... of a run of `steps` uses."""
    return self.schedule.make(self.lr, steps)

  def decayed(self, letters: Letters) -> Any:
    """The tree of whether a parameter decays: matrices and tables do, a layer's vectors and
    `no_decay` do not.
    """
    exempt = matching('optim.no_decay', self.no_decay, letters)
    return jax.tree.map(lambda x, out: len(layout(x).groups) >= 2 and not out, letters, exempt)

  def check(self) -> Iterator[str]:
    if self.lr <= 0:
      yield f'lr: {self.lr} is no learning rate. Expected more than 0.'
    if self.clip is not None and self.clip <= 0:
      yield f'clip: a gradient cannot have norm {self.clip}. Expected more than 0, or none.'
    if self.decay < 0:
      yield f'decay: {self.decay} would grow the weights. Expected 0 or more.'
    if self.ema is not None:
      yield from share('ema', self.ema)
    if self.accumulate < 1:
      yield f'accumulate: {self.accumulate} micro-batches make no step. Expected 1 or more.'


def matching(where: str, globs: tuple[str, ...], tree: Any) -> Any:
  """The tree of whether a leaf's path (`segment_0/block_0/mixer/q/w`) matches one of `globs`.

  Raises: UserError if a glob matches nothing, for it was meant to.
  """
  path = lambda keys: jax.tree_util.keystr(keys, simple=True, separator='/')
  paths = [path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(tree)]
  for glob in globs:
    if not any(fnmatch.fnmatchcase(p, glob) for p in paths):
      near = difflib.get_close_matches(glob, paths, n=3, cutoff=0) or paths
      raise errors.UserError(
        f'{where}: {glob!r} matches no parameter. Expected a glob over paths such as '
        f'{", ".join(map(repr, near))}.'
      )
  return jax.tree_util.tree_map_with_path(
    lambda keys, _: any(fnmatch.fnmatchcase(path(keys), g) for g in globs), tree
  )


def share(name: str, value: float) -> Iterator[str]:
  """A sentence if `value` cannot weigh the past of a moving average."""
  if not 0 <= value < 1:
    yield f'{name}: {value} cannot weigh the past of a moving average. Expected 0 or more and less than 1.'


def dtype_name(name: str, value: str | None) -> Iterator[str]:
  """A sentence if `value` is no dtype to keep a moment in."""
  if value not in (None, 'float32', 'bfloat16'):
    yield f'{name}: {errors.unknown("dtype", value, ("float32", "bfloat16"))}'
