"""Any `tokenizer.json` of Hugging Face `tokenizers`, and the vocabulary class that wraps one."""

from collections.abc import Iterable, Sequence
import copy
import dataclasses
import functools
import hashlib
import json
from pathlib import Path
import re
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
import tokenizers

from tfm.core.errors import UserError
from tfm.data.tokenizer.base import Documents, Tokenizer, Vocabulary

_SPACE = '▁'
#: What published tokenizers call our specials; the first name is the one we give to a new one.
NAMES = {
  'eos': ('<|endoftext|>', '</s>', '<|end_of_text|>', '<eos>', '[SEP]'),
  'pad': ('<|pad|>', '<pad>', '[PAD]'),
  'cls': ('<|cls|>', '[CLS]', '<s>', '<cls>', '<bos>'),
  'mask': ('<|mask|>', '<mask>', '[MASK]'),
}
# GPT-2's pre-tokenizer never joins a space to what stands before it, so text may be cut here without changing a token.
_BEFORE_SPACE = re.compile(r'(?<=\S)(?=[ \t\n\r\f\v])')
_LAST_SPACE = re.compile(r'.*\S(?=[ \t\n\r\f\v])', re.DOTALL)
# Where other tokenizers may let themselves be cut: they are asked, with so many characters on either side.
_MAYBE = re.compile(r'(?<=\S)(?=[ \n])|(?<=\n)(?=\S)')
_ASIDE = 1000
_TRIES = 32
# Pre-tokenizers that look no further than that; others could part words by a count from the start of the text.
_NEARSIGHTED = {
  'BertPreTokenizer', 'ByteLevel', 'CharDelimiterSplit', 'Digits', 'Metaspace', 'Punctuation', 'Split',
  'UnicodeScripts', 'Whitespace', 'WhitespaceSplit',
}  # fmt: skip


class FileVocabulary(Vocabulary):
  """A `tokenizers.Tokenizer`; specials it already has (`</s>`, `[MASK]`, `<extra_id_0>`) are found by their names.

  `framed` says that prompts get the special tokens around them that its own template has, as a published model was
  trained to see; text to train on never does.
  """

  kind: ClassVar[str] = 'tokenizers'

  def __init__(
    self,
    inner: tokenizers.Tokenizer,
    specials: dict[str, int] | None = None,
    base: int | None = None,
    framed: bool = False,
  ):
    inner.no_padding()
    inner.no_truncation()
    # Without this a text that quotes '<|endoftext|>' would end its document.
    inner.encode_special_tokens = True
    super().__init__(inner.get_vocab_size(with_added_tokens=True) if base is None else base, specials)
    self.inner, self.framed = inner, framed
    self._layout = json.loads(inner.to_str())
    self._own = {t['id'] for t in self._layout.get('added_tokens', ()) if t['special']}

  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    if not self._splits_at_spaces:
      return self._encode(texts)
    # Words come again and again: encoding each once is several times faster than encoding the text.
    index: dict[str, int] = {}
    words = [[index.setdefault(w, len(index)) for w in _BEFORE_SPACE.split(text)] for text in texts]
    encoded = self._encode(list(index))
    return [np.concatenate([encoded[i] for i in row]) for row in words]

  def cut(self, text: str) -> int:
    if self._splits_at_spaces:
      return before_space(text)
    if not self._local:
      return 0
    last = max(0, len(text) - _ASIDE)
    start = max(0, last - 100 * _ASIDE)
    places = [start + match.end() for match in _MAYBE.finditer(text[start:last])]
    return next((at for at in places[::-1][:_TRIES] if self._parts(text, at)), 0)

  @functools.cached_property
  def onward(self) -> 'FileVocabulary':
    """The same, which puts no space before the text: there it would stand for one that the text has not."""
    steps = self._layout.get('normalizer') or {}
    found = steps.get('normalizers', [steps])
    if not any(step.get('type') == 'Prepend' for step in found):
      return self
    left = {'type': 'Sequence', 'normalizers': [step for step in found if step['type'] != 'Prepend']}
    inner = tokenizers.Tokenizer.from_str(json.dumps({**self._layout, 'normalizer': left}))
    return FileVocabulary(inner, self.specials, self.base, self.framed)

  def _parts(self, text: str, at: int) -> bool:
    """Whether what stands near the place `at` is encoded the same in two as in one."""
    before, after = text[max(0, at - _ASIDE) : at], text[at : at + _ASIDE]
    ids = lambda coder, part: coder.encode(part, add_special_tokens=False).ids
    onward = self.onward.inner
    # What stands before is the middle of the text, too.
    if ids(onward, before + after) != ids(onward, before) + ids(onward, after):
      return False
    whole, first, second = (_words(onward, part) for part in (before + after, before, after))
    starts = second[:1] and second[0].startswith(_SPACE) and first[-1:] and not first[-1].endswith(_SPACE)
    return whole == first + second or bool(starts and self._joins_no_spaces)

  @functools.cached_property
  def _local(self) -> bool:
    """Whether its pre-tokenizers decide by what stands near."""
    before = self._layout.get('pre_tokenizer')
    steps = (before.get('pretokenizers') or [before]) if before else []
    return all(step['type'] in _NEARSIGHTED for step in steps)

  @functools.cached_property
  def _joins_no_spaces(self) -> bool:
    """Whether no token goes on over the start of a word, as where merges were learnt within words only."""
    model = self._layout['model']
    known = model.get('vocab') or {}
    within = re.compile(f'[^{_SPACE}]{_SPACE}')
    return model['type'] == 'BPE' and _SPACE in known and not any(map(within.search, known))

  def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    return [np.array(e.ids, np.int32) for e in self.inner.encode_batch_fast(list(texts), add_special_tokens=False)]

  def prompt(self, text: str) -> NDArray[np.int32]:
    return np.array(self.inner.encode(text, add_special_tokens=self.framed).ids, np.int32)

  def token_bytes(self) -> list[bytes] | None:
    if not self._byte_level:
      return None
    table = [b''] * self.base
    for piece, i in self.inner.get_vocab(with_added_tokens=True).items():
      if i < self.base and i not in self._own:
        known = all(c in _BYTE_OF for c in piece)
        table[i] = bytes(_BYTE_OF[c] for c in piece) if known else piece.encode()
    return table

  def decode(self, ids: Iterable[int]) -> str:
    if self._byte_level:
      return super().decode(ids)
    return self.inner.decode([i for i in self._checked(ids) if i < self.base], skip_special_tokens=True)

  @property
  def is_special(self) -> NDArray[np.bool_]:
    table = super().is_special
    table[list(self._own)] = True
    return table

  def with_specials(self, names: Sequence[str]) -> 'FileVocabulary':
    found = copy.copy(self)
    found.specials = {**self._named(names), **self.specials}
    out = super(FileVocabulary, found).with_specials(names)
    assert isinstance(out, FileVocabulary)
    return out

  def finds(self, name: str) -> bool:
    """Whether the tokenizer has a token of its own for the special `name`."""
    return name in self._named([name])

  def state(self) -> dict[str, Any]:
    return {'tokenizer.json': self._layout} | ({'framed': True} if self.framed else {})

  @classmethod
  def from_state(cls, state: dict[str, Any]) -> 'FileVocabulary':
    inner = tokenizers.Tokenizer.from_str(json.dumps(state['tokenizer.json']))
    return cls(inner, state['specials'], state['base'], state.get('framed', False))

  def save(self, directory: str | Path) -> None:
    """Also writes a `tokenizer.json` that `tokenizers` and `transformers` read, our specials included."""
    super().save(directory)
    whole = tokenizers.Tokenizer.from_str(self.inner.to_str())
    for name, i in sorted(self.specials.items(), key=lambda item: item[1]):
      if i >= self.base:
        whole.add_special_tokens([tokenizers.AddedToken(_written(name)[0], special=True, normalized=False)])
        assert whole.token_to_id(_written(name)[0]) == i
    whole.save(str(Path(directory) / 'tokenizer.json'))

  def _named(self, names: Sequence[str]) -> dict[str, int]:
    ids = ((n, self.inner.token_to_id(text)) for n in names for text in reversed(_written(n)))
    return {name: i for name, i in ids if i is not None}

  @property
  def _splits_at_spaces(self) -> bool:
    before = self._layout.get('pre_tokenizer') or {}
    special = all(t['special'] for t in self._layout.get('added_tokens', ()))
    return self._byte_level and special and before.get('type') == 'ByteLevel' and before.get('use_regex', False)

  @property
  def _byte_level(self) -> bool:
    """Whether a token is a run of bytes of the text itself: nothing is normalised away, no space is put in front."""
    prefixed = '"add_prefix_space": true' in json.dumps(self._layout.get('pre_tokenizer'))
    decoder = (self._layout.get('decoder') or {}).get('type')
    return decoder == 'ByteLevel' and not prefixed and not self._layout.get('normalizer')


