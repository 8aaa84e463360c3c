"""Read SentencePiece models (arXiv:1808.06226) for the `tokenizers` library."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import AddedToken, models

from tfm.core import errors

_CONTROL, _USER = 3, 4
UNIGRAM, BPE = 1, 2


class Pieces(NamedTuple):
  """A SentencePiece model.

  Attributes:
    scored: The pieces and their scores, by id.
    kind: `UNIGRAM` or `BPE`.
    unk_id: The id of the unknown token.
    charsmap: The character map of its normaliser, or None.
    added: Control and user-defined tokens.
    proto: The parsed file.
  """

  scored: list[tuple[str, float]]
  kind: int
  unk_id: int
  charsmap: bytes | None
  added: list[AddedToken]
  proto: Any


def read_pieces(path: Path) -> Pieces:
  """Read a SentencePiece model.

  Raises:
    UserError: The file is not a model, or is a model of words or characters.
  """
  from google.protobuf.message import DecodeError
  from sentencepiece import sentencepiece_model_pb2

  try:
    protos: Any = sentencepiece_model_pb2
    proto = protos.ModelProto.FromString(path.read_bytes())
  except DecodeError as error:
    raise errors.UserError(
      f'{path}: is not a SentencePiece model: {error}. Expected a file of the sentencepiece '
      'library.'
    ) from error
  kind = proto.trainer_spec.model_type
  if kind not in (UNIGRAM, BPE):
    raise errors.UserError(
      f'{path}: model_type is {kind}. Expected {UNIGRAM} (unigram) or {BPE} (byte pairs).'
    )
  return pieces_of(proto)


def pieces_of(proto: Any) -> Pieces:
  """Return the pieces of a parsed SentencePiece model."""
  scored = [(piece.piece, piece.score) for piece in proto.pieces]
  added = [
    AddedToken(piece.piece, normalized=False, special=piece.type == _CONTROL)
    for piece in proto.pieces
    if piece.type in (_CONTROL, _USER)
  ]
  charsmap = proto.normalizer_spec.precompiled_charsmap or None
  return Pieces(
    scored, proto.trainer_spec.model_type, proto.trainer_spec.unk_id, charsmap, added, proto
  )


def merges_of(vocab: Mapping[str, int], excluded: Collection[str] = ()) -> list[tuple[str, str]]:
  """Return the BPE merges of a vocabulary, in the order of their ids."""
  merges = []
  for text, rank in vocab.items():
    if text in excluded:
      continue
    halves = ((text[:at], text[at:]) for at in range(1, len(text)))
    for first, second in halves:
      known = first in vocab and second in vocab
      if known and first not in excluded and second not in excluded:
        # Several merges may give the same token. The shortest first half comes first.
        merges.append((rank, len(first), len(second), first, second))
  merges.sort(key=lambda merge: merge[:3])
  return [(first, second) for *_, first, second in merges]


def read_merges(vocab: Path, merges: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
  """Read `vocab.json` and `merges.txt`."""
  return models.BPE.read_file(str(vocab), str(merges))
