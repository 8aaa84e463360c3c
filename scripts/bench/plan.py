"""Plan the published cases, and write `tfm/plan/CASES.md`. Needs libtpu, and no TPU.

    python scripts/bench/plan.py                      # all cases, about an hour on 2 cores
    python scripts/bench/plan.py --only=llama2-7b     # the cases whose name contains this
    python scripts/bench/plan.py --pages              # only write the page again

Every case trains with bfloat16 computation, float32 weights, gradients and AdamW moments,
`remat=full`, scanned layers, `attend=auto`, and parameters sharded over all chips.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
import sys

os.environ['JAX_PLATFORMS'] = 'cpu'
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from configs import pretrain
from tfm import zoo
from tfm.core import config
from tfm.core.precision import Precision
from tfm.data import Images
from tfm.plan import topology
from tfm.plan.chips import GIB
from tfm.plan.plan import plan
from tfm.tasks import Classify
from tfm.train import Experiment
from tfm.train.mesh import Mesh

FOLDER = Path(__file__).resolve().parents[2] / 'tfm' / 'plan'
RESULTS, PAGE = FOLDER / 'cases.jsonl', FOLDER / 'CASES.md'


@dataclasses.dataclass(frozen=True)
class Case:
  """A published case.

  Attributes:
    name: The name in the zoo.
    chips: The topology.
    batch: Examples per chip.
    length: Tokens of an example; 0 for images.
    rival: The peak of maxtext 0.2.4 in GiB per chip, compiled by the same libtpu; None if unknown.
    settings: Further settings of the config.
  """

  name: str
  chips: str
  batch: int
  length: int
  rival: float | None = None
  settings: tuple[tuple[str, str], ...] = ()

  @property
  def key(self) -> str:
    """The identity of the case."""
    extra = ' '.join(f'{path}={value}' for path, value in self.settings)
    return f'{self.name} {self.chips} {self.batch}x{self.length} {extra}'.strip()

  def experiment(self) -> Experiment:
    """Return the training run."""
    count = topology.parse(self.chips).count
    if self.length:
      x = pretrain.get_config(self.name)
      settings = [('data.batch', str(self.batch * count)), ('data.length', str(self.length))]
    else:
      x = _images(self.name)
      settings = [('data.batch', str(self.batch * count))]
    for path, value in (*settings, *self.settings):
      x = config.override(x, path, value)
    return x


def _images(name: str) -> Experiment:
  model = zoo.get(name)
  return Experiment(
    model=model,
    data=Images(root='images', shape=(3, 224, 224), classes=tuple(map(str, range(1000)))),
    task=Classify(),
    mesh=Mesh(data=1, fsdp=-1),
    precision=Precision(compute='bfloat16'),
    remat='full',
  )


_HOST = (('remat', 'residual@host'),)
CASES = (
  Case('llama2-7b', 'v5e:4x4', 2, 4096, 11.43),
  Case('llama2-7b', 'v5e:4x4', 2, 4096, 11.43, _HOST),
  Case('llama3.1-8b', 'v5e:4x4', 2, 4096, 13.63),
  Case('llama3.1-8b', 'v5p:2x2x2', 4, 8192, 38.23),
  Case('llama3.1-70b', 'v5p:4x4x8', 2, 8192, 40.03),
  Case('llama3.1-70b', 'v5p:4x4x8', 2, 8192, 40.03, _HOST),
  Case('mixtral-8x7b', 'v5p:2x4x4', 4, 4096, 36.84),
  Case('t5-v1.1-xxl', 'v5e:4x8', 4, 512),
  Case('bert-large', 'v5e:4x4', 32, 512),
  Case('vit-huge-14', 'v5e:4x4', 32, 0),
  Case('deepseek-v3', 'v5p:8x16x16', 1, 4096, None, (('mesh.fsdp', '256'), ('mesh.expert', '8'))),
)


def measured(case: Case) -> dict[str, object]:
  """Return the plan of a case as JSON values."""
  found = plan(case.experiment(), topology.parse(case.chips)).json()
  versions = {'libtpu': importlib.metadata.version('libtpu')}
  return {'case': case.key, **found, **versions}


def page(rows: dict[str, dict[str, object]]) -> str:
  """Return the page of all measured cases."""
  lines = [
    '# Planned training steps', '',
    'Written by `python scripts/bench/plan.py`; no TPU was used. All cases: bfloat16 computation, '
    'float32 weights,', 'gradients and AdamW moments, `remat=full` unless the settings say '
    'otherwise, scanned layers, flash attention,', 'parameters sharded over all chips. GiB per '
    'chip; `maxtext` is the peak of maxtext 0.2.4 at equal settings.', '',
    '| model | chips | batch per chip | settings | peak | maxtext | ratio | fits | least step, s '
    '| bound | tracing, s | compiling, s |',
    '|---|---|---|---|--:|--:|--:|---|--:|---|--:|--:|',
  ]  # fmt: skip
  for case in CASES:
    if case.key in rows:
      lines.append(_line(case, rows[case.key]))
  libraries = {f'jax {r["jax"]}, libtpu {r["libtpu"]}' for r in rows.values()}
  lines += [
    '',
    'Rows with settings differ from the settings of maxtext. Times are from a busy machine.',
  ]
  return '\n'.join([*lines, '', f'Compiled by {" and ".join(sorted(libraries))}.', ''])


def _line(case: Case, row: dict) -> str:
  peak = row['peak_hbm_bytes_per_chip'] / GIB
  rival, ratio = '', ''
  if case.rival:
    rival, ratio = f'{case.rival:.2f}', f'{peak / case.rival:.2f}'
  floor = row['step_seconds_floor']
  shape = f'{case.batch} x {case.length}' if case.length else f'{case.batch} images'
  settings = ', '.join(f'`{path}={value}`' for path, value in case.settings)
  cells = [
    case.name, case.chips, shape, settings, f'{peak:.2f}', rival, ratio,
    'yes' if row['fits'] else 'no', '' if floor is None else f'{floor:.3g}', row['bound'] or '',
    f'{row["trace_seconds"]:.1f}', f'{row["compile_seconds"]:.0f}',
  ]  # fmt: skip
  return f'| {" | ".join(cells)} |'


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', default='', help='plan the cases with this in their names')
  parser.add_argument('--pages', action='store_true', help='only write the page')
  flags = parser.parse_args()
  rows = {}
  if RESULTS.exists():
    for line in RESULTS.read_text('utf-8').splitlines():
      rows[json.loads(line)['case']] = json.loads(line)
  for case in CASES:
    if flags.pages or flags.only not in case.key:
      continue
    print(f'{case.key} ...', flush=True)
    rows[case.key] = row = measured(case)
    peak = row['peak_hbm_bytes_per_chip'] / GIB
    print(f'  {peak:.2f} GiB, compiled in {row["compile_seconds"]:.0f} s')
    RESULTS.write_text('\n'.join(json.dumps(rows[k]) for k in sorted(rows)) + '\n', 'utf-8')
  PAGE.write_text(page(rows), 'utf-8')
  print(f'wrote {PAGE}')


if __name__ == '__main__':
  main()
