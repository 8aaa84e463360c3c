"""SentencePiece models (arXiv:1808.06226), read as the protocol buffers they are, as tokenizers of Hugging Face's."""

from collections.abc import Iterator, Mapping
from pathlib import Path
import re
import struct
from typing import Any, NamedTuple

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from tfm.core import errors

#: What a piece is (sentencepiece_model.proto).
_UNKNOWN, _CONTROL, _USER, _BYTE = 2, 3, 4, 6
_UNIGRAM, _BPE = 1, 2
SPACE = '▁'


class Piece(NamedTuple):
  """A token of the model: its text, its score, and what it is."""

  text: str
  score: float
  kind: int


class Pieces(NamedTuple):
  """What a model file says: its pieces by id, how text is segmented into them, and how it is made ready for that."""

  pieces: list[Piece]
  kind: int
  bytes_for_unknown: bool
  charsmap: bytes
  dummy_prefix: bool
  one_space: bool


def read_pieces(path: Path) -> Pieces:
  """What a `.model` file says.

  Raises: UserError for a model of words or characters; ValueError or IndexError for a file that is none.
  """
  message = _fields(path.read_bytes())
  trainer, normalizer = (dict(_flat(message.get(field, [b''])[-1])) for field in (2, 3))
  kind = trainer.get(3, _UNIGRAM)
  if kind not in (_UNIGRAM, _BPE):
    raise errors.UserError(f'{path}: its model_type is {kind}. Known: {_UNIGRAM} (unigram), {_BPE} (byte pairs).')
  pieces = [_piece(dict(_flat(raw))) for raw in message[1]]
  one_space, dummy = bool(normalizer.get(4, 1)), bool(normalizer.get(3, 1))
  return Pieces(pieces, kind, bool(trainer.get(35, 0)), normalizer.get(2, b''), dummy, one_space)


def tokenizer_of(found: Pieces, ids: Mapping[str, int] | None = None) -> tokenizers.Tokenizer:
  """The tokenizer that segments as SentencePiece does; `ids` are those of the pieces, where they are not their places.

  *Differs*: text that spells a control piece of a unigram model ('</s>') becomes that piece.
  """
  unknown = next((p.text for p in found.pieces if p.kind == _UNKNOWN), '<unk>')
  if ids is None:
    ids = {p.text: i for i, p in enumerate(found.pieces)}
  inner = tokenizers.Tokenizer((_unigram if found.kind == _UNIGRAM else _pairs)(found, ids, unknown))
  inner.normalizer = normalizers.Sequence([*_ready(found)])
  if symbols := _symbols(found):
    # Each stands alone, and is then found whole. As added tokens they would cut the text before it is made ready.
    pattern = '|'.join(map(re.escape, sorted(symbols, key=len, reverse=True)))
    inner.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
  strip = [decoders.Strip(' ', 1, 0)] if found.dummy_prefix else []
  inner.decoder = decoders.Sequence([decoders.Replace(SPACE, ' '), decoders.ByteFallback(), decoders.Fuse(), *strip])
  own = [p.text for p in found.pieces if p.kind in (_UNKNOWN, _CONTROL) and p.text in ids]
  inner.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in own])
  return inner


def _symbols(found: Pieces) -> list[str]:
  return [p.text for p in found.pieces if p.kind == _USER]


def _ready(found: Pieces) -> Iterator[Any]:
  """Text as the pieces spell it."""
  if found.charsmap:
    yield normalizers.Precompiled(found.charsmap)
  if found.one_space:
    yield normalizers.Strip()
    yield normalizers.Replace(tokenizers.Regex(' {2,}'), ' ')
  if found.dummy_prefix:
    yield normalizers.Prepend(SPACE)
  yield normalizers.Replace(' ', SPACE)


def _unigram(found: Pieces, ids: Mapping[str, int], unknown: str) -> Any:
  scores = {p.text: p.score for p in found.pieces}
  worst = min(scores.values())
  listed = [(text, scores.get(text, worst)) for text, _ in sorted(ids.items(), key=lambda item: item[1])]
  return models.Unigram(listed, ids[unknown], found.bytes_for_unknown)


def _pairs(found: Pieces, ids: Mapping[str, int], unknown: str) -> Any:
  """Byte pairs are merged in the order of what they make: the better scored first, then the earlier."""
  vocab = {p.text: ids[p.text] for p in found.pieces if p.text in ids}
  place = {p.text: i for i, p in enumerate(found.pieces) if p.kind not in (_CONTROL, _UNKNOWN, _BYTE)}
  merges = []
  for text, i in place.items():
    halves = ((text[:cut], text[cut:]) for cut in range(1, len(text)))
    made = [(a, b) for a, b in halves if a in place and b in place]
    merges += [(-found.pieces[i].score, i, place[a], place[b], a, b) for a, b in made]
  ordered = [(a, b) for *_, a, b in sorted(merges)]
  return models.BPE(
    vocab, ordered, unk_token=unknown, fuse_unk=True, byte_fallback=found.bytes_for_unknown,
    ignore_merges=bool(_symbols(found)),
  )  # fmt: skip


def _piece(fields: dict[int, Any]) -> Piece:
  return Piece(fields[1].decode('utf-8'), fields.get(2, 0.0), fields.get(3, 1))


def _fields(data: bytes) -> dict[int, list[Any]]:
  found: dict[int, list[Any]] = {}
  for field, value in _flat(data):
    found.setdefault(field, []).append(value)
  return found


def _flat(data: bytes) -> Iterator[tuple[int, Any]]:
  """(number, value) of every field of a message: integers, floats, or the bytes of texts and messages."""
  at = 0
  while at < len(data):
    key, at = _varint(data, at)
    field, wire = key >> 3, key & 7
    value: Any
    if wire == 0:
      value, at = _varint(data, at)
    elif wire == 2:
      size, at = _varint(data, at)
      value, at = data[at : at + size], at + size
    elif wire in (1, 5):
      size, form = (8, '<d') if wire == 1 else (4, '<f')
      (value,), at = struct.unpack_from(form, data, at), at + size
    else:
      raise ValueError(f'it is no protocol buffer: wire type {wire} at byte {at}')
    if at > len(data):
      raise ValueError('it ends within a field')
    yield field, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
  value = shift = 0
  while True:
    byte = data[at]
    value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
    if byte < 128:
      return value, at
