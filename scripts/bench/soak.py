"""Kill a run with SIGKILL at random moments, and compare it with an uninterrupted one.

python scripts/bench/soak.py --kills=10 --meshes=one
python scripts/bench/soak.py --kills=14 --meshes=one,data8,fsdp4-tensor2,two-processes

The meshes take turns. Half of the kills wait for a save. Each resumed run must start from the last
complete checkpoint, and no checkpoint may be damaged. The losses must match the uninterrupted run,
bit for bit if there is one mesh.
"""

import argparse
import json
import os
from pathlib import Path
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

import harness

SAVE_EVERY = 5
#: Simulated devices of a process, processes, and fields of the mesh.
MESHES = {
  'one': (1, 1, {}),
  'data8': (8, 1, {'data': 8}),
  'fsdp4-tensor2': (8, 1, {'data': 1, 'fsdp': 4, 'tensor': 2}),
  'two-processes': (4, 2, {'data': 2, 'fsdp': 4}),
}
_SEEN = re.compile(r'resumed from \S+/checkpoints/(\d+)')


def child(folder: str, workdir: str, fields: str) -> None:
  """Train in this process."""
  from tfm.core import config
  from tfm.data.text import Text
  from tfm.data.tokenizer import Byte
  from tfm.model.spec import Block, Model, Segment
  from tfm.optim import AdamW
  from tfm.parts.embed.tokens import Tokens
  from tfm.parts.ffn import Glu
  from tfm.parts.mixer import Attention
  from tfm.train import Experiment, Record, distributed, loop

  distributed.start()
  block = Block(Attention(heads=4, kv_heads=2), Glu(d_ff=64), dropout=0.1)
  x = Experiment(
    model=Model(embed=Tokens(256), d_model=32, segments=(Segment((block,), 2),)),
    data=Text(tokenizer=Byte(), files=f'{folder}/a.txt', length=32, batch=8, cache=folder),
    optim=AdamW(lr=3e-4),
    eval_every=10**6,
    record=Record(log_every=1, sample=None, eval_batches=1),
  )
  for path, value in json.loads(fields).items():
    x = config.override(x, path, str(value))
  loop.train(x, workdir)


