"""Conversations for supervised fine-tuning, with a loss on the answers only."""

from collections.abc import Iterator
import dataclasses
from pathlib import Path
import re
from typing import Any, Literal

import numpy as np

from tfm.core.errors import UserError
from tfm.data import framing as framing_lib
from tfm.data.chat import CHATML, ChatTemplate
from tfm.data.chat.answers import Rendered, render_answers
from tfm.data.chat.dialogues import read_dialogues
from tfm.data.conversation_corpus import ConversationCorpus, write_conversations
from tfm.data.dataset import ArraySpec
from tfm.data.layout import Packing
from tfm.data.store import default_cache, open_store
from tfm.data.text import Text
from tfm.data.textdata import TextData
from tfm.data.tokenizer import File, Vocabulary
from tfm.data.tokenizer.published import special_texts
from tfm.data.tokenizer.spelling import spellings

#: The special tokens of ChatML.
_CHATML = ('im_start', 'im_end')


@dataclasses.dataclass(frozen=True)
class Conversations(TextData):
  """Conversations in files of JSON lines, rendered by a chat template.

  A line is `{"messages": [{"role": "user", "content": "..."}, ...]}`, or has "conversations" with
  "from" and "value" (ShareGPT). An optional "tools" lists JSON schemas of functions.

  Only the answers have a loss: the text of the messages with the role "assistant", and the special
  token that ends them. As in `tfm generate --chat`, the spelling of a special token in a message
  becomes that token. Conversations longer than a sequence lose their end. Conversations without an
  answer are left out. A warning counts both.

  Attributes:
    files: A path, a glob, a folder (all files below it), or several of them with commas.
    val_files: The validation files, in the same form.
    val_every: Without `val_files`, every n-th conversation is for validation. 0 holds out none.
    template: The chat template: chatml, the path of a Jinja file, or a folder with a template.
      Defaults to that of the tokenizer's folder, or to chatml for learnt tokenizers.
    packing: How conversations fill sequences (see `TextData`). The default packs whole ones, which
      cannot attend to each other.
  """

  files: str = ''
  val_files: str = ''
  val_every: int = 50
  template: str = ''
  packing: Literal['auto', Packing] = 'best_fit'

  def open(self, task: Any) -> ConversationCorpus:
    published, template, window = self._published(), self.chat_template(), task.window(self.length)
    names = _CHATML if template.templates['default'] == CHATML else ()

    def vocabulary() -> Vocabulary:
      if published is None:
        learnt = self.tokenizer.learn(self.streams, self.total_bytes())
        return learnt.with_specials(('eos', *names))
      return framing_lib.with_new_tokens(published, names, self.new_tokens)

    def write(folder: Path) -> None:
      write_conversations(folder, vocabulary(), self.rendered, window)

    identity = {
      'source': self.identity(), 'tokenizer': self.tokenizer.identity(), 'window': window,
      'template': [dict(template.templates), dict(template.tokens)], 'new': self.new_tokens,
    }  # fmt: skip
    cache = Path(self.cache).expanduser() if self.cache else default_cache()
    store = open_store(cache, identity, write)
    specials = task.specials(self.length)
    if published is None:
      known = store.vocabulary.with_specials(specials)
    else:
      known = framing_lib.with_new_tokens(store.vocabulary, specials, self.new_tokens)
    corpus = ConversationCorpus(
      store, known, window, task.overlap, batch=self.batch, packing=self.packed
    )
    corpus.report()
    folder = self._tokenizer_folder()
    of_folder = folder is not None and self.template in ('', str(folder))
    corpus.keep_files(None if of_folder else template, folder)
    return corpus

  def specs(self) -> dict[str, ArraySpec]:
    loss = ArraySpec((self.batch, self.length), np.int32, 'BT')
    return {**super().specs(), 'loss': loss}

  def chat_template(self) -> ChatTemplate:
    """Return the chat template that renders the conversations.

    Raises:
      UserError: There is no template, or it cannot be read.
    """
    folder = self._tokenizer_folder()
    tokens = {'eos_token': spellings('eos')[0]} if folder is None else special_texts(folder)
    if self.template == 'chatml' or not (self.template or self._published()):
      return ChatTemplate({'default': CHATML}, tokens, 'data.template')
    path = Path(self.template).expanduser() if self.template else folder
    if path is not None and path.is_file():
      return ChatTemplate({'default': path.read_text('utf-8')}, tokens, str(path))
    found = None if path is None else ChatTemplate.read(path)
    if found is None:
      raise UserError(
        f'data.template: {path or "the tokenizer"} has no chat template. Expected chatml, the path '
        'of a Jinja file, or a folder with a chat template.'
      )
    return found

  def rendered(self, split: str) -> Iterator[tuple[str, Rendered]]:
    """Yield each conversation of a split: its file and line, and its text.

    Raises:
      UserError: A file cannot be read, or the template rejects a conversation.
    """
    template, number = self.chat_template(), 0
    for path in self._paths('val' if split == 'val' and self.val_files else 'train'):
      for dialogue in read_dialogues(path):
        number += 1
        if not self.val_files and self._held_out(number) != (split == 'val'):
          continue
        try:
          yield dialogue.where, render_answers(template, dialogue.messages, dialogue.tools)
        except UserError as error:
          raise UserError(f'{dialogue.where}: {error}') from error

  def streams(self, split: str) -> Iterator[list[str]]:
    """Yield the text between special tokens, from which a tokenizer learns."""
    spelled = (spellings(name)[0] for name in ('eos', *_CHATML))
    pattern = re.compile('|'.join(map(re.escape, spelled)))
    for _, rendered in self.rendered(split):
      yield from ([part] for part in pattern.split(rendered.text) if part)

  def documents(self, split: str) -> Iterator[str]:
    return (rendered.text for _, rendered in self.rendered(split))

  def identity(self) -> dict[str, Any]:
    return {'data': 'conversations', 'val_every': self.val_every, **self._source().identity()}

  def check_sources(self) -> None:
    self._source().check_sources()

  def total_bytes(self) -> int | None:
    return self._source().total_bytes()

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.files:
      yield 'files: is empty. Expected a path, a glob, a folder, or several of them with commas.'
    if self.val_every < 0 or self.val_every == 1:
      yield f'val_every: is {self.val_every}. Expected 2 or more, or 0 to hold out nothing.'
    for name in ('begin', 'end'):
      if getattr(self, name) != 'auto':
        yield f'{name}: is {getattr(self, name)}, but the chat template decides. Expected auto.'

  def _source(self) -> Text:
    """Return the files as a source of text, which finds and stamps them."""
    return Text(files=self.files, val_files=self.val_files, val_tail=0.0)

  def _paths(self, split: str) -> list[Path]:
    stamps = self._source().identity()['val_files' if split == 'val' else 'files']
    return [Path(path) for path, *_ in stamps]

  def _held_out(self, number: int) -> bool:
    return bool(self.val_every) and number % self.val_every == 0

  def _tokenizer_folder(self) -> Path | None:
    """Return the folder of a published tokenizer, else None."""
    if not isinstance(self.tokenizer, File):
      return None
    path = Path(self.tokenizer.path).expanduser()
    return path if path.is_dir() else path.parent
