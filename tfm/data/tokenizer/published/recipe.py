"""The construction of each tokenizer class, and its special tokens."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from tfm.data.tokenizer.published.folder import NAMED


@dataclasses.dataclass
class Draft:
  """A tokenizer under construction.

  Attributes:
    folder: The folder.
    fields: The settings of the folder with the defaults of the class.
    vocab: {text: id}, or (text, score) by id for a unigram model.
    merges: The merges of byte pairs.
    charsmap: The character map of a SentencePiece normaliser.
    inner: The tokenizer.
    named: The special tokens with names.
    extra: The special tokens without names.
    framed: False if `add_bos_token` and `add_eos_token` determine the frame.
  """

  folder: Path
  fields: dict[str, Any]
  vocab: Any = None
  merges: list[tuple[str, str]] | None = None
  charsmap: bytes | None = None
  inner: tokenizers.Tokenizer = dataclasses.field(
    default_factory=lambda: tokenizers.Tokenizer(tokenizers.models.BPE())
  )
  named: dict[str, str | AddedToken | None] = dataclasses.field(default_factory=dict)
  extra: list[str | AddedToken] = dataclasses.field(default_factory=list)
  framed: bool = True

  def text(self, name: str) -> str | None:
    """Return the text of the special token `name`, such as 'eos_token'."""
    value = self.named.get(name, self.fields.get(name)) if self.named else self.fields.get(name)
    return None if value is None else str(value)

  def number(self, text: str | None) -> int | None:
    """Return the id of a token, or the unknown id if it is missing."""
    found = None if text is None else self.inner.token_to_id(text)
    unknown = self.text('unk_token')
    return self.inner.token_to_id(unknown) if found is None and unknown is not None else found

  def frame(self, before: Sequence[str | None], after: Sequence[str | None]) -> None:
    """Put special tokens before and after texts."""
    tokens = {str(t): self.number(t) for t in [*before, *after]}
    single = [f'{part}:0' for part in (*before, '$A', *after)]
    pairs = [(text, number) for text, number in tokens.items() if number is not None]
    self.inner.post_processor = processors.TemplateProcessing(single=single, special_tokens=pairs)

  def frame_by_flags(self) -> None:
    """Frame texts by `add_bos_token` and `add_eos_token`."""
    bos, eos = self.text('bos_token'), self.text('eos_token')
    before = [bos] if self.fields.get('add_bos_token') and bos is not None else []
    after = [eos] if self.fields.get('add_eos_token') and eos is not None else []
    self.frame(before, after)

  def make_special(self) -> None:
    """Mark every named token as special, regardless of its flags in the folder."""
    added = []
    for value in [*self.named.values(), *self.extra]:
      if isinstance(value, str):
        value = AddedToken(value, special=True, normalized=False)
      if value is not None:
        added.append(value)
    self.inner.add_special_tokens(added)
    if not self.framed:
      self.frame_by_flags()


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The construction of a tokenizer class.

  Attributes:
    build: Returns the tokenizer without added tokens.
    model: The kind of model: 'BPE', 'Unigram', 'WordPiece', or None if the file decides.
    vocab: The name of its vocabulary file.
    merges: The name of its file of merges.
    tokens: Default special tokens.
    flags: Flags of special tokens that are plain text.
    defaults: Default settings.
    arrange: Reorders the pieces of a SentencePiece model.
    prepare: Completes the special tokens.
    finish: Sets the frame, after all tokens are added.
    whole: Uses `tokenizer.json` unchanged.
    language: The setting for the language of a text, or ''.
    decoding: Fields of `tfm.data.tokenizer.decoding.Decoding`.
  """

  build: Callable[[Draft], tokenizers.Tokenizer]
  model: str | None = None
  vocab: str | None = None
  merges: str | None = None
  tokens: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  flags: Mapping[str, Mapping[str, bool]] = dataclasses.field(default_factory=dict)
  defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  arrange: Callable[[Draft, Any], Any] | None = None
  prepare: Callable[[Draft], None] | None = None
  finish: Callable[[Draft], None] | None = None
  whole: bool = False
  language: str = ''
  decoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def complete(draft: Draft, recipe: Recipe) -> None:
  """Add the settings and special tokens of the class to a draft."""
  for name, value in {**recipe.tokens, **recipe.defaults}.items():
    draft.fields.setdefault(name, value)
  for name, flags in recipe.flags.items():
    if isinstance(draft.fields.get(name), str):
      draft.fields[name] = AddedToken(draft.fields[name], **flags)
  if recipe.prepare is not None:
    recipe.prepare(draft)


def collect_tokens(draft: Draft) -> None:
  """Separate the special tokens with names from the others."""
  fields = draft.fields
  if 'additional_special_tokens' in fields and 'extra_special_tokens' not in fields:
    fields['extra_special_tokens'] = fields['additional_special_tokens']
  draft.named = {name: fields.get(name) for name in NAMED}
  extra = fields.get('extra_special_tokens') or []
  for name, value in fields.items():
    if name.endswith('_token') and name not in NAMED and _token(value):
      draft.named[name] = value
  draft.named |= fields.get('model_specific_special_tokens') or {}
  draft.extra = list(extra)


def _token(value: Any) -> bool:
  return isinstance(value, (str, AddedToken))
