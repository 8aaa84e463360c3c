"""Published models by name; a family is one file and a row here for each size."""

from tfm.core.registry import Table
from tfm.model.spec import Model
from tfm.zoo import (
  bart,
  bert,
  blenderbot,
  deepseek,
  distilbert,
  gpt2,
  llama,
  m2m_100,
  marian,
  mbart,
  mixtral,
  pegasus,
  qwen3_moe,
  roberta,
  t5,
  vaswani,
)
from tfm.zoo.entry import Entry as Entry
from tfm.zoo.tiny import tiny as tiny

TABLE = Table(
  'model',
  **vaswani.MODELS,
  **gpt2.MODELS,
  **bert.MODELS,
  **roberta.MODELS,
  **distilbert.MODELS,
  **t5.MODELS,
  **m2m_100.MODELS,
  **marian.MODELS,
  **pegasus.MODELS,
  **blenderbot.MODELS,
  **mbart.MODELS,
  **bart.MODELS,
  **llama.MODELS,
  **mixtral.MODELS,
  **deepseek.MODELS,
  **qwen3_moe.MODELS,
)


def get(name: str) -> Model:
  """The spec of a published model.

  Raises: ConfigError for an unknown name, with the near misses.

  Example:
    >>> get('gpt2').d_model
    768
  """
  entry: Entry = TABLE[name]
  return entry.spec


def names() -> list[str]:
  """Every name, oldest family first."""
  return list(TABLE)
