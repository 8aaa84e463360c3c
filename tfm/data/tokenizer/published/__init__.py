"""Tokenizers of published folders, with the ids of `AutoTokenizer` of transformers 5.23.0.

`choose` returns the class of a folder. A `Recipe` builds a `tokenizers.Tokenizer` for it. A
`Splitter` implements a class that `transformers` implements in Python.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers

from tfm.core import errors
from tfm.data.tokenizer.base import Vocabulary
from tfm.data.tokenizer.decoding import Decoding
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.limits import check_tokenizer, reported
from tfm.data.tokenizer.published import byte_pairs, sentence_pairs, unigram, whisper, word_pieces
from tfm.data.tokenizer.published.assemble import assemble
from tfm.data.tokenizer.published.choose import BACKEND, choose
from tfm.data.tokenizer.published.folder import CONFIG, MODEL, WHOLE, read_fields, read_json
from tfm.data.tokenizer.published.mistral import mend_pattern
from tfm.data.tokenizer.published.recipe import Draft, Recipe
from tfm.data.tokenizer.published.refused import REFUSED, RefusedVocabulary
from tfm.data.tokenizer.published.slow import SPLITTERS, read_slow
from tfm.data.tokenizer.spelling import NAMES

#: class -> how its tokenizer is built.
RECIPES: dict[str, Recipe] = {
  BACKEND: Recipe(lambda draft: draft.inner, vocab='tokenizer.model', whole=True),
  **byte_pairs.RECIPES,
  **sentence_pairs.RECIPES,
  **unigram.RECIPES,
  **whisper.RECIPES,
  **word_pieces.RECIPES,
}
#: An example of a language code, by class.
_EXAMPLES = {'MBart50Tokenizer': 'en_XX', 'MBartTokenizer': 'en_XX', 'NllbTokenizer': 'eng_Latn'}
_ROLES = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')


def read_tokenizer(
  folder: Path, framed: bool = True, language: str | None = None
) -> Vocabulary | None:
  """Read the tokenizer of a published folder.

  Args:
    folder: The folder.
    framed: Put special tokens around prompts.
    language: The language of prompts, for multilingual tokenizers: 'fra_Latn' of NLLB, 'fr_XX' of
      mBART, 'fr' of M2M-100 and Whisper. Defaults to that of the folder.

  Returns:
    The vocabulary, or None if the folder has no files of a tokenizer. If tfm does not support the
    tokenizer, each use of the vocabulary raises UserError, but the model still loads.

  Raises:
    UserError: The files cannot be read, or the tokenizer lacks the language.
  """
  config, model = read_json(folder / CONFIG), read_json(folder / MODEL)
  unreadable = f'{folder}: its tokenizer cannot be read'
  with reported(unreadable):
    name = choose(folder, config, model)
  if name in REFUSED:
    return RefusedVocabulary.of_config(name, str(folder), model) if _has_files(folder) else None
  row = SPLITTERS.get(name) or RECIPES.get(name) or RECIPES[BACKEND]
  if language is not None and not row.language:
    raise errors.UserError(
      f'{folder}: language is {language!r}, but its tokenizer ({name}) has no languages. Expected '
      f'None.'
    )
  settings = {} if language is None else {row.language: language}
  if not isinstance(row, Recipe):
    return read_slow(folder, name, framed, settings)
  recipe = row
  with reported(unreadable):
    draft = assemble(folder, recipe, settings)
  if draft is None:
    return None
  needs_token = recipe.language == 'src_lang' and language is not None
  if needs_token and draft.inner.token_to_id(str(language)) is None:
    raise errors.UserError(
      f'{folder}: language {language!r} is not in its tokenizer. Expected a code such as '
      f'{_EXAMPLES[name]!r}.'
    )
  with reported(unreadable):
    mend_pattern(draft, model)
    check_tokenizer(str(folder), draft.inner)
    return _vocabulary(draft, recipe, model, framed)


def special_texts(folder: Path) -> dict[str, str]:
  """Return the special tokens of a folder by name, such as 'bos_token'.

  They include the defaults of its class.
  """
  name = choose(folder, read_json(folder / CONFIG), read_json(folder / MODEL))
  row = SPLITTERS.get(name) or RECIPES.get(name) or RECIPES[BACKEND]
  fields = {**row.tokens, **read_fields(folder)}
  is_token = lambda value: isinstance(value, (str, tokenizers.AddedToken))
  named = {n: v for n, v in fields.items() if n.endswith('_token') and is_token(v)}
  named |= fields.get('model_specific_special_tokens') or {}
  return {name: str(value) for name, value in named.items()}


def read_file(path: Path) -> FileVocabulary:
  """Read a `tokenizer.json`, with the special tokens that other files of its folder name.

  Raises:
    UserError: The file is not a tokenizer.
  """
  has_config = any((path.parent / name).is_file() for name in (CONFIG, MODEL))
  if path.name == WHOLE and has_config:
    vocabulary = read_tokenizer(path.parent)
    if isinstance(vocabulary, FileVocabulary):
      return vocabulary
  with reported(
    f'data.tokenizer.path: {path} is not a tokenizer.json', 'a file of the tokenizers library'
  ):
    inner = tokenizers.Tokenizer.from_file(str(path))
    check_tokenizer(f'data.tokenizer.path: {path}', inner)
  return FileVocabulary(inner, framed=True)


def _has_files(folder: Path) -> bool:
  return any(
    p.suffix in ('.txt', '.model') or 'vocab' in p.name or p.name == WHOLE for p in folder.iterdir()
  )


def _vocabulary(
  draft: Draft, recipe: Recipe, model: Mapping[str, Any], framed: bool
) -> FileVocabulary:
  fields, kind = draft.fields, type(draft.inner.model).__name__
  options = dict(recipe.decoding)
  clean_pairs = options.pop('clean_pairs', False)
  clean_pairs = fields.get(
    'clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output', clean_pairs
  )
  clean = bool(fields.get('clean_up_tokenization_spaces')) and (kind != 'BPE' or clean_pairs)
  if options.get('times'):
    options['prompt'] = tuple(
      draft.number(text) for text in ('<|startofprev|>', '<|startoftranscript|>')
    )
  decoding = Decoding(clean=clean, **options)
  split = bool(fields.get('split_special_tokens'))
  vocabulary = FileVocabulary(draft.inner, framed=framed, decoding=decoding, split_specials=split)
  names = {name: draft.text(f'{name}_token') for name in _ROLES}
  vocabulary.specials = special_ids(vocabulary, names, model)
  if recipe.whole and 'bos' not in vocabulary.specials:
    # No file names the begin token, but the frame of tokenizer.json has it.
    frame = draft.inner.encode('').ids
    if frame and frame[0] not in vocabulary.specials.values():
      vocabulary.specials['bos'] = frame[0]
  return vocabulary


def special_ids(
  vocabulary: FileVocabulary, named: Mapping[str, str | None], model: Mapping[str, Any]
) -> dict[str, int]:
  """Return the ids of the special tokens that a folder names.

  The names in the tokenizer files take precedence, then the ids of `config.json`, then the usual
  spellings.

  Args:
    vocabulary: The vocabulary.
    named: The texts of special tokens by name.
    model: The content of `config.json`.

  Returns:
    The ids by name.
  """
  ids: dict[str, int] = {}
  for name in _ROLES:
    text = named.get(name)
    number = None if text is None else vocabulary.inner.token_to_id(text)
    stated = model.get(f'{name}_token_id')
    if number is None and isinstance(stated, int) and 0 <= stated < vocabulary.base:
      number = stated
    if number is not None:
      ids[name] = number
  usual = [name for name in ('eos', 'pad', 'mask') if name not in ids and name in NAMES]
  return ids | vocabulary.find_specials(usual)
