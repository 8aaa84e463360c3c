"""Contradictions between the files of a published folder that leave the outputs of the model
unchanged.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tfm.data.tokenizer import Vocabulary
from tfm.zoo.weights import Published

_ENDS = ('eos_token_id', 'decoder_start_token_id', 'forced_bos_token_id', 'forced_eos_token_id')


def inconsistencies(
  values: Mapping[str, Any], found: Published, tokenizer: Vocabulary | None
) -> Iterator[str]:
  """Yield a line for each contradiction between `config.json`, the tokenizer and the model, and
  each ignored field.

  Args:
    values: the fields of `config.json`.
    found: the model that it describes.
    tokenizer: the tokenizer of the folder, if it has one.
  """
  for name in found.ignored:
    yield f'{name}={values.get(name)!r} of config.json is ignored, as requested.'
  vocab, size = found.spec.vocab, None if tokenizer is None else tokenizer.size
  if vocab and size is not None and size > vocab:
    yield (
      f'the tokenizer has {size} tokens, and vocab_size of config.json is {vocab}. Texts with '
      f'tokens from {vocab} on '
      'are refused.'
    )
  for name in _ENDS:
    ids = values.get(name)
    for number in ids if isinstance(ids, list) else [ids]:
      if vocab and isinstance(number, int) and not 0 <= number < vocab:
        yield f'{name} of config.json is {number}, no id of a vocabulary of {vocab}. It never occurs.'
  labels = values.get('id2label')
  if (
    isinstance(labels, Mapping)
    and isinstance(n := values.get('num_labels'), int)
    and n != len(labels)
  ):
    yield f'num_labels of config.json is {n}, and id2label has {len(labels)}. The labels of id2label are read.'
