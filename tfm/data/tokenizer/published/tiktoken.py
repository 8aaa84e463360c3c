"""Vocabulary files of OpenAI's `tiktoken`: each line has a token in base64 and its rank."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from tfm.data.tokenizer.file import BYTE_ALPHABET
from tfm.data.tokenizer.limits import check_count, check_ids

_PATTERN = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
  r'\s*[\r\n]+|\s+(?!\S)|\s+'
)


def is_tiktoken(path: Path) -> bool:
  """Return whether the first line of a file is a token of `tiktoken`."""
  with path.open('rb') as file:
    parts = file.readline(1000).split()
  if len(parts) != 2 or not parts[1].isdigit():
    return False
  try:
    return bool(base64.b64decode(parts[0], validate=True))
  except binascii.Error:
    return False


def read(path: Path, fields: Mapping[str, Any]) -> tokenizers.Tokenizer:
  """Return the tokenizer of a file of ranks, followed by special tokens.

  Args:
    path: The file.
    fields: The settings of the folder. Ids between its special tokens are reserved tokens.
  """
  lines = map(bytes.split, path.read_bytes().splitlines())
  ranks = {base64.b64decode(text): int(rank) for text, rank in lines}
  check_ids(str(path), ranks.values())
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
  extra = [str(text) for text in fields.get('extra_special_tokens') or []]
  last = max(added, default=0)
  if last < size:
    return extra
  check_count('added_tokens_decoder', 'the number of tokens up to the last id', last - size)
  texts = [added.get(number, f'<|reserved_token_{number}|>') for number in range(size, last + 1)]
  return [*texts, *(text for text in extra if text not in texts)]


def merges_of_ranks(ranks: Mapping[bytes, int]) -> list[tuple[str, str]]:
  """Return the BPE merges of the tokens, in the order of their ranks."""
  merges = []
  for token, rank in ranks.items():
    halves = ((token[:at], token[at:]) for at in range(1, len(token)))
    known = [(ranks[a], ranks[b], a, b) for a, b in halves if a in ranks and b in ranks]
    merges += [(rank, *pair) for pair in sorted(known)]
  merges.sort(key=lambda merge: merge[0])
  return [(printable(a), printable(b)) for *_, a, b in merges]


def printable(token: bytes) -> str:
  """Return the bytes of a token in the printable alphabet of GPT-2."""
  return ''.join(BYTE_ALPHABET[byte] for byte in token)
