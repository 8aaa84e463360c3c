"""Prepare the data of a config before training, and show its sizes.

Text is tokenised into the cache, from which training reads it. A killed
preparation continues where it stopped.

Examples:
  tfm data --config=quickstart
  tfm data --config=pretrain:gpt2 --config.data='text(files=corpus/*.jsonl.gz)'
  tfm data --config=quickstart --check"""

import contextlib
import json
from typing import Any

from absl import flags

from tfm.cli import flags as command

FLAGS = command.new()
CONFIG = command.define_config(FLAGS, needed=True)
CHECK = flags.DEFINE_bool(
  'check', False, 'compare all stored tokens with their hashes', flag_values=FLAGS
)
REBUILD = flags.DEFINE_bool(
  'rebuild', False, 'delete the stored tokens, and tokenise again', flag_values=FLAGS
)
JSON = flags.DEFINE_bool('json', False, 'print one JSON object', flag_values=FLAGS)


def main() -> None:
  """Print the sizes of each split and the first sequence."""
  from tfm.cli import sheets
  from tfm.data import store, summary

  cfg = CONFIG.resolve().config
  with store.rebuilding() if REBUILD.value else contextlib.nullcontext():
    dataset = cfg.data.open(cfg.task)
  stored = summary.stores(dataset)
  if CHECK.value:
    for each in stored:
      each.check()
  rows, text = summary.summary(dataset), summary.first_text(dataset)
  paths = [str(each.path) for each in stored]
  if JSON.value:
    print(json.dumps({'splits': rows, 'stores': paths, 'first': text}))
    return
  sheets.show([_sheet(rows)])
  for split, row in rows.items():
    for line in summary.rejected_lines(row):
      print(f'{split}: {line}')
  checked = ', every file as it was written' if CHECK.value else ''
  for path in paths:
    print(f'stored in {path}{checked}')
  if text is not None:
    print(f'first sequence: {text!r}')


def _sheet(rows: dict[str, dict[str, Any]]) -> Any:
  """Return a row for each size and a column for each split."""
  from tfm.cli.sheets import Sheet

  first = next(iter(rows.values()))
  table = []
  for name in first:
    if name != 'rejected':
      table.append((name, *(_text(row[name]) for row in rows.values())))
  return Sheet('data', ('', *rows), tuple(table))


def _text(value: float | int | None) -> str:
  if value is None:
    return ''
  return f'{value:,}' if isinstance(value, int) else f'{value:.3f}'
