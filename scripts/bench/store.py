"""Measure tokenising against the tokenizers library, and a large store: opening and memory.

python scripts/bench/store.py --text=tinyshakespeare.txt
python scripts/bench/store.py --parts=memory --megabytes=1000

The rival encodes the same chunks with `encode_batch_fast` and keeps the ids. tfm also reads the
text, converts the ids and writes them to disk. `cpu` is the ratio of CPU seconds of all threads: on
a shared machine it varies less than the ratio of times.
"""

import argparse
from collections.abc import Callable
import json
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from typing import Any

import harness

from tfm.data import stdlib, text_chunks
from tfm.data.framing import Framing
from tfm.data.store_writer import write_store
from tfm.data.tokenizer import Bpe
from tfm.data.tokenizer.byte import ByteVocabulary

_CHUNK = 1 << 17
_MEMORY = """
import json, sys, time
from pathlib import Path
from tfm.data.corpus import Corpus
from tfm.data.store import Store

def resident():
  pages = int(open('/proc/self/statm').read().split()[1])
  return pages * 4096 / 1e6

base = resident()
start = time.perf_counter()
store = Store.read(Path(sys.argv[1]))
vocabulary = store.vocabulary
opened = time.perf_counter() - start
corpus = Corpus(store, vocabulary, 1025, 1, batch=256)
most, seconds = 0, time.perf_counter()
steps = corpus.size('train') // 256
for step in range(steps):
  corpus.batch('train', 0, step)
  most = max(most, resident())
print(json.dumps({
  'open_ms': opened * 1e3, 'base_mb': base, 'most_mb': most,
  'tokens_per_s': steps * 256 * 1024 / (time.perf_counter() - seconds),
}))
"""


def repeated(text: str, megabytes: int) -> str:
  """Return a text repeated to about this many million bytes."""
  return text * -(-megabytes * 10**6 // len(text.encode()))


def python_source(megabytes: int) -> str:
  """Return the source of the standard library, repeated if it is smaller."""
  texts = filter(None, map(stdlib.read_source, stdlib.source_files()))
  return repeated(''.join(texts), megabytes)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
  """Return the seconds and the CPU seconds of a call."""
  start, cpu = time.perf_counter(), time.process_time()
  call()
  return time.perf_counter() - start, time.process_time() - cpu


def throughput(name: str, text: str, vocab: int, rounds: int) -> dict[str, Any]:
  """Return a row with the rates of the library and of a store, in turns."""
  documents = lambda split: [[text]] if split == 'train' else []
  vocabulary = Bpe(vocab, sample=5_000_000).learn(documents).with_specials(('eos',))
  chunks = list(text_chunks.chunks([text], vocabulary.split_point, _CHUNK))
  library = lambda: vocabulary.inner.encode_batch_fast(chunks, add_special_tokens=False)

  def store() -> None:
    with tempfile.TemporaryDirectory() as folder:
      write_store(Path(folder), vocabulary, documents, Framing(end=(vocabulary.special('eos'),)))

  size = len(text.encode()) / 1e6
  times = [(timed(library), timed(store)) for _ in range(rounds)]
  middle = lambda values: sorted(values)[len(values) // 2]
  return {
    'text': name,
    'MB': size,
    'library, MB/s': middle([size / a[0] for a, _ in times]),
    'tfm, MB/s': middle([size / b[0] for _, b in times]),
    'ratio': middle([a[0] / b[0] for a, b in times]),
    'cpu': middle([a[1] / b[1] for a, b in times]),
  }


def memory(megabytes: int) -> dict[str, Any]:
  """Return a row with the time to open a byte store and the memory of an epoch of batches."""
  document = 'a line of text, and é in it.\n' * 100
  count = megabytes * 10**6 // (2 * len(document.encode()))
  documents = lambda split: [[document]] * count if split == 'train' else []
  with tempfile.TemporaryDirectory() as folder:
    vocabulary = ByteVocabulary().with_specials(('eos',))
    write_store(Path(folder), vocabulary, documents, Framing(end=(vocabulary.special('eos'),)))
    done = subprocess.run(
      [sys.executable, '-c', _MEMORY, folder], check=True, capture_output=True, text=True
    )
  found = json.loads(done.stdout)
  return {
    'store, MB': megabytes,
    'open, ms': found['open_ms'],
    'before, MB': found['base_mb'],
    'added, MB': found['most_mb'] - found['base_mb'],
    'tokens/s': found['tokens_per_s'],
  }


def main() -> None:
  """Measure and print the tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--parts', default='throughput,memory')
  parser.add_argument('--text', help='a text file, repeated to --megabytes; otherwise none')
  parser.add_argument('--megabytes', type=int, default=30)
  parser.add_argument('--vocab', type=int, default=8192)
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  parts = args.parts.split(',')
  if 'throughput' in parts:
    texts = {'stdlib': python_source(args.megabytes)}
    if args.text:
      texts[args.text] = repeated(Path(args.text).read_text('utf-8'), args.megabytes)
    rows = [throughput(name, text, args.vocab, args.rounds) for name, text in texts.items()]
    harness.report('tokenising', rows, args.out)
  if 'memory' in parts:
    harness.report('a large store', [memory(max(args.megabytes, 1000))], None)


if __name__ == '__main__':
  main()
