"""A vocabulary over a `tokenizers.Tokenizer`, such as a `tokenizer.json`."""

from collections.abc import Iterable, Iterator, Sequence
import contextlib
import copy
import dataclasses
import functools
import json
import os
from pathlib import Path
import re
import threading
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
import tokenizers

from tfm.data.tokenizer.base import Vocabulary
from tfm.data.tokenizer.decoding import Decoding
from tfm.data.tokenizer.limits import reported
from tfm.data.tokenizer.literal import literal
from tfm.data.tokenizer.spelling import spellings

_SPACE = '▁'
# GPT-2's pre-tokenizer never joins a space to the text before it, so text may be split here.
_BEFORE_SPACE = re.compile(r'(?<=\S)(?=[ \t\n\r\f\v])')
_LAST_SPACE = re.compile(r'.*\S(?=[ \t\n\r\f\v])', re.DOTALL)
# Possible split points of other tokenizers, each tried with `_CONTEXT` characters on both sides.
_CANDIDATES = re.compile(r'(?<=\S)(?=[ \n])|(?<=\n)(?=\S)')
_CONTEXT = 1000
_TRIES = 32
# Cores from which the library encodes whole texts faster than Python splits them into words.
_MANY_CORES = 4
# Pre-tokenizers that depend only on nearby text. Others could count from the start of the text.
_LOCAL = {
  'BertPreTokenizer', 'ByteLevel', 'CharDelimiterSplit', 'Digits', 'Metaspace', 'Punctuation',
  'Split',
  'UnicodeScripts', 'Whitespace', 'WhitespaceSplit',
}  # fmt: skip


# Matching of special tokens is a setting of the tokenizer, which threads share.
_LOCK = threading.Lock()
_CANNOT_ENCODE, _CANNOT_DECODE = 'tokenizer: cannot encode a text', 'tokenizer: cannot decode ids'


