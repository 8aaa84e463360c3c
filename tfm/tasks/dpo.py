"""Direct preference optimisation: learn from pairs of responses, without a reward model."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.data.preferences import Preferences
from tfm.tasks.base import Batch, Features, Forward, Outputs, Ratio, Shown, Task, weighted_sum
from tfm.tasks.logprobs import token_logprobs
from tfm.tasks.model import TaskModel
from tfm.tasks.text import causal_decoder


@dataclasses.dataclass(frozen=True)
class Dpo(Task):
  """Direct preference optimisation (arXiv:2305.18290).

  With h = log (p(chosen) / p_ref(chosen)) - log (p(rejected) / p_ref(rejected)), where p is the
  probability of a whole response to its prompt, the loss of a pair is

    sigmoid: -(1 - e) log sigmoid(beta h) - e log sigmoid(-beta h), with label smoothing e
    ipo:     (h - 1 / (2 beta))^2 (arXiv:2310.12036)
    hinge:   max(0, 1 - beta h) (arXiv:2305.10425)

  Attributes:
    beta: Strength of the pull to the reference.
    objective: The loss of a pair.
    label_smoothing: Probability that a pair is in the wrong order (sigmoid only).
    reference: The folder of the reference model. Defaults to `init_from`.
    loss_chunk: Entries of the vocabulary at a time, as in `TextTask`.
  """

  beta: float = 0.1
  objective: Literal['sigmoid', 'ipo', 'hinge'] = 'sigmoid'
  label_smoothing: float = 0.0
  reference: str = ''
  loss_chunk: int | None = None

  shown = Shown('loss', 'loss (nats per pair)')
  logged = ('accuracy', 'margin', 'chosen', 'rejected')

  def window(self, length: int) -> int:
    """Return the raw tokens of a model sequence of `length` tokens."""
    return length + 1

  def models(self, init_from: str) -> dict[str, str]:
    return {'reference': self.reference or init_from}

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    assert isinstance(data, Preferences)
    return (data.length,)

  def per_step(self, data: Data) -> tuple[str, int]:
    return 'tokens', 2 * data.batch * sum(self.sequence_lengths(data))

  def features(self, raw: Raw, dataset: Dataset) -> Features:
    del dataset
    tokens = raw['tokens']
    position = np.arange(1, tokens.shape[-1])
    inside = position >= raw['starts'][:, None, None]
    inside = inside & (position < raw['ends'][:, :, None])
    pair = raw.get('weights', np.ones(len(tokens), np.float32))
    return {
      'input_ids': tokens[..., :-1],
      'labels': tokens[..., 1:],
      'weights': inside.astype(np.float32) * pair[:, None, None],
    }

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    assert isinstance(data, Preferences)
    shape = (data.batch, 2, data.length)
    ints = {name: ArraySpec(shape, np.int32, 'B-T') for name in ('input_ids', 'labels')}
    return ints | {'weights': ArraySpec(shape, np.float32, 'B-T')}

  def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Return the tokens of all responses, [2 B, T], where a pair is two neighbours."""
    return {'input_ids': _flat(batch['input_ids'])}

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss', 'accuracy', 'margin', 'chosen' and 'rejected', means over pairs.

    'margin' is beta h, and 'accuracy' its share above 0, where a tie counts half. 'chosen' and
    'rejected' are log-probabilities of responses, in nats.
    """
    del key
    policy_B2 = self._logprobs(forward, batch)
    h_B2 = policy_B2 - self._logprobs(forward.model('reference'), batch)
    margin_B = self.beta * (h_B2[:, 0] - h_B2[:, 1])
    weights_B = (jnp.max(batch['weights'], (1, 2)) > 0).astype(jnp.float32)
    hits_B = jnp.where(margin_B == 0, 0.5, (margin_B > 0).astype(jnp.float32))
    values = {
      'loss': self.pair_loss(margin_B),
      'accuracy': hits_B,
      'margin': margin_B,
      'chosen': policy_B2[:, 0],
      'rejected': policy_B2[:, 1],
    }
    weight = jnp.sum(weights_B)
    return {name: Ratio(weighted_sum(x_B, weights_B), weight) for name, x_B in values.items()}

  def pair_loss(self, margin_B: jax.Array) -> jax.Array:
    """Return the loss of pairs with the margins beta h."""
    if self.objective == 'ipo':
      return jnp.square(margin_B / self.beta - 1 / (2 * self.beta))
    if self.objective == 'hinge':
      return jax.nn.relu(1 - margin_B)
    e = self.label_smoothing
    return -(1 - e) * jax.nn.log_sigmoid(margin_B) - e * jax.nn.log_sigmoid(-margin_B)

  def _logprobs(self, forward: Callable[..., Outputs], batch: Batch) -> jax.Array:
    """Return the log-probability of each response, float32 [B, 2]."""
    logits = forward(**self.inputs(batch), factored_logits=self.loss_chunk != 0)['logits']
    logprobs = token_logprobs(logits, _flat(batch['labels']), self.loss_chunk)
    weights = batch['weights']
    return jnp.sum(jnp.where(weights > 0, logprobs.reshape(weights.shape), 0.0), -1)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from causal_decoder('dpo', model)

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, Preferences):
      yield 'task: dpo needs pairs of responses. Expected data=preferences.'

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    yield from covers(model, dataset)

  def check(self) -> Iterator[str]:
    if not self.beta > 0:
      yield f'beta: is {self.beta}. Expected more than 0.'
    if not 0 <= self.label_smoothing < 0.5:
      yield f'label_smoothing: is {self.label_smoothing}. Expected 0 to below 0.5.'
    if self.label_smoothing and self.objective != 'sigmoid':
      yield f'label_smoothing: has no effect on objective={self.objective}. Expected 0.'


def covers(model: TaskModel, dataset: Dataset) -> Iterator[str]:
  """Yield a message if the embedding table is smaller than the vocabulary of the data."""
  vocabulary = dataset.vocabulary
  if vocabulary is not None and vocabulary.size > model.vocab:
    yield (
      f'model.embed.vocab: is {model.vocab}, but the tokenizer has {vocabulary.size} tokens. '
      f'Expected {vocabulary.size} or more.'
    )


def _flat(x_B2T: jax.Array) -> jax.Array:
  return x_B2T.reshape(-1, x_B2T.shape[-1])
