"""Train a tokenizer on text, or show its tokens.

Examples:
  tfm tokenizer train --files='text/*.txt' --kind=bpe --size=4096 --output=mine
  tfm tokenizer show mine --text='Hello world'
  tfm train --config=quickstart --config.data.tokenizer='file(path=mine)' \\
    --config.model.embed.vocab=4104 --workdir=runs/1

show also reads published folders, tokenizer.json, GGUF files and workdirs."""

from collections.abc import Sequence
import dataclasses
import itertools
import json
from pathlib import Path
import time
from typing import TYPE_CHECKING, Any

from absl import flags
import numpy as np

from tfm.cli import flags as command
from tfm.core import config, errors

if TYPE_CHECKING:
  from rich.text import Text

  from tfm.data.tokenizer import Learnt, Vocabulary

FLAGS = command.new('train | show PATH')
FLAGS.group('train')
FILES = flags.DEFINE_string('files', None, 'text: a path, a glob, a folder', flag_values=FLAGS)
KIND = flags.DEFINE_string(
  'kind',
  'bpe',
  'bpe, greedy, unigram, word or wordpiece. Fields are set as in unigram(longest=24)',
  flag_values=FLAGS,
)
SIZE = flags.DEFINE_integer('size', None, 'tokens without special tokens', flag_values=FLAGS)
SPECIALS = flags.DEFINE_list('specials', ['eos'], 'special tokens to add', flag_values=FLAGS)
CHAT = flags.DEFINE_bool('chat', False, 'add the tokens and template of ChatML', flag_values=FLAGS)
OUTPUT = flags.DEFINE_string('output', None, 'the new folder', flag_values=FLAGS)
FLAGS.group('show')
TEXT = flags.DEFINE_string('text', None, 'a text to encode', flag_values=FLAGS)

#: The numbers of tokens of a text and of a list that `show` prints, and the characters of text
#: that `train` measures.
_TOKENS, _LISTED, _MEASURED = 200, 10, 1 << 20


def main() -> None:
  """Run the action that the first word names."""
  action, *rest = FLAGS.words or ('',)
  if action == 'train' and not rest:
    _train()
  elif action == 'show' and len(rest) == 1:
    _show(rest[0])
  else:
    words = ' '.join(FLAGS.words) or 'nothing'
    raise errors.UserError(f'{words}: is no action. Expected train, or show with one path.')


def _train() -> None:
  """Learn a tokenizer and write its folder."""
  files, output = _needed('files', FILES.value), _needed('output', OUTPUT.value)
  from tfm.core.newfolder import check_new, new_folder
  from tfm.data import Text

  check_new(output)
  tokenizer, data = _kind(), Text(files=files, val_tail=0.0)
  start = time.monotonic()
  vocabulary = tokenizer.learn(data.streams, data.total_bytes())
  names = [*SPECIALS.value, *(('im_start', 'im_end') if CHAT.value else ())]
  vocabulary = vocabulary.with_specials(names)
  with new_folder(output) as folder:
    vocabulary.save(folder)
    _write_config(folder, vocabulary)
  parts = itertools.islice(itertools.chain.from_iterable(data.streams('train')), 1)
  sample = ''.join(parts)[:_MEASURED]
  print(
    f'{output}: {vocabulary.size:,} tokens, {_ratio(vocabulary, sample)} of the text, in '
    f"{time.monotonic() - start:.1f} s. data.tokenizer='file(path={output})' reads it."
  )


def _needed(name: str, value: str | None) -> str:
  if not value:
    raise errors.UserError(f'--{name}: is missing. Expected --{name}=PATH with train.')
  return value


def _kind() -> 'Learnt':
  """Return the tokenizer of `--kind` and `--size`.

  Raises:
    UserError: It learns nothing, or a field is invalid.
  """
  from tfm.data.tokenizer import TABLE, Learnt, Tokenizer

  tokenizer = config.parse(Tokenizer, KIND.value, '--kind')
  if not isinstance(tokenizer, Learnt):
    known = ', '.join(name for name, row in TABLE.items() if issubclass(row, Learnt))
    raise errors.UserError(f'--kind: {KIND.value} needs no training. Expected {known}.')
  if SIZE.value is not None:
    tokenizer = dataclasses.replace(tokenizer, vocab=SIZE.value)
  config.validate(tokenizer)
  return tokenizer


