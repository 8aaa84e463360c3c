"""A tokenizer that treats the spelling of a special token as ordinary text."""

from collections.abc import Mapping
import json
from typing import Any

import tokenizers

#: Hides a special token, because no text has these characters.
_HIDDEN = '\U0010fffe{}\U0010ffff'


def literal(layout: Mapping[str, Any]) -> tokenizers.Tokenizer:
  """Rename every special token of a tokenizer to a name that no text has.

  The ids stay. Otherwise the vocabulary of the model itself would match '</s>' in a text.

  Args:
    layout: The content of `tokenizer.json`.

  Returns:
    The tokenizer.
  """
  special = {entry['content'] for entry in layout['added_tokens'] if entry['special']}
  hide = lambda text: _HIDDEN.format(text) if text in special else text
  model = dict(layout['model'])
  vocab = model['vocab']
  if isinstance(vocab, dict):
    model['vocab'] = {hide(text): number for text, number in vocab.items()}
  else:
    model['vocab'] = [[hide(text), score] for text, score in vocab]
  if model.get('unk_token') is not None:
    model['unk_token'] = hide(model['unk_token'])
  if 'merges' in model:
    merges = map(_halves, model['merges'])
    model['merges'] = [merge for merge in merges if ''.join(merge) not in special]
  added = [{**entry, 'content': hide(entry['content'])} for entry in layout['added_tokens']]
  renamed = {**layout, 'model': model, 'added_tokens': added, 'post_processor': None}
  return tokenizers.Tokenizer.from_str(json.dumps(renamed))


def _halves(merge: Any) -> list[str]:
  return merge.split(' ') if isinstance(merge, str) else merge
