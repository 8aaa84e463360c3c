"""Plan a run without its hardware: does it fit, and how fast can it be?

The step is compiled for the chips of --topology, which need not be there.

Examples:
  tfm plan --config=pretrain:llama3-8b --topology=v5p:2x2x2
  tfm plan --config=pretrain:gpt2 --topology=h100:8 --step=decode
  tfm plan --config=pretrain:llama2-7b --topology=v5e:4x4 --fit
  tfm plan --config=quickstart --topology=cpu:4 --config.mesh.fsdp=4 \\
    --config.mesh.data=1 --json

Exit status: 0 the step fits, 1 it does not."""

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

from absl import flags

from tfm.cli import flags as command

if TYPE_CHECKING:
  from tfm.plan.plan import Plan
  from tfm.plan.topology import Topology
  from tfm.train.experiment import Experiment

FLAGS = command.new()
CONFIG = command.define_config(FLAGS)
TOPOLOGY = flags.DEFINE_string(
  'topology',
  None,
  'the chips: v5p:4x4x8, v5e-16, h100:8, cpu:8, ...',
  required=True,
  flag_values=FLAGS,
)
STEP = flags.DEFINE_enum(
  'step', 'train', ['train', 'eval', 'prefill', 'decode'], 'what to compile', flag_values=FLAGS
)
FLAGS.group('Search')
FIT = flags.DEFINE_bool(
  'fit', False, 'search mesh, remat and micro-batches that fit',
  flag_values=FLAGS,
)  # fmt: skip
FINALISTS = flags.DEFINE_integer(
  'finalists', 3, 'how many candidates --fit compiles', lower_bound=1, flag_values=FLAGS
)
MAX_BATCH = flags.DEFINE_bool(
  'max_batch', False, 'find the largest data.batch that fits', flag_values=FLAGS
)
MAX_CONTEXT = flags.DEFINE_bool(
  'max_context', False, 'find the largest data.length that fits', flag_values=FLAGS
)
FLAGS.group('Output')
SAVE = flags.DEFINE_string(
  'save', None, 'a file for the compiled training step',
  flag_values=FLAGS,
)  # fmt: skip
JSON = flags.DEFINE_bool('json', False, 'print one JSON object', flag_values=FLAGS)
PICTURE = flags.DEFINE_string(
  'picture', None, 'a PNG file for a chart of the memory', flag_values=FLAGS
)
MARKDOWN = flags.DEFINE_bool('markdown', False, 'print tables as Markdown', flag_values=FLAGS)


def main() -> int:
  """Print the plan, and return the exit status."""
  from tfm.plan import topology as topology_lib

  topology = topology_lib.parse(TOPOLOGY.value)
  _prepare(topology)
  experiment: Experiment = CONFIG.resolve().config
  from tfm.cli import planned
  from tfm.cli.train import read_model
  from tfm.train.constants import described

  wanted = [name for name in ('fit', 'max_batch', 'max_context') if FLAGS[name].value]
  planned.check_flags(experiment, wanted, STEP.value, SAVE.value)
  experiment = described(experiment, read_model)
  if not wanted:
    return _show(_plan(experiment, topology))
  if wanted == ['fit']:
    found = planned.fit(experiment, topology, FINALISTS.value, quiet=JSON.value)
  else:
    found = planned.largest(experiment, topology, STEP.value, wanted[0], quiet=JSON.value)
  if JSON.value:
    print(json.dumps(found.json()))
  else:
    planned.show_search(found, MARKDOWN.value)
  if found.best is None:
    return 1
  if not JSON.value:
    _show(found.best)
  return 0


def _plan(experiment: 'Experiment', topology: 'Topology') -> 'Plan':
  from tfm.cli import planned
  from tfm.plan.plan import plan
  from tfm.train import executable

  def save(lowered: Any, compiled: Any) -> None:
    if SAVE.value:
      executable.save(SAVE.value, experiment, lowered, compiled)

  with planned.waiting(f'compiling for {topology}', quiet=JSON.value):
    return plan(experiment, topology, STEP.value, save)


def _show(plan: 'Plan') -> int:
  from tfm.cli import planned

  if JSON.value:
    print(json.dumps(plan.json()))
  else:
    planned.show(plan, MARKDOWN.value)
  if PICTURE.value:
    from tfm.plan.picture import draw

    draw([plan], PICTURE.value)
    if not JSON.value:
      print(f'{PICTURE.value}: the memory as a chart')
  return 0 if plan.fits else 1


def _prepare(topology: 'Topology') -> None:
  """Keep jax on the CPU, with as many simulated devices as the topology needs."""
  os.environ['JAX_PLATFORMS'] = 'cpu'
  import jax

  jax.config.update('jax_platforms', 'cpu')
  counted = 'host_platform_device_count' in os.environ.get('XLA_FLAGS', '')
  if topology.chip.platform == 'cpu' and not counted:
    # In a process that has used jax already, the topology reports too few devices.
    with contextlib.suppress(RuntimeError):
      jax.config.update('jax_num_cpu_devices', topology.count)
