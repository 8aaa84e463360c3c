"""Tokenised conversations on disk, and their sequences with a loss on the answers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import itertools
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfm.core.errors import UserError
from tfm.data.array_store import write_arrays
from tfm.data.chat import ChatTemplate
from tfm.data.chat.answers import Rendered
from tfm.data.corpus import Corpus, RawBatch
from tfm.data.layout import Layout
from tfm.data.progress import Progress
from tfm.data.tokenizer import Vocabulary
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.published.folder import read_json
from tfm.data.tokenizer.spelling import spellings

#: Conversations that are encoded together.
_BATCH = 256
_COUNTS = 'conversations.json'
_GENERATION = 'generation_config.json'
#: The folder of these files in a checkpoint. `tfm.hub.files` reads it.
_KEPT = 'published'
#: The text of the warning for each reason in `_Counts`.
_REASONS = {
  'truncated': 'are longer than {window} tokens and lose their end (data.length)',
  'without_answer': 'have no answer in {window} tokens and are left out',
  'unplaced': 'have answers without a loss, because the template changes them once other messages '
  'follow. A template with {{% generation %}} around answers gives them one',
}


class Encoded(NamedTuple):
  """The tokens of a conversation.

  Attributes:
    ids: Token ids, int32 [n].
    loss: Whether the model writes the token, bool [n].
    ends: The special tokens that end answers.
  """

  ids: NDArray[np.int32]
  loss: NDArray[np.bool_]
  ends: set[int]


def encode(vocabulary: Vocabulary, batch: Sequence[Rendered]) -> Iterator[Encoded]:
  """Yield the tokens of each conversation, and which of them the model writes.

  An answer ends with its last special token. White space after that belongs to the template.

  Args:
    vocabulary: The vocabulary.
    batch: The conversations.

  Yields:
    The tokens of a conversation.
  """
  is_special = vocabulary.is_special
  for rendered, (ids, at) in zip(batch, _cut(vocabulary, batch), strict=True):
    loss, ends = np.zeros(len(ids), np.bool_), set()
    for start, stop in rendered.answers:
      first, last = at[start], at[stop]
      special = first + np.flatnonzero(is_special[ids[first:last]])
      if special.size and not vocabulary.decode(ids[special[-1] : last]).strip():
        last = special[-1] + 1
        ends.add(int(ids[special[-1]]))
      loss[first:last] = True
    yield Encoded(ids, loss, ends)


def _cut(
  vocabulary: Vocabulary, batch: Sequence[Rendered]
) -> Iterator[tuple[NDArray[np.int32], dict[int, int]]]:
  """Yield the ids of each text, and the number of ids before each start and end of an answer."""
  cuts = [sorted({*itertools.chain(*rendered.answers)}) for rendered in batch]
  parts: list[list[str]] = []
  for rendered, at in zip(batch, cuts, strict=True):
    ends = itertools.pairwise([0, *at, len(rendered.text)])
    parts.append([rendered.text[a:b] for a, b in ends])
  whole = vocabulary.prompt_batch([rendered.text for rendered in batch])
  first = vocabulary.prompt_batch([texts[0] for texts in parts])
  later = [text for texts in parts for text in texts[1:]]
  rest = iter(vocabulary.continuation.prompt_batch(later))
  for rendered, at, ids, start in zip(batch, cuts, whole, first, strict=True):
    pieces = [start, *itertools.islice(rest, len(at))]
    joined, counts = np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces])
    if not np.array_equal(ids, joined):
      before = vocabulary.prompt_batch([rendered.text[:cut] for cut in at])
      if all(np.array_equal(ids[: len(piece)], piece) for piece in before):
        joined, counts = ids, np.array([len(piece) for piece in before])
      # Else a token crosses the start of an answer. In generation the prompt ends there, so the
      # parts stay separate.
    yield joined, dict(zip(at, counts.tolist(), strict=False))


@dataclasses.dataclass
class _Counts:
  """The number of conversations that are changed or left out, by reason, and the first of each."""

  window: int
  conversations: int = 0
  counts: dict[str, int] = dataclasses.field(default_factory=dict)
  first: dict[str, str] = dataclasses.field(default_factory=dict)
  ends: list[int] = dataclasses.field(default_factory=list)

  def add(self, where: str, rendered: Rendered, encoded: Encoded) -> bool:
    """Count a conversation. Return whether it has an answer."""
    answered = bool(encoded.loss[1 : self.window].any())
    found = {
      'truncated': answered and len(encoded.ids) > self.window,
      'without_answer': not answered,
      'unplaced': rendered.missing > 0,
    }
    self.conversations += 1
    for reason in filter(found.get, found):
      self.counts[reason] = self.counts.get(reason, 0) + 1
      self.first.setdefault(reason, where)
    return answered

  def lines(self) -> Iterator[str]:
    """Yield a sentence for each reason."""
    for name, text in _REASONS.items():
      if name in self.counts:
        yield (
          f'data: {self.counts[name]:,} of {self.conversations:,} conversations '
          f'{text.format(window=self.window)}. The first is {self.first[name]}.'
        )


def write_conversations(
  folder: Path,
  vocabulary: Vocabulary,
  conversations: Callable[[str], Iterable[tuple[str, Rendered]]],
  window: int,
) -> None:
  """Write the tokens of conversations to `folder`, as 2 * id + loss.

  Args:
    folder: An empty folder.
    vocabulary: Encodes the text.
    conversations: Returns the conversations of a split: the place of each, and its text.
    window: Tokens of a sequence. The end of a longer conversation is left out.

  Raises:
    UserError: No conversation for training has an answer.
  """
  counts, ends = _Counts(window), set[int]()

  def numbers(split: str) -> Iterator[tuple[NDArray[Any], int]]:
    source = iter(conversations(split))
    while batch := list(itertools.islice(source, _BATCH)):
      texts = [rendered for _, rendered in batch]
      for (where, rendered), encoded in zip(batch, encode(vocabulary, texts), strict=True):
        progress.advance(1)
        ends.update(encoded.ends)
        if counts.add(where, rendered, encoded):
          yield (2 * encoded.ids + encoded.loss)[:window], len(rendered.text.encode())

  with Progress('tokenising conversations', None, of_bytes=False) as progress:
    write_arrays(folder, vocabulary, numbers, 2 * vocabulary.size)
  counts.ends = sorted(ends)
  (folder / _COUNTS).write_text(json.dumps(dataclasses.asdict(counts)), 'utf-8')
  if not (folder / 'train.bin').exists():
    problems = ' '.join(counts.lines()) or 'data: there are no conversations.'
    raise UserError(f'{problems} Expected conversations with an answer to train on.')


class ConversationCorpus(Corpus):
  """Sequences of conversations. `loss`, int32 [b, window], is 1 where the model writes the token.

  Attributes:
    files: Files that checkpoints keep, by their paths, so that `tfm generate --chat` renders
      messages as in training.
  """

  files: Mapping[str, bytes] = {}

  def _raw(self, layout: Layout, *args: Any) -> RawBatch:
    raw = super()._raw(layout, *args)
    numbers = raw['tokens']
    return {**raw, 'tokens': numbers >> 1, 'loss': numbers & 1}

  def report(self) -> None:
    """Log a warning about conversations that were changed or left out."""
    for line in self._counts().lines():
      logging.getLogger(__name__).warning('%s', line)

  def keep_files(self, template: ChatTemplate | None, folder: Path | None) -> None:
    """Set `files`.

    Args:
      template: The chat template, or None if it is that of the published folder.
      folder: The folder of a published tokenizer, or None.
    """
    ends = self._counts().ends
    fields = {} if folder is None else read_json(folder / _GENERATION)
    stated = fields.get('eos_token_id')
    known = [*(stated if isinstance(stated, list) else [stated]), self.vocabulary.eos]
    known = [token for token in known if token is not None]
    files: dict[str, bytes] = {}
    if set(ends) - set(known):
      settings = {**fields, 'eos_token_id': list(dict.fromkeys([*ends, *known]))}
      files[_GENERATION] = json.dumps(settings, indent=2).encode()
    if template is not None:
      files['chat_template.jinja'] = template.templates['default'].encode()
    if folder is None and isinstance(self.vocabulary, FileVocabulary):
      config = {'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': spellings('eos')[0]}
      files['tokenizer_config.json'] = json.dumps(config, indent=2).encode()
    self.files = {f'{_KEPT}/{name}': content for name, content in files.items()}

  def _counts(self) -> _Counts:
    return _Counts(**json.loads((self.store.path / _COUNTS).read_text('utf-8')))
