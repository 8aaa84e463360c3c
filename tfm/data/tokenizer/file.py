"""The vocabulary that a `tokenizers.Tokenizer` gives, such as one of a `tokenizer.json`."""

from collections.abc import Iterable, Sequence
import copy
import dataclasses
import functools
import json
from pathlib import Path
import re
import threading
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
import tokenizers

from tfm.data.tokenizer.base import Vocabulary
from tfm.data.tokenizer.decoding import Decoding
from tfm.data.tokenizer.literal import literal

_SPACE = '▁'
#: What published tokenizers call our specials; the first name is the one we give to a new one.
NAMES = {
  'eos': ('<|endoftext|>', '</s>', '<|end_of_text|>', '<eos>', '[SEP]'),
  'pad': ('<|pad|>', '<pad>', '[PAD]'),
  'cls': ('<|cls|>', '[CLS]', '<s>', '<cls>', '<bos>'),
  'mask': ('<|mask|>', '<mask>', '[MASK]'),
}
# GPT-2's pre-tokenizer never joins a space to what stands before it, so text may be cut here
# without changing a token.
_BEFORE_SPACE = re.compile(r'(?<=\S)(?=[ \t\n\r\f\v])')
_LAST_SPACE = re.compile(r'.*\S(?=[ \t\n\r\f\v])', re.DOTALL)
# Where other tokenizers may let themselves be cut: they are asked, with so many characters on
# either side.
_MAYBE = re.compile(r'(?<=\S)(?=[ \n])|(?<=\n)(?=\S)')
_ASIDE = 1000
_TRIES = 32
# Pre-tokenizers that look no further than that; others could part words by a count from the start
# of the text.
_NEARSIGHTED = {
  'BertPreTokenizer', 'ByteLevel', 'CharDelimiterSplit', 'Digits', 'Metaspace', 'Punctuation',
  'Split',
  'UnicodeScripts', 'Whitespace', 'WhitespaceSplit',
}  # fmt: skip


# Whether special tokens are looked for in a text is a setting of the tokenizer, which threads
# share.
_LOCK = threading.Lock()


