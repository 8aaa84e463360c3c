"""The files of a published folder other than its weights, kept byte for byte."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import fnmatch
import json
from pathlib import Path
import re
import tempfile
from typing import TYPE_CHECKING, Any, Self

from tfm.core import errors, json_text
from tfm.data import processors
from tfm.data.processors.processor import Processor

if TYPE_CHECKING:
  from tfm.data.chat import ChatTemplate

CONFIG, GENERATION = 'config.json', 'generation_config.json'
#: The subfolder of `about` with these files in a checkpoint of tfm.
KEPT = 'published'
#: Tokenizer files.
TOKENIZER = (
  'tokenizer.json', 'tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json',
  'vocab.json', 'vocab.txt', 'vocab-src.json', 'vocab-tgt.json', 'vocab.tgt', 'merges.txt',
  'bpe.codes', 'dict.txt', 'entity_vocab.json', 'emoji.json', 'normalizer.json',
  'prophetnet.tokenizer', 'sentencepiece.bpe.vocab', 'tokenizer.tekken', 'tekken.json',
  'word_shape.json', 'word_pronunciation.json', '*.model', '*.spm', '*.tiktoken', '*.codes',
)  # fmt: skip
#: Files with chat templates or with the special tokens in them.
CHAT = (
  'chat_template.jinja', 'chat_template.json', 'additional_chat_templates/*.jinja',
  'tokenizer_config.json', 'special_tokens_map.json', 'config.json',
)  # fmt: skip
#: Other files: configs, chat templates, sentence-transformers' files, model cards and licences.
_OTHERS = (
  CONFIG, GENERATION, *processors.FILES, *CHAT, 'modules.json', 'sentence_bert_config.json',
  'config_sentence_transformers.json', '[0-9]_*/config.json',
  'README*', 'LICENSE*', 'LICENCE*', 'NOTICE*', 'USE_POLICY*', 'CITATION*', '*.bib',
)  # fmt: skip

#: Names of config fields that hold token ids.
_IDS = re.compile(
  r'(_token_ids?|_token_index|_words_ids|suppress_tokens|decoder_ids|sequence_bias|_to_id)$'
)


class FolderFiles(Mapping[str, bytes]):
  """File contents by relative path, such as 'additional_chat_templates/rag.jinja'.

  Attributes:
    folder: The folder that the files were read from, for errors.

  Example:
    >>> files = FolderFiles({'config.json': b'{"model_type": "llama"}'})
    >>> files.json('config.json'), files.json('generation_config.json'), files
    ({'model_type': 'llama'}, {}, FolderFiles(config.json))
  """

  def __init__(self, files: Mapping[str, bytes], folder: str | Path = ''):
    self._files, self.folder = dict(files), Path(folder)

  def __getitem__(self, name: str) -> bytes:
    return self._files[name]

  def __iter__(self) -> Iterator[str]:
    return iter(self._files)

  def __len__(self) -> int:
    return len(self._files)

  def __repr__(self) -> str:
    return f'FolderFiles({", ".join(self._files)})'

  @classmethod
  def read(cls, folder: Path) -> Self:
    """Return the files in a published folder or a checkpoint of tfm, other than weights."""
    about = folder / 'about'
    if (about / KEPT).is_dir():
      return cls(_contents(about / KEPT, ('**',)), about / KEPT)
    if about.is_dir():
      return cls(_of_older_checkpoint(about), about)
    return cls(_contents(folder, (*TOKENIZER, *_OTHERS)), folder)

  @classmethod
  def of_processor(cls, processor: processors.Processor) -> Self:
    """Return the config file of a processor."""
    text = json.dumps(processor.to_config(), indent=2, sort_keys=True) + '\n'
    return cls({processors.FILE: text.encode()})

  def json(self, name: str) -> dict[str, Any]:
    """Return the fields of a JSON file, empty if the file is missing.

    Raises:
      UserError: The file is not a JSON object.
    """
    return parse_fields(self[name], str(self.folder / name)) if name in self else {}

  def processor(self) -> Processor | None:
    """Return the image or audio processor, None if no file configures one.

    Raises:
      ConfigError: The files name an unsupported class or option.
    """
    files = {name: self[name] for name in processors.FILES if name in self}
    return processors.from_files(files, self.json(CONFIG).get('model_type')) if files else None

  def chat_template(self) -> 'ChatTemplate | None':
    """Return the chat templates of the folder, None if it has none.

    Raises:
      UserError: A file cannot be read.
    """
    from tfm.data.chat import ChatTemplate

    with tempfile.TemporaryDirectory() as folder:
      self.only(CHAT).write(Path(folder))
      found = ChatTemplate.read(folder)
    return found and dataclasses.replace(found, where=str(self.folder))

  def with_files(self, files: Mapping[str, bytes]) -> Self:
    """Return a copy with some files added or replaced."""
    return type(self)({**self._files, **files}, self.folder)

  def only(self, patterns: Sequence[str]) -> Self:
    """Return the files that match any of the patterns, such as '*.jinja'."""
    return type(self)({name: self[name] for name in self if _matches(name, patterns)}, self.folder)

  def without(self, patterns: Sequence[str]) -> Self:
    """Return the files that match none of the patterns."""
    return type(self)(
      {name: self[name] for name in self if not _matches(name, patterns)}, self.folder
    )

  def write(self, folder: Path) -> None:
    """Write the files into a folder."""
    for name, content in self.items():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      (folder / name).write_bytes(content)

  def kept(self) -> dict[str, bytes]:
    """Return the files by their paths in the `about` folder of a checkpoint of tfm."""
    return {f'{KEPT}/{name}': content for name, content in self.items()}


def without_ids(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Return the fields of a config without token ids."""
  return {name: value for name, value in fields.items() if not _IDS.search(name)}