@dataclasses.dataclass(frozen=True)
class File(Tokenizer):
  """The tokenizer that stands in the file `path`, a `tokenizer.json`."""

  path: str = ''

  def learn(self, documents: Documents, total: int | None = None) -> FileVocabulary:
    del documents, total
    self._content()
    try:
      inner = tokenizers.Tokenizer.from_file(self.path)
    except Exception as error:
      raise UserError(f'data.tokenizer.path: {self.path} is not a tokenizer.json: {error}.') from error
    return FileVocabulary(inner, framed=True)

  def given(self) -> FileVocabulary:
    return self.learn(lambda split: ())

  def identity(self) -> dict[str, Any]:
    return {'tokenizer': 'file', 'content': hashlib.sha256(self._content()).hexdigest()}

  def _content(self) -> bytes:
    try:
      return Path(self.path).expanduser().read_bytes()
    except OSError as error:
      raise UserError(
        f'data.tokenizer.path: cannot read {self.path!r}: {error.strerror}. A tokenizer.json was wanted.'
      ) from error

  def check(self):
    if not self.path:
      yield 'path: is empty. The path of a tokenizer.json was wanted.'


def before_space(text: str) -> int:
  """The last place of `text` before white space that follows something else; 0 if there is none."""
  found = _LAST_SPACE.match(text)
  return found.end() if found else 0


def _words(inner: tokenizers.Tokenizer, text: str) -> list[str]:
  """What the model is asked to encode, a word at a time."""
  text = inner.normalizer.normalize_str(text) if inner.normalizer else text
  return [word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text)] if inner.pre_tokenizer else [text]


def _written(name: str) -> tuple[str, ...]:
  return NAMES.get(name) or (f'<extra_id_{name.removeprefix("sentinel_")}>',)


def _byte_alphabet() -> dict[str, int]:
  """GPT-2's printable stand-ins of the 256 bytes: visible Latin-1 for itself, the rest from U+0100 on."""
  visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [b for b in range(256) if b not in visible]
  return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_alphabet()
