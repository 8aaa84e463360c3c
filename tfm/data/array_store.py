"""Write numbers of documents, such as tokens with marks, as a token store."""

import array
from collections.abc import Callable, Iterable
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.data.store_writer import META, SPLITS, file_row
from tfm.data.tokenizer import Vocabulary


def write_arrays(
  folder: Path,
  vocabulary: Vocabulary,
  documents: Callable[[str], Iterable[tuple[NDArray[Any], int]]],
  limit: int,
) -> None:
  """Write the vocabulary and the numbers of every split to `folder`.

  An interrupted call starts again from the first document.

  Args:
    folder: The folder. Its files are deleted.
    vocabulary: The vocabulary of the text.
    documents: Returns the documents of a split: the numbers of each, and its bytes of text.
    limit: An upper bound: all numbers are below.
  """
  for path in folder.iterdir():
    path.unlink()
  dtype = np.dtype('<u2' if limit <= 1 << 16 else '<u4')
  vocabulary.save(folder)
  splits, digest = {}, hashlib.sha256()
  for name in SPLITS:
    starts, text_bytes, at = array.array('q'), 0, 0
    with open(folder / f'{name}.bin', 'wb') as file:
      for numbers, size in documents(name):
        block = numbers.astype(dtype).tobytes()
        digest.update(block)
        file.write(block)
        starts.append(at)
        at, text_bytes = at + len(numbers), text_bytes + size
    if not starts:
      (folder / f'{name}.bin').unlink()
      continue
    np.save(folder / f'{name}.starts.npy', np.array([*starts, at], np.int64))
    splits[name] = {'tokens': at, 'documents': len(starts), 'bytes': text_bytes}
  meta = {
    'splits': splits,
    'dtype': dtype.str,
    'content': digest.hexdigest(),
    'files': {file.name: file_row(file) for file in sorted(folder.iterdir())},
  }
  (folder / META).write_text(json.dumps(meta, indent=1), 'utf-8')
