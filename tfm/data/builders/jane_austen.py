"""Jane Austen's six novels, from the R package janeaustenr."""

from collections.abc import Iterator
from pathlib import Path
import struct
from typing import Any
import zlib

import tensorflow_datasets as tfds

from tfm.data.builders import manual

SOURCE = "the R package janeaustenr (Debian: r-cran-janeaustenr), its folder 'data'"
_STRING, _STRINGS, _NA = 9, 16, -1


class JaneAusten(tfds.core.GeneratorBasedBuilder):
  """The novels. The last novel of the file is for testing, so no book is in both splits."""

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = f'manual_dir has Rdata.rdb of {SOURCE}.'

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description="Jane Austen's six novels.",
      features=tfds.features.FeaturesDict({'title': text, 'text': text}),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    path = manual.find_one(dl_manager, 'Rdata.rdb', SOURCE)
    novels = list(read_novels(path))
    return {
      'train': self._generate_examples(novels[:-1]),
      'test': self._generate_examples(novels[-1:]),
    }

  def _generate_examples(self, novels: list[list[str]]) -> Iterator[tuple[str, dict[str, str]]]:
    for lines in novels:
      title = next(filter(None, lines), '')
      yield title, {'title': title, 'text': '\n'.join(lines) + '\n'}


def read_novels(path: Path) -> Iterator[list[str]]:
  """Yield the lines of each character vector in an R database (`.rdb`).

  The file is a sequence of (uncompressed size, uint32 big-endian) and a zlib stream. A stream is a
  value in R's XDR serialisation.

  Raises:
    UserError: The file has another format.
  """
  content = path.read_bytes()
  try:
    while content:
      stream = zlib.decompressobj()
      value = stream.decompress(content[4:])
      if len(value) != struct.unpack('>I', content[:4])[0]:
        raise manual.damaged(path, 'is truncated')
      yield _strings(path, value)
      content = stream.unused_data
  except (zlib.error, struct.error, UnicodeDecodeError) as error:
    raise manual.damaged(path, f'is damaged ({error})') from error


def _strings(path: Path, value: bytes) -> list[str]:
  """Return a character vector in XDR serialisation of version 2 or 3."""
  version = struct.unpack('>i', value[2:6])[0]
  at = 14
  if version == 3:  # the name of the encoding
    at += 4 + struct.unpack('>i', value[at : at + 4])[0]
  flags, count = struct.unpack('>ii', value[at : at + 8])
  if not value.startswith(b'X\n') or version not in (2, 3) or flags & 0xFF != _STRINGS:
    raise manual.damaged(path, 'holds no character vector')
  at, lines = at + 8, []
  for _ in range(count):
    flags, size = struct.unpack('>ii', value[at : at + 8])
    at += 8
    if flags & 0xFF != _STRING:
      raise manual.damaged(path, 'holds no character vector')
    size = 0 if size == _NA else size
    lines.append(value[at : at + size].decode('utf-8'))
    at += size
  return lines
