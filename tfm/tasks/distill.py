"""Distillation: learn the token distribution of a teacher."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.tasks.base import (
  Batch,
  Features,
  Forward,
  Ratio,
  Recorder,
  Shown,
  Task,
  weighted_sum,
)
from tfm.tasks.causal_lm import CausalLM
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask


@dataclasses.dataclass(frozen=True)
class Distill(Task):
  """Distillation of a teacher (arXiv:1503.02531) on the tokens that another task predicts.

  The loss is weight x T^2 x KL(teacher || student) + (1 - weight) x the loss of `of`, where both
  distributions are softmax(logits / T). The teacher has no gradient and no dropout. It may have
  another architecture, with the same vocabulary.

  Attributes:
    teacher: The folder of the teacher, published or of tfm.
    temperature: The temperature T of both distributions.
    weight: Weight of the teacher, from 0 to 1. 1 ignores the labels.
    of: The task that prepares inputs and labels, such as causal_lm or masked_lm.
  """

  teacher: str = ''
  temperature: float = 1.0
  weight: float = 0.5
  of: Task = CausalLM()

  shown = Shown('loss_nats', 'loss (nats per token)')
  logged = ('kl',)

  @property
  def overlap(self) -> int:
    """Tokens that consecutive raw sequences share."""
    return self._of.overlap

  def window(self, length: int) -> int:
    """Return the raw tokens of a model sequence of `length` tokens."""
    return self._of.window(length)

  def specials(self, length: int) -> Sequence[str]:
    """Return the names of the special tokens of its sequences."""
    return self._of.specials(length)

  def models(self, init_from: str) -> dict[str, str]:
    return {'teacher': self.teacher}

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    return self.of.features(raw, dataset)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    return self.of.specs(model, data)

  def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
    return self.of.inputs(batch)

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    return self.of.sequence_lengths(data)

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' (minimised), 'kl' (nats per token) and the metrics of `of`."""
    student = Recorder(forward)
    ratios = self.of.loss(student, batch, key)
    teacher = forward.model('teacher')(**self.inputs(batch))
    logits_BTV, weights_BT = whole(student.out['logits']), batch['weights'].astype(jnp.float32)
    kl_BT = divergence(whole(teacher['logits']), logits_BTV, self.temperature)
    kl, hard = weighted_sum(kl_BT, weights_BT), ratios['loss']
    soft = self.temperature**2 * kl
    total = self.weight * soft + (1 - self.weight) * hard.sum
    return ratios | {'loss': Ratio(total, hard.weight), 'kl': Ratio(kl, hard.weight)}

  def measures(self, batch: Batch, dataset: Dataset) -> dict[str, Ratio]:
    return self.of.measures(batch, dataset)

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    """Return the metrics of `of`, 'loss' and 'kl'."""
    own = super().score({name: sums[name] for name in ('loss', 'kl')})
    return self.of.score(sums) | own

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from self.of.fits(model)

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from self.of.fits_data(data)

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    yield from self.of.suits(model, dataset)

  def fits_models(self, model: TaskModel, models: Mapping[str, TaskModel]) -> Iterator[str]:
    yield from super().fits_models(model, models)
    for sentence in self.of.fits(models['teacher']):
      yield f'task.teacher: {sentence}'

  def check(self) -> Iterator[str]:
    if not isinstance(self.of, TextTask):
      yield 'of: is not a task of tokens. Expected causal_lm, masked_lm or another one.'
    if not self.temperature > 0:
      yield f'temperature: is {self.temperature}. Expected more than 0.'
    if not 0 <= self.weight <= 1:
      yield f'weight: is {self.weight}. Expected 0 to 1.'

  @property
  def _of(self) -> TextTask:
    assert isinstance(self.of, TextTask)
    return self.of


def whole(logits: Any) -> jax.Array:
  """Return logits [B, T, V], from an array or its factors."""
  return logits if isinstance(logits, jax.Array) else logits.logits()


def divergence(teacher_BTV: jax.Array, student_BTV: jax.Array, temperature: float) -> jax.Array:
  """Return KL(teacher || student) of each position in nats, in float32.

  Args:
    teacher_BTV: The logits of the teacher.
    student_BTV: The logits of the student.
    temperature: Divides both.

  Returns:
    float32 [B, T].
  """
  log_p = jax.nn.log_softmax(teacher_BTV.astype(jnp.float32) / temperature)
  log_q = jax.nn.log_softmax(student_BTV.astype(jnp.float32) / temperature)
  return jnp.sum(jnp.exp(log_p) * (log_p - log_q), -1)