def _write_config(folder: Path, vocabulary: 'Vocabulary') -> None:
  """Write the settings that `transformers` reads, next to `tokenizer.json`."""
  from tfm.data.chat import CHATML
  from tfm.data.tokenizer import FILE
  from tfm.data.tokenizer.spelling import spellings

  (folder / FILE).unlink()  # A published folder needs only the other files.
  named = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')
  tokens = {f'{n}_token': spellings(n)[0] for n in vocabulary.specials if n in named}
  fields = {'tokenizer_class': 'PreTrainedTokenizerFast', **tokens}
  (folder / 'tokenizer_config.json').write_text(json.dumps(fields, indent=2) + '\n')
  if CHAT.value:
    (folder / 'chat_template.jinja').write_text(CHATML)


def _show(path: str) -> None:
  """Print the size, special tokens, longest tokens, and the tokens of `--text`."""
  from rich.console import Console

  from tfm.cli import sheets

  vocabulary = _read(Path(path).expanduser())
  texts, known = _texts(vocabulary), vocabulary.byte_lengths
  special = np.flatnonzero(vocabulary.is_special)
  rows = [
    ('tokens', f'{vocabulary.size:,}'),
    ('special tokens', f'{len(special):,}'),
    ('bytes of a token', 'depend on the text around it' if known is None else 'known'),
  ]
  names = {i: name for name, i in vocabulary.specials.items()}
  for i in special[:_LISTED]:
    rows.append((f'token {i}', f'{texts[i]} {names.get(int(i), "")}'.rstrip()))
  if TEXT.value:
    rows.append(('the text', _ratio(vocabulary, TEXT.value)))
  lengths = list(map(len, texts)) if known is None else known.tolist()
  order = sorted(set(range(vocabulary.size)) - set(special.tolist()), key=lambda i: -lengths[i])
  longest = tuple((str(i), repr(texts[i])) for i in order[:_LISTED])
  tables = [
    sheets.Sheet(path, ('property', 'value'), tuple(rows)),
    sheets.Sheet('longest', ('id', 'token'), longest),
  ]
  sheets.show(tables, False)
  if TEXT.value:
    Console(highlight=False).print(_coloured(texts, vocabulary.prompt(TEXT.value).tolist()))


def _coloured(texts: Sequence[str], ids: Sequence[int]) -> 'Text':
  """Return the tokens in brackets and in two colours."""
  from rich.text import Text

  line = Text()
  for i, token in enumerate(ids[:_TOKENS]):
    line.append(f'[{texts[token]}]', style=('cyan', 'magenta')[i % 2])
  if len(ids) > _TOKENS:
    line.append(f' ... {len(ids) - _TOKENS:,} more')
  return line


def _read(path: Path) -> 'Vocabulary':
  """Return the tokenizer of a file, a published folder or a workdir.

  Raises:
    UserError: There is none.
  """
  from tfm.data.tokenizer import File
  from tfm.data.tokenizer.published import read_tokenizer

  if path.is_file() and path.suffix == '.json':
    return File(str(path)).learn(lambda split: ())
  found = read_tokenizer(path) if path.is_dir() else None
  if found is None:
    from tfm import hub

    found = hub.describe(path).tokenizer
  if found is None:
    raise errors.UserError(f'{path}: has no tokenizer. Expected tokenizer files.')
  return found


def _texts(vocabulary: 'Vocabulary') -> list[str]:
  """Return the text of each token. Incomplete characters are in hexadecimal digits."""
  table = vocabulary.token_bytes()
  if table is None:
    texts = [vocabulary.decode([i]) for i in range(vocabulary.size)]
  else:
    texts = [_printable(content) for content in table] + [''] * (vocabulary.size - len(table))
  added = {i: text for text, i in vocabulary.added_texts.items()}
  inner: Any = getattr(vocabulary, 'inner', None)
  for i in np.flatnonzero(vocabulary.is_special).tolist():
    texts[i] = added.get(i) or (inner.id_to_token(i) if inner else None) or f'<{i}>'
  return texts


def _printable(content: bytes) -> str:
  try:
    return content.decode()
  except UnicodeDecodeError:
    return f'<{content.hex()}>'


def _ratio(vocabulary: 'Vocabulary', text: str) -> str:
  """Return how many bytes a token of a text has."""
  count = len(vocabulary.encode(text))
  size = len(text.encode())
  return f'{size / max(1, count):.2f} bytes per token'
