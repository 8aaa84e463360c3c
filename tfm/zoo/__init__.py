"""Published models by name; a family is one file and a row here for each size."""

from tfm.core.registry import Table
from tfm.model.spec import Model
from tfm.zoo import (
  albert,
  bart,
  bert,
  blenderbot,
  deepseek,
  distilbert,
  electra,
  ernie4_5,
  exaone4,
  fnet,
  gemma,
  gemma2,
  gemma3,
  glm4,
  gpt2,
  granite,
  llama,
  longt5,
  m2m_100,
  marian,
  mbart,
  mistral,
  mixtral,
  modernbert,
  mpnet,
  mt5,
  nomic_bert,
  olmo,
  olmo2,
  olmoe,
  pegasus,
  phi3,
  qwen2,
  qwen2_moe,
  qwen3,
  qwen3_moe,
  roberta,
  roformer,
  smollm3,
  starcoder2,
  switch_transformers,
  t5,
  umt5,
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
  **mt5.MODELS,
  **umt5.MODELS,
  **longt5.MODELS,
  **switch_transformers.MODELS,
  **m2m_100.MODELS,
  **marian.MODELS,
  **pegasus.MODELS,
  **blenderbot.MODELS,
  **mbart.MODELS,
  **bart.MODELS,
  **llama.MODELS,
  **exaone4.MODELS,
  **starcoder2.MODELS,
  **ernie4_5.MODELS,
  **glm4.MODELS,
  **granite.MODELS,
  **smollm3.MODELS,
  **phi3.MODELS,
  **olmoe.MODELS,
  **olmo2.MODELS,
  **olmo.MODELS,
  **gemma3.MODELS,
  **gemma2.MODELS,
  **gemma.MODELS,
  **qwen3.MODELS,
  **qwen2_moe.MODELS,
  **qwen2.MODELS,
  **mistral.MODELS,
  **mixtral.MODELS,
  **deepseek.MODELS,
  **qwen3_moe.MODELS,
  **albert.MODELS,
  **electra.MODELS,
  **mpnet.MODELS,
  **roformer.MODELS,
  **fnet.MODELS,
  **modernbert.MODELS,
  **nomic_bert.MODELS,
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
