"""Whisper's byte pairs, and the special tokens of a transcript."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from tfm.core import errors
from tfm.data.tokenizer.published.languages import WHISPER, WHISPER_ALIASES
from tfm.data.tokenizer.published.recipe import Draft, Recipe

_END = '<|endoftext|>'
_NAMES = ('unk_token', 'bos_token', 'eos_token')


def _build(draft: Draft) -> tokenizers.Tokenizer:
  given = {'continuing_subword_prefix': '', 'end_of_word_suffix': '', 'fuse_unk': False}
  inner = tokenizers.Tokenizer(models.BPE(draft.vocab, draft.merges or [], **given))
  inner.pre_tokenizer = pre_tokenizers.ByteLevel(
    add_prefix_space=bool(draft.fields.get('add_prefix_space'))
  )
  inner.decoder = decoders.ByteLevel()
  return inner


def _frame(draft: Draft) -> None:
  """Add the special tokens around a transcript: start, language, task, no time stamps, and end."""
  fields = draft.fields
  before = ['<|startoftranscript|>']
  if (language := fields.get('language')) is not None:
    before.append(f'<|{_code(draft, language)}|>')
  if (task := fields.get('task')) is not None:
    before.append('<|transcribe|>' if task == 'transcribe' else '<|translate|>')
  if not fields.get('predict_timestamps'):
    before.append('<|notimestamps|>')
  draft.frame(before, [draft.text('eos_token')])


def _code(draft: Draft, language: str) -> str:
  names = {name.replace('_', ' '): code for code, name in WHISPER.items()} | WHISPER_ALIASES
  code = names.get(language.lower(), language.lower())
  if code not in WHISPER:
    raise errors.UserError(
      f'{draft.folder}: language: {errors.unknown("language", language, [*WHISPER])}'
    )
  return code


RECIPES = {
  'WhisperTokenizer': Recipe(
    _build, 'BPE', 'vocab.json', 'merges.txt', tokens=dict.fromkeys(_NAMES, _END),
    flags={name: {'normalized': False, 'special': True} for name in _NAMES}, finish=_frame,
    language='language',
    decoding={'times': True},
  ),
}  # fmt: skip
