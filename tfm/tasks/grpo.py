"""Reinforcement learning from verifiable rewards, with groups of samples as the baseline."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from tfm.data.base import Data
from tfm.data.dataset import ArraySpec, Dataset, Raw
from tfm.data.problems import Problems
from tfm.data.records import Records
from tfm.tasks.base import (
  Batch,
  Features,
  Forward,
  Generate,
  Outputs,
  Ratio,
  Shown,
  Task,
  weighted_sum,
)
from tfm.tasks.dpo import covers
from tfm.tasks.logprobs import token_logprobs
from tfm.tasks.model import TaskModel
from tfm.tasks.rewards import Reward
from tfm.tasks.rewards.verifiable import ExactMatch
from tfm.tasks.text import causal_decoder


@dataclasses.dataclass(frozen=True)
class Grpo(Task):
  """Group relative policy optimisation (arXiv:2402.03300).

  The model answers each problem `group` times. The advantage A of a response is its reward minus
  the mean of its group, divided by the standard deviation of the group (0 for equal rewards). With
  the ratio r = p(token) / p_old(token), the loss of a token is

    -min(r A, clip(r, 1 - clip, 1 + clip_high) A) + beta (q - log q - 1),   q = p_ref / p

  Dr. GRPO (arXiv:2503.20783) is average=length divide_by_std=false beta=0. A step trains on
  `data.batch` x `group` responses.

  Attributes:
    rewards: The rewards of a response, which are added.
    group: Responses of a problem.
    tokens: The most tokens of a response.
    temperature: The temperature of the samples, and of the probabilities in the loss.
    beta: Weight of the divergence from the reference. 0 needs no reference.
    clip: The largest decrease of a ratio with an effect.
    clip_high: The largest increase. None is `clip` (DAPO, arXiv:2503.14476: 0.28).
    average: The mean over tokens: of each response ('response'), of all responses of the batch
      ('tokens', as DAPO), or their sum divided by `tokens` ('length', as Dr. GRPO).
    divide_by_std: Divide advantages by the standard deviation of their group.
    updates: Updates with the same samples. With 1, all ratios are 1.
    reference: The folder of the reference model. Defaults to `init_from`.
    loss_chunk: Entries of the vocabulary at a time, as in `TextTask`.
  """

  rewards: tuple[Reward, ...] = (ExactMatch(),)
  group: int = 8
  tokens: int = 128
  temperature: float = 1.0
  beta: float = 0.04
  clip: float = 0.2
  clip_high: float | None = None
  average: Literal['response', 'tokens', 'length'] = 'response'
  divide_by_std: bool = True
  updates: int = 1
  reference: str = ''
  loss_chunk: int | None = None

  shown = Shown('reward', 'reward')
  logged = ('loss', 'kl', 'clipped', 'response_tokens')
  samples = True

  @property
  def steps_per_rollout(self) -> int:
    return self.updates

  def models(self, init_from: str) -> dict[str, str]:
    return {'reference': self.reference or init_from} if self.beta else {}

  def sequence_lengths(self, data: Data) -> tuple[int, ...]:
    assert isinstance(data, Problems)
    return (data.length,)

  def per_step(self, data: Data) -> tuple[str, int]:
    return 'tokens', self.group * data.batch * sum(self.sequence_lengths(data))

  def rollout(self, raw: Raw, dataset: Dataset, generate: Generate) -> Features:
    assert isinstance(dataset, Records)
    prompts, records = [], []
    for tokens, end, record in zip(raw['tokens'], raw['ends'], raw['record'], strict=True):
      prompts += [tokens[:end].tolist()] * self.group
      records += [dataset.texts[record]] * self.group
    options = {'max_new_tokens': self.tokens, 'temperature': self.temperature}
    responses = generate(prompts, **options)
    rewards = np.zeros(len(prompts), np.float32)
    for i, (response, record) in enumerate(zip(responses, records, strict=True)):
      text = dataset.vocabulary.decode([t for t in response if t != dataset.vocabulary.eos])
      rewards[i] = self.reward(record['prompt'], text, record['answer'])
    features = _sequences(prompts, responses, raw['tokens'].shape[1])
    example = raw.get('weights', np.ones(len(raw['ends']), np.float32)).repeat(self.group)
    features['weights'] *= example[:, None]
    return features | {
      'advantages': advantages(rewards, self.group, self.divide_by_std),
      'rewards': rewards,
      'examples': example,
    }

  def reward(self, prompt: str, response: str, answer: str) -> float:
    """Return the weighted sum of the rewards of a response."""
    return sum(r.weight * r.score(prompt, response, answer) for r in self.rewards)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    assert isinstance(data, Problems)
    batch, tokens = data.batch * self.group, ('input_ids', 'labels')
    specs = {name: ArraySpec((batch, data.length), np.int32, 'BT') for name in tokens}
    specs['weights'] = ArraySpec((batch, data.length), np.float32, 'BT')
    for name in ('advantages', 'rewards', 'examples'):
      specs[name] = ArraySpec((batch,), np.float32, 'B')
    return specs | ({'old_logprobs': specs['weights']} if self.updates > 1 else {})

  def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
    return {'input_ids': batch['input_ids']}

  def measure_rollout(self, forward: Forward, batch: Batch) -> Batch:
    """Return `old_logprobs` float32 [B, T], if several updates use the same samples."""
    return {'old_logprobs': self.logprobs(forward, batch)} if self.updates > 1 else {}

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss', 'reward' and 'response_tokens' by response, 'kl' and 'clipped' by token.

    'clipped' is the share of tokens without a gradient of their advantage.
    """
    del key
    logprobs_BT, weights_BT = self.logprobs(forward, batch), batch['weights']
    old_BT = batch.get('old_logprobs', jax.lax.stop_gradient(logprobs_BT))
    ratio_BT, A_B1 = jnp.exp(logprobs_BT - old_BT), batch['advantages'][:, None]
    high = self.clip if self.clip_high is None else self.clip_high
    free_BT, bound_BT = ratio_BT * A_B1, jnp.clip(ratio_BT, 1 - self.clip, 1 + high) * A_B1
    kl_BT = jnp.zeros_like(logprobs_BT)
    if self.beta:
      log_q_BT = self.logprobs(forward.model('reference'), batch) - logprobs_BT
      kl_BT = jnp.exp(log_q_BT) - log_q_BT - 1
    loss_BT = self.beta * kl_BT - jnp.minimum(free_BT, bound_BT)
    examples_B, tokens = batch['examples'], jnp.sum(weights_BT)
    responses = jnp.sum(examples_B)
    return {
      'loss': self._average(loss_BT, weights_BT, responses),
      'reward': Ratio(weighted_sum(batch['rewards'], examples_B), responses),
      'response_tokens': Ratio(tokens, responses),
      'kl': Ratio(weighted_sum(kl_BT, weights_BT), tokens),
      'clipped': Ratio(weighted_sum((bound_BT < free_BT).astype(jnp.float32), weights_BT), tokens),
    }

  def _average(self, loss_BT: jax.Array, weights_BT: jax.Array, responses: jax.Array) -> Ratio:
    """Return the mean loss, as `average` defines it."""
    if self.average == 'tokens':
      return Ratio(weighted_sum(loss_BT, weights_BT), jnp.sum(weights_BT))
    if self.average == 'length':
      return Ratio(weighted_sum(loss_BT, weights_BT) / self.tokens, responses)
    lengths_B1 = jnp.sum(weights_BT, 1, keepdims=True)
    share_BT = weights_BT / jnp.maximum(lengths_B1, 1)
    return Ratio(weighted_sum(loss_BT, share_BT), responses)

  def logprobs(self, forward: Callable[..., Outputs], batch: Batch) -> jax.Array:
    """Return the log-probability of each label, float32 [B, T]."""
    logits = forward(**self.inputs(batch), factored_logits=self.loss_chunk != 0)['logits']
    return token_logprobs(logits, batch['labels'], self.loss_chunk, self.temperature)

  def fits(self, model: TaskModel) -> Iterator[str]:
    yield from causal_decoder('grpo', model)

  def fits_data(self, data: Data) -> Iterator[str]:
    if not isinstance(data, Problems):
      yield 'task: grpo needs problems with answers. Expected data=problems.'
    elif data.length <= self.tokens:
      yield (
        f'data.length: is {data.length}, and task.tokens={self.tokens} leave no room for a prompt. '
        f'Expected more than {self.tokens}.'
      )

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    yield from covers(model, dataset)

  def check(self) -> Iterator[str]:
    for name, least in (('group', 2), ('tokens', 1), ('updates', 1)):
      if (value := getattr(self, name)) < least:
        yield f'{name}: is {value}. Expected {least} or more.'
    if not self.rewards:
      yield 'rewards: is empty. Expected at least one, such as exact_match.'
    if not self.temperature > 0:
      yield f'temperature: is {self.temperature}. Expected more than 0, as a group needs variety.'
    if self.beta < 0:
      yield f'beta: is {self.beta}. Expected 0 or more.'
    if not 0 < self.clip < 1:
      yield f'clip: is {self.clip}. Expected a number between 0 and 1.'


