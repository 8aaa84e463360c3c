"""Writes tfm/zoo/MODELS.md: every model of the zoo with what it costs, every family with how near
its numbers come.

    python scripts/model_cards.py  # a few minutes; no array is made TFM_ALL=1
    TFM_REACHED=tfm/zoo/weights/reached.jsonl python -m pytest tests/hub/test_published.py  #
    families

Differences are of outputs, relative to the largest of theirs where that is above 1, and of
gradients, relative to the largest of each parameter; both as the tests of the families have them,
with random weights at toy size in float32."""

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

Written by `python scripts/model_cards.py`. Parameters are exact, beside the size that the authors print; active ones
are those that a token meets. FLOPs are of a forward pass, a token of a document of {LENGTH:,}; cache bytes are what a
token adds in bfloat16 to a long row. The class is that of `transformers` which opens what `tfm.export_hf` writes.
"""


def models() -> Sheet:
  """A line a model."""
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
    'name',
    'parameters',
    'published as',
    'active',
    'FLOPs a token',
    'cache bytes a token',
    'class',
    'paper',
  )
  return Sheet('Models', columns, tuple(rows))


def architecture(spec) -> str:
  """The class that says what the spec computes; '' if none is known."""
  try:
    return f'`{hub.class_of(spec)[1].architecture}`'
  except UserError:
    return ''


def families() -> Sheet:
  """A line a family."""
  # Of a case that was measured again the last line holds.
  reached = {row['case']: row for row in map(json.loads, REACHED.read_text('utf-8').splitlines())}
  rows = []
  for name, family in sorted(weights.TABLE.items()):
    classes = ', '.join(f'`{ending}`' for ending in family.endings)
    cases = [row for row in reached.values() if row['model_type'] == name]
    worst = [f'{max(row[what] or 0 for row in cases):.1e}' for what in ('outputs', 'gradients')]
    rows.append((f'`{name}`', f'{family.stem}...', classes, str(len(cases)), *worst))
  columns = 'model_type', 'class', 'endings', 'cases', 'outputs within', 'gradients within'
  return Sheet('Families', columns, tuple(rows))


if __name__ == '__main__':
  PAGE.write_text(f'{HEAD}\n{families().markdown()}\n{models().markdown()}', 'utf-8')
