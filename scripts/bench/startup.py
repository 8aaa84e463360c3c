"""Measure the time of imports, and from a command to its first training step.

python scripts/bench/startup.py
"""

import argparse
import subprocess
import sys
import tempfile

import harness

_FIRST = """
import sys
from tfm.cli import main
from tfm.train import metrics
metrics.Metrics.train = lambda self, step, row: sys.exit(0)
main.run(sys.argv[1:])
"""


def run(*words: str) -> None:
  """Run a Python process to its end."""
  subprocess.run(
    [sys.executable, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )


def first_step(folder: str) -> None:
  """Run the quickstart to its first metrics; the text is already tokenized."""
  work = tempfile.mkdtemp(dir=folder)
  words = ['train', '--config=quickstart', f'--workdir={work}', '--config.record.log_every=1']
  subprocess.run(
    [sys.executable, '-c', _FIRST, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
  )


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    rivals = {
      'python': lambda: run('-c', ''),
      'import jax, flax.linen': lambda: run('-c', 'import jax, flax.linen'),
      'import jax, flax.linen, tfm': lambda: run('-c', 'import jax, flax.linen, tfm'),
      'the same, and tfm.apply, tfm.zoo': lambda: run(
        '-c', 'import jax, flax.linen, tfm; tfm.apply, tfm.zoo'
      ),
      'tfm --help': lambda: run('-c', 'from tfm.cli.main import run; run(["--help"])'),
      'tfm train: quickstart to its first step': lambda: first_step(folder),
    }
    found = harness.alternate(rivals, args.rounds)
  middle = {name: sorted(times)[len(times) // 2] for name, times in found.items()}
  base = middle['import jax, flax.linen']
  rows = []
  for name, seconds in middle.items():
    over = f'{seconds - base:+.3f}' if 'import' in name or 'same' in name else ''
    rows.append({'what': name, 'seconds': seconds, 'over jax and flax': over})
  harness.report('start-up', rows, args.out)


if __name__ == '__main__':
  main()
