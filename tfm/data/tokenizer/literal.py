"""A tokenizer that takes the spelling of a special token for ordinary text."""

from collections.abc import Mapping
import json
from typing import Any

import tokenizers

#: What hides a special token: no text has these characters.
_HIDDEN = '\U0010fffe{}\U0010ffff'


def literal(layout: Mapping[str, Any]) -> tokenizers.Tokenizer:
  """Return the tokenizer of `layout` with every special token under a name that no text has.

  The ids stay. Without this the vocabulary of a model itself would find '</s>' in a text and end it
  there.

  Args:
    layout: What `tokenizer.json` holds.
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
    model['merges'] = [
      merge for merge in map(_halves, model['merges']) if ''.join(merge) not in special
    ]
  added = [{**entry, 'content': hide(entry['content'])} for entry in layout['added_tokens']]
  return tokenizers.Tokenizer.from_str(
    json.dumps({**layout, 'model': model, 'added_tokens': added, 'post_processor': None})
  )


def _halves(merge: Any) -> list[str]:
  return merge.split(' ') if isinstance(merge, str) else merge
