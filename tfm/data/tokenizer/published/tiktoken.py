"""Vocabularies as OpenAI's `tiktoken` writes them: a line a token, its bytes in base64 and its
rank.
"""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from tfm.data.tokenizer.file import BYTE_ALPHABET

_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def is_tiktoken(path: Path) -> bool:
  """Return whether the first line of a file is a token of `tiktoken`."""
  with path.open('rb') as file:
    parts = file.readline(1000).split()
  try:
    return (
      len(parts) == 2 and parts[1].isdigit() and bool(base64.b64decode(parts[0], validate=True))
    )
  except binascii.Error:
    return False


def read(path: Path, fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
  """Return the tokenizer of a file of ranks, its special tokens behind them.

  Args:
    path: The file.
    fields: The settings of the folder; special tokens between those it names are reserved.
  """
  ranks = {
    base64.b64decode(text): int(rank)
    for text, rank in map(bytes.split, path.read_bytes().splitlines())
  }
  vocab = {printable(token): rank for token, rank in ranks.items()}
  model = models.BPE(vocab, merges_of_ranks(ranks), fuse_unk=False, ignore_merges=True)
  inner = tokenizers.Tokenizer(model)
  split = pre_tokenizers.Split(tokenizers.Regex(_PATTERN), 'isolated')
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [split, pre_tokenizers.ByteLevel(False, use_regex=False)]
  )
  inner.decoder = decoders.ByteLevel()
  inner.post_processor = processors.ByteLevel(trim_offsets=False)
  inner.add_special_tokens(
    [AddedToken(text, normalized=False, special=True) for text in _specials(len(ranks), fields)]
  )
  return inner


def _specials(size: int, fields: Mapping[str, Any]) -> list[str]:
  added = {number: str(token) for number, token in fields['added_tokens_decoder'].items()}
  own = [str(text) for text in fields.get('extra_special_tokens') or []]
  last = max(added, default=0)
  if last < size:
    return own
  found = [added.get(number, f'<|reserved_token_{number}|>') for number in range(size, last + 1)]
  return [*found, *(text for text in own if text not in found)]


def merges_of_ranks(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
  """Return the BPE merges behind the tokens, in order of their ranks."""
  found = []
  for token, rank in ranks.items():
    halves = ((token[:at], token[at:]) for at in range(1, len(token)))
    known = [(ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks]
    found += [(rank, *pair) for pair in sorted(known)]
  found.sort(key=lambda merge: merge[0])
  return [(printable(a), printable(b)) for *_, a, b in found]


def printable(token: bytes) -> str:
  """Return the bytes of a token in the printable alphabet of GPT-2."""
  return ''.join(BYTE_ALPHABET[byte] for byte in token)
