"""Write tfm/zoo/MODELS.md: the cost of every model, and the accuracy of every family.

    python scripts/model_cards.py    # a few minutes; allocates no arrays

Measure the accuracy of the families first:

    TFM_ALL=1 TFM_REACHED=tfm/zoo/weights/reached.jsonl python -m pytest tests/hub/test_published.py

Differences are relative to transformers, with random weights at toy size in float32. Differences of
outputs are relative to the largest output if that is above 1. Differences of gradients are relative
to the largest gradient of each parameter.
"""

import json
import pathlib

from rich.progress import track

from tfm import hub, zoo
from tfm.cli.sheets import Sheet
from tfm.core.errors import UserError
from tfm.model import count
from tfm.zoo import weights

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'tfm' / 'zoo' / 'MODELS.md'
REACHED = ROOT / 'tfm' / 'zoo' / 'weights' / 'reached.jsonl'
LENGTH = 1024

HEAD = f"""# Models

Written by `python scripts/model_cards.py`. Numbers of parameters are exact; the next column is the
size that the authors state. Active parameters are those used per token. FLOPs are per token of a
forward pass over {LENGTH:,} tokens. Cache bytes are per token of a long sequence in bfloat16. The
`transformers` class in the table opens the files of `tfm.export_hf`.
"""


def models() -> Sheet:
  """Return the table of models."""
  rows = []
  for name in track(zoo.names(), 'models'):
    entry = zoo.TABLE[name]
    rows.append((
      f'`{name}`', f'{count.count_params(entry.spec):,}', entry.published,
      f'{count.count_active_params(entry.spec):,}',
      f'{count.flops_per_token(entry.spec, LENGTH):.3g}',
      f'{count.cache_bytes_per_token(entry.spec):,}',
      architecture(entry.spec), entry.paper,
    ))  # fmt: skip
  columns = (
    'name', 'parameters', 'published as', 'active', 'FLOPs per token', 'cache bytes per token',
    'class', 'paper',
  )  # fmt: skip
  return Sheet('Models', columns, tuple(rows))


def architecture(spec) -> str:
  """Return the transformers class of a spec, '' if there is none."""
  try:
    return f'`{hub.class_of(spec)[1].architecture}`'
  except UserError:
    return ''


def families() -> Sheet:
  """Return the table of families."""
  # If a case was measured repeatedly, the last line counts.
  reached = {row['case']: row for row in map(json.loads, REACHED.read_text('utf-8').splitlines())}
  rows = []
  for name, family in sorted(weights.TABLE.items()):
    classes = ', '.join(f'`{ending}`' for ending in family.endings)
    cases = [row for row in reached.values() if row['model_type'] == name]
    worst = [f'{max(row[what] or 0 for row in cases):.1e}' for what in ('outputs', 'gradients')]
    rows.append((f'`{name}`', f'{family.stem}...', classes, str(len(cases)), *worst))
  columns = 'model_type', 'class', 'endings', 'cases', 'output error', 'gradient error'
  return Sheet('Families', columns, tuple(rows))


if __name__ == '__main__':
  PAGE.write_text(f'{HEAD}\n{families().markdown()}\n{models().markdown()}', 'utf-8')
