"""Compare bits per byte of a trained model with gzip -9 and xz -9 on the same held-out text.

python scripts/compare_compressors.py --workdir=runs/quickstart
"""

import argparse
import gzip
import json
import lzma
from pathlib import Path
import sys

from rich.console import Console
from rich.table import Table

from tfm.core import errors
from tfm.train import checkpoint


def last_score(workdir: Path) -> float:
  """Return `val_bits_per_byte` of the last evaluation."""
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  scores = [row['val_bits_per_byte'] for row in rows if row.get('val_bits_per_byte') is not None]
  if not scores:
    raise errors.UserError(
      f'{workdir}/metrics.jsonl: no val_bits_per_byte. Expected an evaluated run.'
    )
  return scores[-1]


def main() -> None:
  """Print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--workdir', type=Path, required=True)
  workdir = parser.parse_args().workdir
  loaded = checkpoint.load(workdir)
  held_out = ''.join(loaded.experiment.data.documents('val')).encode()
  bits = lambda packed: 8 * len(packed) / len(held_out)
  table = Table('bits per byte', 'compressor', title=f'{len(held_out):,} bytes of held-out source')
  table.add_row(f'{bits(gzip.compress(held_out, 9)):.3f}', 'gzip -9')
  table.add_row(f'{bits(lzma.compress(held_out, preset=9)):.3f}', 'xz -9')
  table.add_row(f'[bold]{last_score(workdir):.3f}[/]', f'this model, {loaded.step} steps')
  console = Console()
  console.print(table)
  console.print(f'loss curve: {workdir / "curve.png"}')


if __name__ == '__main__':
  try:
    main()
  except (errors.UserError, OSError) as e:
    sys.exit(f'compare_compressors: {e}')