class Run:
  """The processes of one start of a run."""

  def __init__(self, folder: Path, workdir: Path, mesh: str, **fields: int):
    devices, count, axes = MESHES[mesh]
    fields = {**fields, **{f'mesh.{name}': size for name, size in axes.items()}}
    command = [sys.executable, __file__, '--child', str(folder), str(workdir), json.dumps(fields)]
    self.log = folder / 'log.txt'
    env = os.environ | {
      'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
      'JAX_PLATFORMS': 'cpu',
      'JAX_COMPILATION_CACHE_DIR': str(folder / f'compiled-{mesh}'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    if count > 1:
      env |= {'TFM_COORDINATOR': f'127.0.0.1:{_port()}', 'TFM_PROCESSES': str(count)}
    self.processes = []
    with open(self.log, 'w') as log:
      for i in range(count):
        self.processes.append(
          subprocess.Popen(
            command, env=env | {'TFM_PROCESS': str(i)} if count > 1 else env, stdout=log, stderr=log
          )
        )

  def ended(self) -> bool:
    return any(process.poll() is not None for process in self.processes)

  def kill(self, draw: random.Random) -> None:
    """Kill the processes one after another, in a random order."""
    for process in draw.sample(self.processes, len(self.processes)):
      process.send_signal(signal.SIGKILL)
      time.sleep(draw.choice((0, 0.02)))
    self.wait()

  def wait(self) -> list[int]:
    return [process.wait() for process in self.processes]


def _port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return int(s.getsockname()[1])


def losses(workdir: Path) -> dict[int, float]:
  """Return the training loss of each step."""
  from tfm.train.metrics import read

  return {r['step']: r['loss_nats'] for r in read(workdir / 'metrics.jsonl') if 'loss_nats' in r}


def steps(workdir: Path) -> list[int]:
  """Return the steps of the complete checkpoints."""
  names = (path.name for path in (workdir / 'checkpoints').glob('*'))
  return sorted(int(name) for name in names if name.isdigit())


def kill_at_random(
  run: Run, workdir: Path, last: int, during_save: bool, draw: random.Random
) -> bool | None:
  """Kill a run some time after its first new step.

  Returns:
    Whether a save was under way, or None if the processes did not connect.
  """
  start, resumes = time.monotonic(), bool(last)
  while (resumes and not _SEEN.search(run.log.read_text())) or max(
    losses(workdir), default=0
  ) <= last:
    if run.ended() or time.monotonic() - start > 200:
      run.kill(draw)
      text = run.log.read_text()
      if 'Gloo context initialization failed' in text:  # the machine is too slow for its timeout
        return None
      raise SystemExit(f'the run did not start:\n{text}')
    time.sleep(0.02)
  # Every mesh must contribute a checkpoint.
  while max(steps(workdir), default=0) <= last and not run.ended():
    time.sleep(0.01)
  time.sleep(draw.uniform(0, 4))
  partial = lambda: list((workdir / 'checkpoints').glob('*.orbax-checkpoint-tmp*'))
  if during_save:
    while not partial() and not run.ended():
      time.sleep(0.001)
    time.sleep(draw.uniform(0, 0.1))
  run.kill(draw)
  return bool(partial())


def check(workdir: Path, run: Run, was: list[int]) -> None:
  """Stop unless the killed run had resumed correctly and left good checkpoints."""
  from tfm.train import checkpoint

  text, now = run.log.read_text(), steps(workdir)
  resumed = [int(step) for step in _SEEN.findall(text)]
  if was and set(resumed) != {was[-1]}:
    raise SystemExit(f'resumed from {resumed}, but the last checkpoint was {was[-1]}:\n{text}')
  if 'damaged' in text or (workdir / 'broken').exists():
    raise SystemExit(f'a checkpoint is damaged:\n{text}')
  for step in now:
    checkpoint.load(workdir / 'checkpoints' / str(step))
  if max(losses(workdir)) - max(now, default=0) > 2 * SAVE_EVERY:
    raise SystemExit(f'{max(losses(workdir))} steps ran, but only {now} are saved')


def soak(folder: Path, meshes: list[str], kills: int, total: int, seed: int) -> None:
  """Kill and resume a run, then compare it with an uninterrupted one."""
  draw = random.Random(seed)
  words = [
    'to',
    'be',
    'or',
    'not',
    'to',
    'be',
    'that',
    'is',
    'the',
    'question',
    'whether',
    'it',
    'is',
    'nobler',
    'in',
    'the',
    'mind',
  ]
  (folder / 'a.txt').write_text(' '.join(draw.choice(words) for _ in range(4000)))
  whole, workdir = folder / 'whole', folder / 'killed'
  assert Run(folder, whole, meshes[0], steps=total, save_every=total).wait() == [0]
  rows, start = [], time.monotonic()
  for i in range(kills):
    was, mesh = steps(workdir), meshes[i % len(meshes)]
    if not was:
      (workdir / 'metrics.jsonl').unlink(missing_ok=True)
    run = Run(folder, workdir, mesh, steps=total, save_every=SAVE_EVERY)
    saving = kill_at_random(run, workdir, max(was, default=0), i % 2 == 1, draw)
    check(workdir, run, was)
    saved, reached = steps(workdir), max(losses(workdir))
    last = saved[-1] if saved else 0
    rows.append({'kill': i + 1, 'mesh': mesh, 'step': reached, 'saved': last, 'in a save': saving})
    print(rows[-1], flush=True)
  final = Run(folder, workdir, meshes[0], steps=total, save_every=SAVE_EVERY * 20)
  if any(final.wait()):
    raise SystemExit(final.log.read_text())
  expected, found = losses(whole), losses(workdir)
  if sorted(found) != list(range(1, total + 1)):
    raise SystemExit('some steps are missing, or are there twice')
  differences = [abs(found[step] / expected[step] - 1) for step in expected]
  notes = {
    'kills': kills,
    'kills during a save': sum(bool(row['in a save']) for row in rows),
    'steps': total,
    'largest relative difference of a loss': max(differences),
    'minutes': (time.monotonic() - start) / 60,
  }
  harness.report('kills', rows, None, notes)
  if max(differences) > (0 if len(meshes) == 1 else 1e-3):
    raise SystemExit('the losses differ from the uninterrupted run')


def main() -> None:
  """Run the soak, or a single process of it."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--kills', type=int, default=14)
  parser.add_argument('--meshes', default=','.join(MESHES))
  parser.add_argument('--steps', type=int, default=1000)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--child', nargs=3, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    child(*args.child)
    return
  with tempfile.TemporaryDirectory() as folder:
    soak(Path(folder), args.meshes.split(','), args.kills, args.steps, args.seed)


if __name__ == '__main__':
  main()
