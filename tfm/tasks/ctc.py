"""Connectionist temporal classification: transcription without a known alignment."""

from collections.abc import Iterator
import dataclasses

import jax
from jax import lax
import jax.numpy as jnp
import optax

from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.tasks.arrays import array_features, array_specs, has_arrays
from tfm.tasks.base import Batch, Features, Forward, Ratio, Shown, Task, weighted_sum
from tfm.tasks.model import TaskModel


@dataclasses.dataclass(frozen=True)
class Ctc(Task):
  """CTC loss (Graves et al., 2006) of `labels` int [B, L], for frame logits [B, T, V].

  Labels are padded with -1. If the data has `frames` int [B], only the first `frames` frames of an
  example count. Examples with more labels than their frames can align have no loss; the metric
  `skipped` is their share. A repeated label needs a blank frame in between.

  Attributes:
    blank: Id of the blank token.
  """

  blank: int = 0

  targets = ('labels', 'weights', 'frames')
  shown = Shown('loss', 'loss (nats per label)')

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    del dataset
    return array_features(raw)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    return array_specs(data)

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss' per label and 'skipped'.

    In evaluation also 'token_error_rate' of the greedy transcription.
    """
    logits_BTV, labels_BL = forward(**self.inputs(batch))['logits'], batch['labels']
    B, T, _ = logits_BTV.shape
    frames_B = batch.get('frames', jnp.full((B,), T, jnp.int32))
    blank_BT = (jnp.arange(T)[None] >= frames_B[:, None]).astype(jnp.float32)
    pad_BL = (labels_BL < 0).astype(jnp.float32)
    weights_B = batch['weights'].astype(jnp.float32)
    aligned_B = weights_B * (needed_frames(labels_BL) <= frames_B)
    nats_B = optax.ctc_loss(
      logits_BTV.astype(jnp.float32),
      blank_BT,
      jnp.maximum(labels_BL, 0),
      pad_BL,
      blank_id=self.blank,
    )
    count_B = jnp.sum(1 - pad_BL, 1)
    ratios = {
      'loss': Ratio(weighted_sum(nats_B, aligned_B), jnp.sum(aligned_B * count_B)),
      'skipped': Ratio(jnp.sum(weights_B - aligned_B), jnp.sum(weights_B)),
    }
    if key is None:
      tokens_BT = greedy(logits_BTV, frames_B, self.blank)
      errors_B = edit_distance(tokens_BT, labels_BL).astype(jnp.float32)
      total = jnp.sum(weights_B * count_B)
      ratios['token_error_rate'] = Ratio(weighted_sum(errors_B, weights_B), total)
    return ratios

  def fits(self, model: TaskModel) -> Iterator[str]:
    if 'logits' not in model.returns:
      yield (
        'task: ctc needs logits of each frame, and no head returns logits. Expected '
        'model.heads.ctc=ctc(...).'
      )

  def fits_data(self, data: Data) -> Iterator[str]:
    yield from has_arrays('ctc', data, 'labels')

  def check(self) -> Iterator[str]:
    if self.blank < 0:
      yield f'blank: is {self.blank}. Expected 0 or more.'


def needed_frames(labels_BL: jax.Array) -> jax.Array:
  """Return the fewest frames that can align each sequence of labels, int32 [B].

  A repeated label needs a blank frame before it.
  """
  real_BL = labels_BL >= 0
  repeated_BL = (labels_BL[:, 1:] == labels_BL[:, :-1]) & real_BL[:, 1:]
  return jnp.sum(real_BL, 1) + jnp.sum(repeated_BL, 1)


def greedy(logits_BTV: jax.Array, frames_B: jax.Array, blank: int) -> jax.Array:
  """Return the greedy transcription, with repeats and blanks removed.

  Args:
    logits_BTV: The logits of each frame.
    frames_B: The number of frames of each example.
    blank: Id of the blank token.

  Returns:
    Token ids int32 [B, T], padded with -1.
  """
  top_BT = jnp.argmax(logits_BTV, -1).astype(jnp.int32)
  before_BT = jnp.pad(top_BT, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
  inside_BT = jnp.arange(top_BT.shape[1])[None] < frames_B[:, None]
  kept_BT = (top_BT != before_BT) & (top_BT != blank) & inside_BT
  order_BT = jnp.argsort(~kept_BT, axis=1, stable=True)
  return jnp.take_along_axis(jnp.where(kept_BT, top_BT, -1), order_BT, 1)


def edit_distance(tokens_BT: jax.Array, labels_BL: jax.Array) -> jax.Array:
  """Return the edit distance between sequences of tokens, int32 [B].

  It counts insertions, deletions and substitutions. Both arguments are padded with -1.
  """
  B, L = labels_BL.shape
  place_L = jnp.arange(L + 1)[None]

  def step(cost_BL: jax.Array, token_B: jax.Array) -> tuple[jax.Array, None]:
    wrong_BL = (token_B[:, None] != labels_BL).astype(jnp.int32)
    best_BL = jnp.minimum(cost_BL[:, 1:] + 1, cost_BL[:, :-1] + wrong_BL)
    best_BL = jnp.concatenate([cost_BL[:, :1] + 1, best_BL], 1)
    # An insertion costs 1 per place: cost[j] = min over i <= j of best[i] + j - i.
    best_BL = lax.cummin(best_BL - place_L, axis=1) + place_L
    return jnp.where(token_B[:, None] >= 0, best_BL, cost_BL), None

  start_BL = jnp.broadcast_to(place_L, (B, L + 1)).astype(jnp.int32)
  cost_BL, _ = lax.scan(step, start_BL, tokens_BT.T)
  return jnp.take_along_axis(cost_BL, jnp.sum(labels_BL >= 0, 1, keepdims=True), 1)[:, 0]
