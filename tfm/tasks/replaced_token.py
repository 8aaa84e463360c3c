"""Replaced-token detection: find the tokens that a small generator has replaced."""

from collections.abc import Iterator
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.data.base import Data
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.dataset import ArraySpec, Dataset
from tfm.data.textdata import TextData
from tfm.tasks.base import Batch, Features, Forward, Ratio, Recorder, Task, mean, weighted_sum
from tfm.tasks.masking import Masking
from tfm.tasks.model import TaskModel
from tfm.tasks.text import TextTask, document_specs, documents, text_specs

_GENERATOR = 'generator'
_LOGITS = f'{_GENERATOR}_logits'


@dataclasses.dataclass(frozen=True)
class ReplacedToken(TextTask):
  """Replaced-token detection (ELECTRA, arXiv:2003.10555).

  The tower `generator` predicts masked tokens. Samples of it replace them, and the model classifies
  each token as original or replaced. The loss is the masked-language-modelling loss of the
  generator, plus `detection` times the mean binary cross-entropy over all tokens. No gradient flows
  through the samples. Both towers may share the token table (`embed.vocab=none` in the tower).
  `configs/electra.py` builds such a model.

  Attributes:
    rate: Probability that an ordinary token is masked.
    masked: Share of these tokens that become the mask token. The rest is unchanged.
    whole_word: Mask words, with all of their tokens.
    detection: Weight of the detection loss.
  """

  rate: float = 0.15
  masked: float = 0.85
  whole_word: bool = False
  detection: float = 50.0

  @property
  def masking(self) -> Masking:
    """The choice of tokens."""
    return Masking(self.rate, self.masked, 0.0, self.whole_word)

  def specials(self, length: int) -> tuple[str, ...]:
    del length
    return ('mask',)

  def features(self, raw: RawBatch, dataset: Dataset) -> Features:
    assert isinstance(dataset, Corpus)
    masked = self.masking.apply(raw['tokens'], raw['segments'], raw['key'], dataset.vocabulary)
    return {
      'input_ids': masked.tokens,
      'labels': raw['tokens'],
      'weights': masked.chosen.astype(np.float32),
      'segment_ids': raw['segments'],
    } | documents(raw, dataset.isolate)

  def specs(self, model: TaskModel, data: Data) -> dict[str, ArraySpec]:
    del model
    assert isinstance(data, TextData)
    specs = text_specs(data.batch, data.length, 'input_ids', 'labels', 'segment_ids')
    return specs | document_specs(data)

  def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
    """Return the inputs of both towers, with masked tokens."""
    inputs = super().inputs(batch)
    return inputs | {f'{_GENERATOR}_{name}': value for name, value in inputs.items()}

  def loss(self, forward: Forward, batch: Batch, key: jax.Array | None) -> dict[str, Ratio]:
    """Return 'loss', and the metrics of the generator and the detection.

    'loss_nats' and 'accuracy' measure the generator, per masked token. 'detection_nats' and
    'detection_accuracy' are per token, and 'replaced' is the share of replaced tokens. The mean
    detection loss of each micro-batch is added to 'loss'. Evaluation always draws the same samples.
    """
    own = super().inputs(batch)
    outputs: dict[str, jax.Array] = {}

    def generate(**inputs: Any) -> dict[str, jax.Array]:
      given = {name: value for name, value in inputs.items() if name.startswith(_GENERATOR)}
      outputs.update(forward(tower=_GENERATOR, **given))
      return {'logits': outputs[_LOGITS]}

    ratios = super().loss(Recorder(forward, generate), batch, key)
    logits_BTV = jax.lax.stop_gradient(outputs[_LOGITS].astype(jnp.float32))
    sampled_BT = jax.random.categorical(jax.random.key(0) if key is None else key, logits_BTV)
    labels_BT = batch['labels']
    ids_BT = jnp.where(batch['weights'] > 0, sampled_BT.astype(labels_BT.dtype), labels_BT)
    replaced_BT = ids_BT != labels_BT
    score_BT = forward(tower='', **own | {'input_ids': ids_BT})['logits'][..., 0]
    score_BT = score_BT.astype(jnp.float32)
    real_BT = (batch['segment_ids'] > 0).astype(jnp.float32)
    nats = weighted_sum(jax.nn.softplus(jnp.where(replaced_BT, -score_BT, score_BT)), real_BT)
    right_BT = (score_BT > 0) == replaced_BT
    count, generator = jnp.sum(real_BT), ratios['loss']
    total = generator.sum + self.detection * mean(nats, count) * generator.weight
    return ratios | {
      'loss': Ratio(total, generator.weight),
      'detection_nats': Ratio(nats, count),
      'detection_accuracy': Ratio(jnp.sum(right_BT * real_BT), count),
      'replaced': Ratio(jnp.sum(replaced_BT * real_BT), count),
    }

  def score(self, sums: dict[str, tuple[float, float]]) -> dict[str, float | None]:
    names = ('detection_nats', 'detection_accuracy', 'replaced')
    return super().score(sums) | Task.score(self, {name: sums[name] for name in names})

  def fits(self, model: TaskModel) -> Iterator[str]:
    if _LOGITS not in model.returns:
      yield (
        'task: replaced_token needs a tower generator with a language-model head. Expected '
        'model.towers.generator with heads.lm.'
      )
    head = model.classifier
    if model.lm is not None or head is None or head.labels != 1 or head.pick != 'each':
      yield (
        'task: replaced_token needs a head with a score of each token. Expected '
        "model.heads.lm=none and model.heads.classify='classify(labels=1,pick=each,hidden=gelu)'."
      )

  def suits(self, model: TaskModel, dataset: Dataset) -> Iterator[str]:
    yield from super().suits(model, dataset)
    assert isinstance(dataset, Corpus)
    yield from self.masking.suits(dataset.vocabulary)

  def check(self) -> Iterator[str]:
    yield from super().check()
    yield from self.masking.check()
    if self.detection < 0:
      yield f'detection: is {self.detection}. Expected 0 or more.'
    if self.loss_chunk:
      yield f'loss_chunk: is {self.loss_chunk}, but samples need whole logits. Expected none or 0.'
