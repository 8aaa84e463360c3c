"""The forward pass that a task calls."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from tfm.model import transformer
from tfm.model.spec import Model
from tfm.parts.context import Run

#: A model folds 0 and 1 into its key.
_TASK, _LATER = 2, 3

#: Specs and parameters of the further models of a task, by name.
Models = Mapping[str, tuple[Model, Any]]


class Forward:
  """Call a model one or more times within a step, and add up its auxiliary outputs.

  `forward(**inputs)` returns the outputs of `transformer.apply`. Each trace of a step creates one.

  Args:
    spec: The model.
    params: Its parameters.
    run: The static arguments of the model.
    key: The dropout key of the step. None in evaluation.
    models: The further models of the task (`Task.models`).

  Attributes:
    aux: The sum of the auxiliary losses of all calls, float32.
    expert_load: The sum of the expert loads of all calls.
  """

  def __init__(
    self,
    spec: Model,
    params: Any,
    run: Run,
    key: jax.Array | None = None,
    models: Models = MappingProxyType({}),
  ):
    self._spec, self._params, self._run, self._key, self._calls = spec, params, run, key, 0
    self._models = models
    self.aux: jax.Array = jnp.zeros((), jnp.float32)
    self.expert_load: dict[str, Any] = {}

  def __call__(self, **inputs: Any) -> dict[str, Any]:
    """Return the outputs of the model. Each call draws new dropout masks."""
    key = self._key
    if key is not None and self._calls:
      key = jax.random.fold_in(key, _LATER + self._calls)
    out = transformer.apply(self._spec, self._params, run=self._run, key=key, **inputs)
    aux, load = out['aux'].astype(jnp.float32), out.get('load', {})
    self.aux = self.aux + aux if self._calls else aux
    self.expert_load = jax.tree.map(jnp.add, self.expert_load, load) if self._calls else load
    self._calls += 1
    return out

  def model(self, name: str) -> Callable[..., dict[str, Any]]:
    """Return `**inputs -> outputs` of a further model, without dropout or gradient."""
    spec, params = self._models[name]

    def forward(**inputs: Any) -> dict[str, Any]:
      out = transformer.apply(spec, params, run=self._run, **inputs)
      return jax.tree.map(jax.lax.stop_gradient, out)

    return forward

  @property
  def task_key(self) -> jax.Array | None:
    """The key for the randomness of the task itself; None in evaluation."""
    return None if self._key is None else jax.random.fold_in(self._key, _TASK)