class FileVocabulary(Vocabulary):
  """A vocabulary over a `tokenizers.Tokenizer`.

  Its own special tokens (`</s>`, `[MASK]`, `<extra_id_0>`) are found by their usual spellings.
  `encode` is for training text: it adds no special tokens, and the spelling of a special token is
  ordinary text. `prompt` is for prompts: the spelling of a special token becomes that token. With
  `framed`, the template of the tokenizer adds special tokens around the prompt, as in the training
  of a published model.

  Args:
    inner: The tokenizer.
    specials: The ids of special tokens by name.
    base: The number of ids of the tokenizer. Ids above are tfm's special tokens.
    framed: Prompts get the special tokens of the tokenizer's template.
    decoding: Post-processing of decoded text, for published tokenizers. None for learnt ones.
    split_specials: Treat special tokens in prompts as ordinary text (`split_special_tokens`).
  """

  kind: ClassVar[str] = 'tokenizers'

  def __init__(
    self,
    inner: tokenizers.Tokenizer,
    specials: dict[str, int] | None = None,
    base: int | None = None,
    framed: bool = False,
    decoding: Decoding | None = None,
    split_specials: bool = False,
  ):
    inner.no_padding()
    inner.no_truncation()
    inner.encode_special_tokens = True
    super().__init__(
      inner.get_vocab_size(with_added_tokens=True) if base is None else base, specials
    )
    self.inner, self.framed = inner, framed
    self.decoding, self.split_specials = decoding, split_specials
    added = inner.get_added_tokens_decoder().items()
    self._special_ids = {number for number, token in added if token.special}
    self._only_special = len(self._special_ids) == len(added)

  @functools.cached_property
  def _layout(self) -> dict[str, Any]:
    """The content of `tokenizer.json`, which takes seconds to read for a large vocabulary."""
    return json.loads(self.inner.to_str())

  def _part(self, name: str) -> dict[str, Any]:
    """Return the layout of a part other than the model, such as 'pre_tokenizer'."""
    part = getattr(self.inner, name)
    return {} if part is None else json.loads(part.__getstate__())

  def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    if not self._splits_at_spaces or _cores() >= _MANY_CORES:
      return self._encode(texts)
    # Words repeat, so it takes less time to encode each word once. But Python splits the text on
    # one core, and the library uses all.
    index: dict[str, int] = {}
    words = []
    for text in texts:
      words.append([index.setdefault(w, len(index)) for w in _BEFORE_SPACE.split(text)])
    encoded = self._encode(list(index))
    join = lambda numbers: np.concatenate([encoded[i] for i in numbers])
    return [join(numbers) for numbers in words]

  def split_point(self, text: str) -> int:
    if self._splits_at_spaces:
      return before_space(text)
    if not self._is_local:
      return 0
    last = max(0, len(text) - _CONTEXT)
    start = max(0, last - 100 * _CONTEXT)
    candidates = [start + match.end() for match in _CANDIDATES.finditer(text[start:last])]
    with reported(_CANNOT_ENCODE):
      return next((at for at in candidates[::-1][:_TRIES] if self._may_split(text, at)), 0)

  @functools.cached_property
  def continuation(self) -> 'FileVocabulary':
    """The same vocabulary, but without a space before the text."""
    normalizer, words = self._part('normalizer'), self._part('pre_tokenizer')
    steps = normalizer.get('normalizers', [normalizer])
    changed = {}
    if any(step.get('type') == 'Prepend' for step in steps):
      kept = [step for step in steps if step['type'] != 'Prepend']
      changed['normalizer'] = {'type': 'Sequence', 'normalizers': kept}
    if words.get('type') == 'Metaspace' and words.get('prepend_scheme') == 'first':
      changed['pre_tokenizer'] = {**words, 'prepend_scheme': 'never'}
    if not changed:
      return self
    inner = tokenizers.Tokenizer.from_str(json.dumps({**self._layout, **changed}))
    return FileVocabulary(
      inner, self.specials, self.base, self.framed, self.decoding, self.split_specials
    )

  def _may_split(self, text: str, at: int) -> bool:
    """Return whether the text around `at` has the same ids in two parts as in one."""
    before, after = text[max(0, at - _CONTEXT) : at], text[at : at + _CONTEXT]
    # `before` starts inside the text as well, so the continuation encodes both.
    inner = self.continuation.inner
    encode = lambda part: inner.encode(part, add_special_tokens=False).ids
    with _LOCK:
      inner.encode_special_tokens = True
      if encode(before + after) != encode(before) + encode(after):
        return False
    first, second = _words(inner, before), _words(inner, after)
    if _words(inner, before + after) == first + second:
      return True
    if not first or not second:
      return False
    starts_word = second[0].startswith(_SPACE) and not first[-1].endswith(_SPACE)
    return starts_word and self._merges_within_words

  @functools.cached_property
  def _is_local(self) -> bool:
    """Whether its pre-tokenizers depend only on nearby text."""
    before = self._part('pre_tokenizer')
    steps = (before.get('pretokenizers') or [before]) if before else []
    return all(step['type'] in _LOCAL for step in steps)

  @functools.cached_property
  def _merges_within_words(self) -> bool:
    """Whether no token crosses the start of a word, because merges were learnt within words."""
    model = self._layout['model']
    known = model.get('vocab') or {}
    within = re.compile(f'[^{_SPACE}]{_SPACE}')
    return model['type'] == 'BPE' and _SPACE in known and not any(map(within.search, known))

  def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    with reported(_CANNOT_ENCODE):
      with _LOCK:
        self.inner.encode_special_tokens = True
        encodings = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
      ids = [np.array(encoding.ids, np.int32) for encoding in encodings]
      for i, numbers in enumerate(ids):
        if self._is_forbidden[numbers].any():
          literal = self._literal.encode(texts[i], add_special_tokens=False)
          ids[i] = np.array(literal.ids, np.int32)
      return ids

  @functools.cached_property
  def _is_forbidden(self) -> NDArray[np.bool_]:
    """Which ids are special tokens that text must not encode to."""
    table = np.zeros(max([self.base - 1, *self._special_ids]) + 1, np.bool_)
    table[list(self._special_ids)] = True
    model: Any = self.inner.model
    if type(model).__name__ == 'Unigram':
      unknown = self._layout['model']['unk_id']
    else:
      unknown = self.inner.token_to_id(model.unk_token or '')
    if unknown is not None:
      table[unknown] = False
    return table

  @functools.cached_property
  def _literal(self) -> tokenizers.Tokenizer:
    return literal(self._layout)

  def prompt(self, text: str, framed: bool = True) -> NDArray[np.int32]:
    """Return the ids of a prompt.

    Args:
      text: The text. The spelling of a special token becomes that token.
      framed: Add the special tokens of a published tokenizer. Set False for a text that already has
        them, such as a rendered chat.

    Returns:
      Token ids, int32.
    """
    if framed or self.split_specials:
      return self._prompt(text, framed and self.framed)
    return self._with_added(text, lambda part: self._prompt(part, False))

  def prompt_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    if self.added_texts:
      return super().prompt_batch(texts)
    with self._special_texts():
      encodings = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(encoding.ids, np.int32) for encoding in encodings]

  def _prompt(self, text: str, framed: bool) -> NDArray[np.int32]:
    with self._special_texts():
      return np.array(self.inner.encode(text, add_special_tokens=framed).ids, np.int32)

  @contextlib.contextmanager
  def _special_texts(self) -> Iterator[None]:
    """Match the spellings of special tokens within, unless `split_specials` is set."""
    with reported(_CANNOT_ENCODE), _LOCK:
      self.inner.encode_special_tokens = self.split_specials
      try:
        yield
      finally:
        self.inner.encode_special_tokens = True

  def token_bytes(self) -> list[bytes] | None:
    if not self._byte_level:
      return None
    table = [b''] * self.base
    for piece, i in self.inner.get_vocab(with_added_tokens=True).items():
      if i >= self.base or i in self._special_ids:
        continue
      if self.decoding is not None and not self.decoding.text(piece):
        continue
      if all(c in _BYTE_OF for c in piece):
        table[i] = bytes(_BYTE_OF[c] for c in piece)
      else:
        table[i] = piece.encode()
    return table

  def decode(self, ids: Iterable[int]) -> str:
    if self.decoding is not None:
      known = self.decoding.tokens([int(i) for i in ids])
      # Embedding tables are often padded. The padding ids have no text.
      with reported(_CANNOT_DECODE):
        text = self.inner.decode([i for i in known if i < self.base], skip_special_tokens=True)
      return self.decoding.text(text)
    if self._byte_level:
      return super().decode(ids)
    known = [i for i in self._checked(ids) if i < self.base]
    with reported(_CANNOT_DECODE):
      return self.inner.decode(known, skip_special_tokens=True)

  def token_id(self, text: str) -> int | None:
    return self.inner.token_to_id(text)

  def unsettled(self, text: str) -> int:
    return 0 if self.decoding is None else self.decoding.unsettled(text)

  @property
  def is_special(self) -> NDArray[np.bool_]:
    table = super().is_special
    table[list(self._special_ids)] = True
    return table

  def with_specials(self, names: Sequence[str]) -> 'FileVocabulary':
    extended = copy.copy(self)
    extended.specials = {**self.find_specials(names), **self.specials}
    out = super(FileVocabulary, extended).with_specials(names)
    assert isinstance(out, FileVocabulary)
    return out

  def has_special(self, name: str) -> bool:
    """Return whether the tokenizer itself has the special token `name`."""
    return name in self.find_specials([name])

  def state(self) -> dict[str, Any]:
    state: dict[str, Any] = {'tokenizer.json': self._layout}
    if self.framed:
      state['framed'] = True
    if self.decoding is not None:
      state['decoding'] = {
        **dataclasses.asdict(self.decoding),
        'prompt': list(self.decoding.prompt),
      }
    if self.split_specials:
      state['split_specials'] = True
    return state

  @classmethod
  def from_state(cls, state: dict[str, Any]) -> 'FileVocabulary':
    inner = tokenizers.Tokenizer.from_str(json.dumps(state['tokenizer.json']))
    fields = state.get('decoding')
    decoding = None
    if fields is not None:
      decoding = Decoding(**{**fields, 'prompt': tuple(fields['prompt'])})
    rest = state.get('framed', False), decoding, state.get('split_specials', False)
    vocabulary = cls(inner, state['specials'], state['base'], *rest)
    # The library rounds scores as it reads them.
    vocabulary._layout = state['tokenizer.json']
    return vocabulary

  def save(self, directory: str | Path) -> None:
    """Also write a `tokenizer.json` with all special tokens, which `transformers` can read."""
    super().save(directory)
    whole = tokenizers.Tokenizer.from_str(self.inner.to_str())
    for name, i in sorted(self.specials.items(), key=lambda item: item[1]):
      if i >= self.base:
        text = spellings(name)[0]
        whole.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False)])
        assert whole.token_to_id(text) == i
    whole.save(str(Path(directory) / 'tokenizer.json'))

  def find_specials(self, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of the special tokens that the tokenizer has under a usual spelling."""
    ids: dict[str, int] = {}
    for name in names:
      for text in reversed(spellings(name)):
        number = self.inner.token_to_id(text)
        if number is not None:
          ids[name] = number
    return ids

  @functools.cached_property
  def _splits_at_spaces(self) -> bool:
    before = self._part('pre_tokenizer')
    whole = before.get('type') == 'ByteLevel' and before.get('use_regex', False)
    return self._byte_level and self._only_special and whole

  @functools.cached_property
  def _byte_level(self) -> bool:
    """Whether a token is a run of bytes of the text itself.

    Then nothing is normalised, and no space is put before the text.
    """
    prefixed = '"add_prefix_space": true' in json.dumps(self._part('pre_tokenizer'))
    return (
      self._part('decoder').get('type') == 'ByteLevel'
      and not prefixed
      and self.inner.normalizer is None
    )


def _cores() -> int:
  """Return the number of cores that this process may use."""
  affinity = getattr(os, 'sched_getaffinity', None)
  return len(affinity(0)) if affinity else os.cpu_count() or 1


def before_space(text: str) -> int:
  """Return the last index of white space after other text, or 0 if there is none."""
  match = _LAST_SPACE.match(text)
  return match.end() if match else 0


def _words(inner: tokenizers.Tokenizer, text: str) -> list[str]:
  """Return the words of a text after normalisation, as the model receives them."""
  text = inner.normalizer.normalize_str(text) if inner.normalizer else text
  if inner.pre_tokenizer is None:
    return [text]
  return [word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text)]


def _byte_alphabet() -> dict[str, int]:
  """Return GPT-2's printable character for each byte.

  Visible Latin-1 characters are unchanged. The others map to U+0100 and above.
  """
  visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [b for b in range(256) if b not in visible]
  alphabet = {chr(byte): byte for byte in visible}
  return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
#: The printable character of each byte.
BYTE_ALPHABET = {byte: character for character, byte in _BYTE_OF.items()}
