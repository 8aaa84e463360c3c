"""ERNIE 2.0 and 3.0 (Sun et al., 2019, 2021): BERT with more token types and task types."""

import dataclasses
from typing import Any

from tfm.model.spec import Model
from tfm.parts.absolute.learned import Learned
from tfm.zoo import bert
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER_2 = (
  'ERNIE 2.0: A Continual Pre-training Framework for Language Understanding, arXiv:1907.12412'
)
PAPER_3 = 'ERNIE 3.0: Large-scale Knowledge Enhanced Pre-training, arXiv:2107.02137'


def ernie(layers: int, d: int, heads: int, vocab: int, length: int, tasks: int) -> Model:
  """Return a BERT with 4 token types, and with task types.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.
    length: number of positions.
    tasks: number of task types.

  Returns:
    The spec of the model.
  """
  spec = bert.bert(layers, d, heads, vocab, types=4, eps=1e-5)
  return with_tasks(dataclasses.replace(spec, absolute=Learned(length)), tasks)


def with_tasks(spec: Any, tasks: int) -> Model:
  """Return a BERT with task types."""
  return dataclasses.replace(spec, embed=dataclasses.replace(spec.embed, tasks=tasks))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  tasks = c.get('task_type_vocab_size', 3)
  return with_tasks(bert.read(c), tasks if c.get('use_task_id', False) else 0)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  tasks = (
    {'use_task_id': True, 'task_type_vocab_size': m.embed.tasks}
    if m.embed.tasks
    else {'use_task_id': False}
  )
  return {**bert.write(m), **tasks}


MODELS = {
  'ernie-2.0-base-en': Entry(ernie(12, 768, 12, 30_522, 512, 0), 109_515_834, '110M', PAPER_2),
  'ernie-2.0-large-en': Entry(ernie(24, 1024, 16, 30_522, 512, 0), 335_176_506, '335M', PAPER_2),
  'ernie-3.0-base-zh': Entry(ernie(12, 768, 12, 40_000, 2048, 3), 117_986_368, '118M', PAPER_3),
}