def fields_of(path: Path) -> dict[str, Any]:
  """Return the fields of a JSON file.

  Raises:
    UserError: The file cannot be read, or is not a JSON object.
  """
  try:
    content = path.read_bytes()
  except OSError as error:
    raise errors.UserError(
      f'{path}: cannot be read: {error.strerror}. Expected a JSON object.'
    ) from error
  return parse_fields(content, str(path))


def parse_fields(content: bytes, where: str) -> dict[str, Any]:
  """Parse the content of a JSON file.

  Args:
    content: The bytes of the file.
    where: The path of the file, for errors.

  Returns:
    The fields of the JSON object.

  Raises:
    UserError: The content is not a JSON object.
  """
  try:
    found = json_text.parse(content.decode('utf-8-sig'))
  except ValueError as error:
    raise errors.UserError(f'{where}: is not JSON ({error}). Expected a JSON object.') from error
  if not isinstance(found, dict):
    raise errors.UserError(f'{where}: holds a {type(found).__name__}. Expected a JSON object.')
  return found


def _matches(name: str, patterns: Sequence[str]) -> bool:
  return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _contents(folder: Path, patterns: tuple[str, ...]) -> dict[str, bytes]:
  paths = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
  if patterns == ('**',):  # It matches only folders before Python 3.13.
    paths |= {path for path in folder.rglob('*') if path.is_file()}
  return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def _of_older_checkpoint(about: Path) -> dict[str, bytes]:
  """Return the special tokens and processor files in a checkpoint of an earlier version."""
  found: dict[str, bytes] = {}
  if (tokens := about / 'tokens.json').is_file():
    found |= {name: json.dumps(fields).encode() for name, fields in fields_of(tokens).items()}
  if (kept := about / 'processor.json').is_file():
    fields = fields_of(kept)
    if not isinstance(fields.get('files'), dict):
      raise errors.UserError(f'{kept}: is damaged. Expected the file that tfm.hub.save writes.')
    found |= {
      name: text.encode('utf-8', 'surrogateescape') for name, text in fields['files'].items()
    }
    if fields.get('model_type') and CONFIG not in found:
      found[CONFIG] = json.dumps({'model_type': fields['model_type']}).encode()
  return found
