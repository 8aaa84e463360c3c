"""Harmless inconsistencies between the files of a published folder, for warnings."""

from collections.abc import Iterator, Mapping
from typing import Any

from tfm.data.tokenizer import Vocabulary
from tfm.zoo.weights import Published

_ENDS = ('eos_token_id', 'decoder_start_token_id', 'forced_bos_token_id', 'forced_eos_token_id')


def inconsistencies(
  values: Mapping[str, Any], model: Published, tokenizer: Vocabulary | None
) -> Iterator[str]:
  """Yield a warning for each inconsistency of config and tokenizer, and each ignored field.

  Args:
    values: The fields of `config.json`.
    model: The model that it describes.
    tokenizer: The tokenizer of the folder, None if it has none.

  Yields:
    Warnings about files that do not change the outputs of the model.
  """
  for name in model.ignored:
    yield f'{name}={values.get(name)!r} of config.json is ignored, as requested.'
  vocab, size = model.spec.vocab, None if tokenizer is None else tokenizer.size
  if vocab and size is not None and size > vocab:
    yield (
      f'the tokenizer has {size} tokens, but vocab_size of config.json is {vocab}. Texts with '
      f'token ids from {vocab} raise an error.'
    )
  for name in _ENDS:
    ids = values.get(name)
    for number in ids if isinstance(ids, list) else [ids]:
      if vocab and isinstance(number, int) and not 0 <= number < vocab:
        yield (
          f'{name} of config.json is {number}, but vocab_size is {vocab}. It is never generated.'
        )
  labels, n = values.get('id2label'), values.get('num_labels')
  if isinstance(labels, Mapping) and isinstance(n, int) and n != len(labels):
    yield (
      f'num_labels of config.json is {n}, but id2label has {len(labels)}. The labels of id2label '
      'are used.'
    )