class FileVocabulary(Vocabulary):
  """A `tokenizers.Tokenizer`; specials it already has (`</s>`, `[MASK]`, `<extra_id_0>`) are found
  by their names.

  `encode` takes text to train on: without a frame, and a special token that it spells is ordinary
  text. `prompt` takes what a model is asked: a special token that it spells is that token, and with
  `framed` the tokenizer's own template puts special tokens around it, as a published model was
  trained with.

  Args:
    inner: The tokenizer.
    specials: The ids of special tokens by our names for them.
    base: The number of ids of the tokenizer; ids above it are specials of ours.
    framed: Prompts get the special tokens around them that the tokenizer's template has.
    decoding: What is done to decoded text of a published tokenizer; None for one learnt here.
    split_specials: Special tokens that a prompt spells are ordinary text too
    (`split_special_tokens`).
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
    self._own = {number for number, token in added if token.special}
    self._only_special = len(self._own) == len(added)

  @functools.cached_property
  def _layout(self) -> dict[str, Any]:
    """What its `tokenizer.json` holds. Reading it takes seconds for a large vocabulary: few uses
    need it.
    """
    return json.loads(self.inner.to_str())

  def _part(self, name: str) -> dict[str, Any]:
    """Return the layout of a part other than the model, such as 'pre_tokenizer'."""
    part = getattr(self.inner, name)
    return {} if part is None else json.loads(part.__getstate__())

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
    """The same, which puts no space before the text: there it would stand for one that the text has
    not.
    """
    normalizer, words = self._part('normalizer'), self._part('pre_tokenizer')
    steps = normalizer.get('normalizers', [normalizer])
    changed = {}
    if any(step.get('type') == 'Prepend' for step in steps):
      left = [step for step in steps if step['type'] != 'Prepend']
      changed['normalizer'] = {'type': 'Sequence', 'normalizers': left}
    if words.get('type') == 'Metaspace' and words.get('prepend_scheme') == 'first':
      changed['pre_tokenizer'] = {**words, 'prepend_scheme': 'never'}
    if not changed:
      return self
    inner = tokenizers.Tokenizer.from_str(json.dumps({**self._layout, **changed}))
    return FileVocabulary(
      inner, self.specials, self.base, self.framed, self.decoding, self.split_specials
    )

  def _parts(self, text: str, at: int) -> bool:
    """Return whether the text around `at` has the same ids in two parts as in one."""
    before, after = text[max(0, at - _ASIDE) : at], text[at : at + _ASIDE]
    # The part before is from the middle of the text, too.
    onward = self.onward.inner
    with _LOCK:
      onward.encode_special_tokens = True
      together, *apart = (
        onward.encode(t, add_special_tokens=False).ids for t in (before + after, before, after)
      )
    if together != apart[0] + apart[1]:
      return False
    whole, first, second = (_words(onward, part) for part in (before + after, before, after))
    starts = (
      second[:1] and second[0].startswith(_SPACE) and first[-1:] and not first[-1].endswith(_SPACE)
    )
    return whole == first + second or bool(starts and self._joins_no_spaces)

  @functools.cached_property
  def _local(self) -> bool:
    """Whether its pre-tokenizers decide by what stands near."""
    before = self._part('pre_tokenizer')
    steps = (before.get('pretokenizers') or [before]) if before else []
    return all(step['type'] in _NEARSIGHTED for step in steps)

  @functools.cached_property
  def _joins_no_spaces(self) -> bool:
    """Whether no token goes on over the start of a word, as where merges were learnt within words
    only.
    """
    model = self._layout['model']
    known = model.get('vocab') or {}
    within = re.compile(f'[^{_SPACE}]{_SPACE}')
    return model['type'] == 'BPE' and _SPACE in known and not any(map(within.search, known))

  def _encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    with _LOCK:
      self.inner.encode_special_tokens = True
      found = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
    rows = [np.array(e.ids, np.int32) for e in found]
    for i, row in enumerate(rows):
      if self._ends[row].any():
        rows[i] = np.array(self._literal.encode(texts[i], add_special_tokens=False).ids, np.int32)
    return rows

  @functools.cached_property
  def _ends(self) -> NDArray[np.bool_]:
    """Return which ids are special tokens that text must not encode to."""
    table = np.zeros(max([self.base - 1, *self._own]) + 1, np.bool_)
    table[list(self._own)] = True
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
    """Return the ids of a text that a model is asked.

    Args:
      text: The text. Special tokens that it spells are those tokens.
      framed: Put the special tokens around it that a published tokenizer has; without it the ids
        are those of a text that has them already, such as a rendered chat.
    """
    with _LOCK:
      self.inner.encode_special_tokens = self.split_specials
      found = self.inner.encode(text, add_special_tokens=framed and self.framed)
      self.inner.encode_special_tokens = True
    return np.array(found.ids, np.int32)

  def token_bytes(self) -> list[bytes] | None:
    if not self._byte_level:
      return None
    table = [b''] * self.base
    for piece, i in self.inner.get_vocab(with_added_tokens=True).items():
      if (
        i < self.base
        and i not in self._own
        and (self.decoding is None or self.decoding.text(piece))
      ):
        known = all(c in _BYTE_OF for c in piece)
        table[i] = bytes(_BYTE_OF[c] for c in piece) if known else piece.encode()
    return table

  def decode(self, ids: Iterable[int]) -> str:
    if self.decoding is not None:
      known = self.decoding.tokens([int(i) for i in ids])
      # Tables of models are often padded: such ids are no text.
      text = self.inner.decode([i for i in known if i < self.base], skip_special_tokens=True)
      return self.decoding.text(text)
    if self._byte_level:
      return super().decode(ids)
    return self.inner.decode(
      [i for i in self._checked(ids) if i < self.base], skip_special_tokens=True
    )

  def token_id(self, text: str) -> int | None:
    return self.inner.token_to_id(text)

  def unsettled(self, text: str) -> int:
    return 0 if self.decoding is None else self.decoding.unsettled(text)

  @property
  def is_special(self) -> NDArray[np.bool_]:
    table = super().is_special
    table[list(self._own)] = True
    return table

  def with_specials(self, names: Sequence[str]) -> 'FileVocabulary':
    found = copy.copy(self)
    found.specials = {**self.named(names), **self.specials}
    out = super(FileVocabulary, found).with_specials(names)
    assert isinstance(out, FileVocabulary)
    return out

  def finds(self, name: str) -> bool:
    """Whether the tokenizer has a token of its own for the special `name`."""
    return name in self.named([name])

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
    given = state.get('decoding')
    decoding = None if given is None else Decoding(**{**given, 'prompt': tuple(given['prompt'])})
    rest = state.get('framed', False), decoding, state.get('split_specials', False)
    found = cls(inner, state['specials'], state['base'], *rest)
    # The library rounds scores as it reads them.
    found._layout = state['tokenizer.json']
    return found

  def save(self, directory: str | Path) -> None:
    """Also writes a `tokenizer.json` that `tokenizers` and `transformers` read, our specials
    included.
    """
    super().save(directory)
    whole = tokenizers.Tokenizer.from_str(self.inner.to_str())
    for name, i in sorted(self.specials.items(), key=lambda item: item[1]):
      if i >= self.base:
        whole.add_special_tokens(
          [tokenizers.AddedToken(_written(name)[0], special=True, normalized=False)]
        )
        assert whole.token_to_id(_written(name)[0]) == i
    whole.save(str(Path(directory) / 'tokenizer.json'))

  def named(self, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of the specials `names` that the tokenizer has under a usual spelling."""
    ids = ((n, self.inner.token_to_id(text)) for n in names for text in reversed(_written(n)))
    return {name: i for name, i in ids if i is not None}

  @functools.cached_property
  def _splits_at_spaces(self) -> bool:
    before = self._part('pre_tokenizer')
    whole = before.get('type') == 'ByteLevel' and before.get('use_regex', False)
    return self._byte_level and self._only_special and whole

  @functools.cached_property
  def _byte_level(self) -> bool:
    """Whether a token is a run of bytes of the text itself: nothing is normalised away, no space is
    put in front.
    """
    prefixed = '"add_prefix_space": true' in json.dumps(self._part('pre_tokenizer'))
    return (
      self._part('decoder').get('type') == 'ByteLevel'
      and not prefixed
      and self.inner.normalizer is None
    )


def before_space(text: str) -> int:
  """The last place of `text` before white space that follows something else; 0 if there is none."""
  found = _LAST_SPACE.match(text)
  return found.end() if found else 0


def _words(inner: tokenizers.Tokenizer, text: str) -> list[str]:
  """Return the words of a text after normalisation, as the model receives them."""
  text = inner.normalizer.normalize_str(text) if inner.normalizer else text
  return (
    [word for word, _ in inner.pre_tokenizer.pre_tokenize_str(text)]
    if inner.pre_tokenizer
    else [text]
  )


def _written(name: str) -> tuple[str, ...]:
  return NAMES.get(name) or (f'<extra_id_{name.removeprefix("sentinel_")}>',)


def _byte_alphabet() -> dict[str, int]:
  """GPT-2's printable stand-ins of the 256 bytes: visible Latin-1 for itself, the rest from U+0100
  on.
  """
  visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [b for b in range(256) if b not in visible]
  return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(others)}


_BYTE_OF = _byte_alphabet()
#: The character that stands for each byte.
BYTE_ALPHABET = {byte: character for character, byte in _BYTE_OF.items()}
