"""Tokenizers that split at white space: CTRL, Blenderbot Small, PhoBERT and ESM."""

from collections.abc import Mapping, Sequence
import functools
import itertools
import json
from pathlib import Path
import re
from typing import Any

from tfm.core import errors
from tfm.data.tokenizer.published.splitter import Splitter


class MarkedPairs(Splitter):
  """Byte pairs of words. `@@` marks a token that the next token continues."""

  files = ('vocab.json', 'merges.txt')
  mark = '@@'

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    self.numbers, merges = self.read(folder)
    self.ranks = {merge: rank for rank, merge in enumerate(merges)}
    self.texts = {number: text for text, number in self.numbers.items()}

  def read(self, folder: Path) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    """Return the ids of tokens, and the merges."""
    numbers = json.loads((folder / 'vocab.json').read_text('utf-8'))
    lines = (folder / 'merges.txt').read_text('utf-8').split('\n')[1:-1]
    return numbers, [tuple(line.split()) for line in lines]

  def vocab(self) -> dict[str, int]:
    return self.numbers

  def split(self, text: str) -> list[str]:
    return [token for word in re.findall(r'\S+\n?', text) for token in self.tokens_of(word)]

  def tokens_of(self, word: str) -> Sequence[str]:
    """Return the tokens of a run of text without spaces."""
    return self.pairs(word)

  @functools.lru_cache(maxsize=1 << 16)
  def pairs(self, word: str) -> tuple[str, ...]:
    """Return the tokens of a word."""
    parts = [*word[:-1], word[-1] + '</w>']
    if len(parts) == 1:
      return tuple(word.split(' '))
    while len(parts) > 1:
      best = min(itertools.pairwise(parts), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
      if best not in self.ranks:
        break
      parts = _merged(parts, best)
    return tuple('@@ '.join(parts)[: -len('</w>')].split(' '))

  def number(self, token: str) -> int:
    return self.numbers.get(token, self.numbers[self.unknown])

  def token(self, number: int) -> str:
    return self.texts.get(number, self.unknown)

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    del special
    return ' '.join(tokens).replace('@@ ', '').strip()


class Ctrl(MarkedPairs):
  """The tokenizer of CTRL."""

  tokens = {'unk_token': '<unk>'}


class BlenderbotSmall(MarkedPairs):
  """Blenderbot Small: lower case, separate punctuation, and a token for new lines."""

  tokens = {
    'bos_token': '__start__',
    'eos_token': '__end__',
    'unk_token': '__unk__',
    'pad_token': '__null__',
  }

  def tokens_of(self, word: str) -> Sequence[str]:
    word = re.sub('([.,!?()])', r' \1', word)
    word = re.sub(r'\s{2,}', ' ', re.sub("(')", r' \1 ', word)).replace('\n', ' __newln__')
    parts = [' '.join(self.pairs(part.lower())) for part in word.split(' ') if part]
    return ' '.join(parts).split(' ')

  def number(self, token: str) -> int:
    return super().number(token.lower())


class PhoBert(MarkedPairs):
  """PhoBERT: four special tokens, then fairseq's dictionary of words and counts."""

  files = ('vocab.txt', 'bpe.codes')
  tokens = {
    'bos_token': '<s>', 'eos_token': '</s>', 'sep_token': '</s>', 'cls_token': '<s>',
    'unk_token': '<unk>',
    'pad_token': '<pad>', 'mask_token': '<mask>',
  }  # fmt: skip

  def read(self, folder: Path) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    special = [str(self.fields[f'{name}_token']) for name in ('bos', 'pad', 'eos', 'unk')]
    entries = (folder / 'vocab.txt').read_text('utf-8').splitlines()
    words = [entry.strip().rpartition(' ')[0] for entry in entries]
    numbers: dict[str, int] = {}
    for word in [*special, *words]:
      numbers[word] = len(numbers)
    lines = (folder / 'bpe.codes').read_text('utf-8').split('\n')[:-1]
    return numbers, [tuple(line.split()[:-1]) for line in lines]

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    return [named['cls_token'], *ids, named['sep_token']]


class BerTweet(PhoBert):
  """BERTweet, for tweets that are already normalised."""

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    if fields.get('normalization'):
      raise errors.UserError(
        f'{folder}: normalization is true, but tfm lacks the rules of NLTK for tweets. Expected '
        'false, and normalised text.'
      )


class Esm(Splitter):
  """ESM: each line of `vocab.txt` is a token, matched anywhere in a text."""

  files = ('vocab.txt',)
  tokens = {
    'unk_token': '<unk>', 'cls_token': '<cls>', 'pad_token': '<pad>', 'mask_token': '<mask>',
    'eos_token': '<eos>',
  }  # fmt: skip

  def __init__(self, folder: Path, fields: dict[str, Any]):
    super().__init__(folder, fields)
    lines = (folder / 'vocab.txt').read_text('utf-8').splitlines()
    self.texts = [line.strip() for line in lines]
    self.numbers = {text: i for i, text in enumerate(self.texts)}

  def vocab(self) -> dict[str, int]:
    return self.numbers

  def whole(self) -> Sequence[str]:
    return self.texts

  def split(self, text: str) -> list[str]:
    return text.split()

  def number(self, token: str) -> int:
    return self.numbers.get(token, self.numbers[self.unknown])

  def token(self, number: int) -> str:
    return self.texts[number] if number < len(self.texts) else self.unknown

  def join(self, tokens: Sequence[str], special: frozenset[str]) -> str:
    del special
    return ' '.join(tokens)

  def frame(self, ids: list[int], named: Mapping[str, int]) -> list[int]:
    return [named['cls_token'], *ids, *([named['eos_token']] if 'eos_token' in named else [])]


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
  merged, at = [], 0
  while at < len(parts):
    if (*parts[at : at + 2],) == pair:
      merged.append(parts[at] + parts[at + 1])
      at += 2
    else:
      merged.append(parts[at])
      at += 1
  return merged


SPLITTERS: dict[str, type[Splitter]] = {
  'CTRLTokenizer': Ctrl,
  'BlenderbotSmallTokenizer': BlenderbotSmall,
  'EsmTokenizer': Esm,
  'PhobertTokenizer': PhoBert,
  'BertweetTokenizer': BerTweet,
}
