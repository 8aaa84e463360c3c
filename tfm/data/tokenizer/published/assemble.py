"""Build a `tokenizers.Tokenizer` from the files of a folder and the recipe of its class."""

import base64
from collections.abc import Mapping
import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, models

from tfm.core import errors
from tfm.data.tokenizer.published import spm_whole, tekken, tiktoken
from tfm.data.tokenizer.published.folder import WHOLE, read_fields, read_json
from tfm.data.tokenizer.published.pieces import merges_of, read_merges, read_pieces
from tfm.data.tokenizer.published.recipe import Draft, Recipe, collect_tokens, complete


def assemble(folder: Path, recipe: Recipe, settings: Mapping[str, Any]) -> Draft | None:
  """Build the tokenizer of a folder.

  Args:
    folder: The folder.
    recipe: The construction of its class.
    settings: Override the settings of the folder.

  Returns:
    The complete draft, or None if the folder has no tokenizer files.

  Raises:
    UserError: The files cannot be read, or contradict each other.
  """
  draft = Draft(folder, {**read_fields(folder), **settings})
  post = None
  if (folder / WHOLE).is_file():
    if recipe.whole:
      draft.inner = tokenizers.Tokenizer.from_file(str(folder / WHOLE))
    else:
      post = _take_apart(draft, recipe)
  elif not _take_files(draft, recipe):
    return None
  complete(draft, recipe)
  if draft.vocab is not None:
    draft.inner = recipe.build(draft)
  if post is not None:
    draft.inner.post_processor = post
  _add_tokens(draft)
  if recipe.finish is not None:
    recipe.finish(draft)
  return draft


def _take_apart(draft: Draft, recipe: Recipe) -> Any:
  """Read vocabulary, merges and text normalisation from `tokenizer.json`. Return its frame."""
  layout = read_json(draft.folder / WHOLE)
  model = layout['model']
  vocab = model['vocab']
  if not isinstance(vocab, list):
    draft.vocab = vocab
  elif recipe.model in (None, 'Unigram'):
    draft.vocab = [(text, score) for text, score in vocab]
  else:
    draft.vocab = {text: i for i, (text, _) in enumerate(vocab)}
  if recipe.model == 'BPE' and 'merges' in model:
    split = lambda merge: merge.split(' ') if isinstance(merge, str) else merge
    draft.merges = [(first, second) for first, second in map(split, model['merges'])]
  draft.charsmap = _charsmap(layout.get('normalizer'))
  if (padding := layout.get('padding')) is not None:
    draft.fields.setdefault('pad_token', padding['pad_token'])
  if layout.get('post_processor') is None:
    return None
  empty = {'version': '1.0', 'model': {'type': 'WordLevel', 'vocab': {'a': 0}, 'unk_token': 'a'}}
  shell = tokenizers.Tokenizer.from_str(
    json.dumps({**empty, 'post_processor': layout['post_processor']})
  )
  return shell.post_processor


def _charsmap(layout: Any) -> bytes | None:
  """Return the character map of a SentencePiece normaliser."""
  if not layout:
    return None
  for step in layout['normalizers'] if layout['type'] == 'Sequence' else [layout]:
    if step['type'] == 'Precompiled' and 'precompiled_charsmap' in step:
      return base64.b64decode(step['precompiled_charsmap'])
  return None


def _take_files(draft: Draft, recipe: Recipe) -> bool:
  """Read vocabulary and merges from files older than `tokenizer.json`.

  Returns:
    Whether there are such files.
  """
  folder = draft.folder
  # Every class prefers these three to its own file.
  names = ['tokenizer.model', 'tekken.json', 'tiktoken.model', recipe.vocab]
  path = next((folder / name for name in names if name and (folder / name).is_file()), None)
  if path is None:
    return False
  if path.name == 'tekken.json':
    draft.inner = tekken.read(path)
  elif path.suffix == '.model':
    _take_model(draft, recipe, path)
  elif path.suffix == '.txt':
    draft.vocab = models.WordPiece.read_file(str(path))
  elif recipe.merges is None or not (folder / recipe.merges).is_file():
    return False
  else:
    draft.vocab, draft.merges = read_merges(path, folder / recipe.merges)
  return True


def _take_model(draft: Draft, recipe: Recipe, path: Path) -> None:
  """Read vocabulary and merges from a SentencePiece model, or from a file of `tiktoken`."""
  if tiktoken.is_tiktoken(path):
    draft.inner = tiktoken.read(path, draft.fields)
    return
  pieces = read_pieces(path)
  kind = recipe.model or ('Unigram' if pieces.kind == 1 else 'BPE')
  if kind == 'BPE':
    draft.vocab = {text: i for i, (text, _) in enumerate(pieces.scored)}
    draft.merges = merges_of(draft.vocab)
  else:
    draft.vocab = pieces.scored
    draft.fields['unk_id'] = pieces.unk_id
  draft.fields['additional_special_tokens'] = list(pieces.added)
  draft.charsmap = pieces.charsmap
  if recipe.arrange is not None:
    draft.vocab = recipe.arrange(draft, draft.vocab)
  if recipe.whole:
    draft.inner = spm_whole.build(draft, pieces)
    draft.vocab = None


def _add_tokens(draft: Draft) -> None:
  """Add the tokens of the folder and the class, in the order that determines their ids."""
  collect_tokens(draft)
  fields, inner = draft.fields, draft.inner
  explicit = 'add_bos_token' in fields or 'add_eos_token' in fields
  draft.framed = not explicit and inner.post_processor is not None
  added = [value for _, value in sorted(fields['added_tokens_decoder'].items())]
  present = [token.content for token in inner.get_added_tokens_decoder().values()]
  present += map(str, added)
  for value in [*draft.named.values(), *draft.extra]:
    if value is not None and str(value) not in present and value not in added:
      added.append(value)
  named = {str(value) for value in draft.named.values() if value}
  for i, value in enumerate(added):
    if isinstance(value, str):
      added[i] = AddedToken(value, special=True)
    elif str(value) in named and not value.special:
      value.special = True
  if added:
    inner.add_tokens(added)
  _check_numbers(draft)
  if not draft.framed:
    draft.frame_by_flags()


def _check_numbers(draft: Draft) -> None:
  for number, value in draft.fields['added_tokens_decoder'].items():
    if (actual := draft.inner.token_to_id(str(value))) != number:
      raise errors.UserError(
        f'{draft.folder}: the added token {str(value)!r} has id {number} in the files, but the '
        f'vocabulary gives it {actual}. Expected added ids that follow the vocabulary without a '
        'gap.'
      )