def advantages(rewards: NDArray[np.float32], group: int, divide: bool) -> NDArray[np.float32]:
  """Return the advantage of each response within its group.

  Args:
    rewards: The rewards [n], where each `group` neighbours answer one problem.
    group: Responses of a problem.
    divide: Divide by the standard deviation of the group, unless all its rewards are equal.

  Returns:
    float32 [n].
  """
  of_group = rewards.astype(np.float64).reshape(-1, group)
  centred = of_group - of_group.mean(1, keepdims=True)
  std = of_group.std(1, keepdims=True)
  equal = np.ptp(of_group, 1)[:, None] == 0
  scaled = centred / np.where(equal, 1, std) if divide else centred
  return np.where(equal, 0, scaled).reshape(-1).astype(np.float32)


def _sequences(prompts: list[list[int]], responses: list[list[int]], length: int) -> Features:
  """Return `input_ids`, `labels` and `weights` [n, length], which are 1 for response tokens."""
  tokens = np.zeros((len(prompts), length + 1), np.int32)
  weights = np.zeros((len(prompts), length + 1), np.float32)
  for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
    end = len(prompt) + len(response)
    tokens[i, :end] = prompt + response
    weights[i, len(prompt) : end] = 1
  return {'input_ids': tokens[:, :-1], 'labels': tokens[:, 1:], 'weights': weights[:, 1:]}
