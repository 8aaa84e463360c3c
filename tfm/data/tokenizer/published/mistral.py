"""The split pattern of Mistral's tokenizers, which is wrong in some published files."""

from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

from tfm.data.tokenizer.published.recipe import Draft

_KINDS = ('mistral', 'mistral3', 'voxtral', 'ministral', 'pixtral', None)
_UPPER, _LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
_BEFORE = r'[^\r\n\p{L}\p{N}]?'
_PATTERN = (
  rf'{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}| '
  rf'?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|'
  r'\s+(?!\S)|\s+'
)
_LARGE = 100_000


def mend_pattern(draft: Draft, model: Mapping[str, Any]) -> None:
  """Replace the split pattern if the folder sets `fix_mistral_regex`."""
  inner = draft.inner
  old = str(model.get('transformers_version') or '0').split('.')[0]
  enabled = draft.fields.get('fix_mistral_regex') is True and old.isdigit() and int(old) < 5
  words = inner.pre_tokenizer
  if not enabled or words is None:
    return
  if model.get('model_type') not in _KINDS or inner.get_vocab_size() <= _LARGE:
    return
  split = pre_tokenizers.Split(tokenizers.Regex(_PATTERN), 'isolated')
  if isinstance(words, pre_tokenizers.Sequence):
    words[0] = split
    inner.pre_tokenizer = words
    return
  if isinstance(words, pre_tokenizers.Metaspace):
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  inner.pre_tokenizer = pre_tokenizers.Sequence([split, words])
