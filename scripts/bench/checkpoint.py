"""Measure saves and restores of checkpoints against raw writes and reads of the same bytes.

python scripts/bench/checkpoint.py --gb=1 --rounds=5

`save blocks` is the time until training may continue; `save` also waits for the files. Files are
read from the disk, or with --warm from the page cache.
"""

import argparse
from collections.abc import Callable
import os
from pathlib import Path
import shutil
import statistics
import tempfile
import time
from typing import Any

import harness

_MB64 = 1 << 26


def state_of(gb: float) -> dict[str, Any]:
  """Return float32 arrays of 64 MiB each, with values like weights."""
  import jax

  count = max(1, round(gb * 16))
  state = {f'w{i}': 0.02 * jax.random.normal(jax.random.key(i), (4096, 4096)) for i in range(count)}
  return jax.block_until_ready(state)


class Stored:
  """The state as a checkpoint, with or without checksums.

  Args:
    folder: The folder of its checkpoint.
    state: The arrays.
    handler: Returns the Orbax handler that saves.
  """

  def __init__(self, folder: Path, state: dict[str, Any], handler: Any):
    import orbax.checkpoint as ocp

    self._folder, self._state, self._ocp = folder, state, ocp
    self._saver = ocp.AsyncCheckpointer(handler())
    self.blocked: list[float] = []

  def save(self) -> None:
    """Save, and wait for the files."""
    shutil.rmtree(self._folder, ignore_errors=True)
    start = time.perf_counter()
    self._saver.save(self._folder / 'state', args=self._ocp.args.PyTreeSave(self._state))
    self.blocked.append(time.perf_counter() - start)
    self._saver.wait_until_finished()

  def restore(self) -> None:
    """Restore, and verify the checksums if there are any."""
    import jax

    from tfm.train.checkpoint import read_state

    like = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), self._state
    )
    jax.block_until_ready(read_state(self._folder, like))

  @property
  def size(self) -> int:
    """The bytes of the files."""
    return sum(path.stat().st_size for path in self._folder.rglob('*') if path.is_file())


def raw_write(folder: Path, state: dict[str, Any]) -> None:
  """Write the bytes of the arrays to files, and sync them."""
  import numpy as np

  folder.mkdir(exist_ok=True)
  for name, array in state.items():
    with open(folder / name, 'wb') as file:
      file.write(memoryview(np.asarray(array)).cast('B'))
      file.flush()
      os.fsync(file.fileno())


def raw_read(folder: Path) -> list[Any]:
  """Read the files into new memory."""
  import numpy as np

  return [np.fromfile(path, np.uint8) for path in sorted(folder.iterdir())]


def evict(folder: Path) -> None:
  """Remove the files of a folder from the page cache."""
  for path in folder.rglob('*'):
    if path.is_file():
      with open(path, 'rb') as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cold(folder: Path, call: Callable[[], Any]) -> Callable[[], Any]:
  """Return `call` after an eviction."""

  def evicted() -> Any:
    evict(folder)
    return call()

  return evicted


def cpu_seconds(call: Any) -> float:
  """Return the CPU time of a call, of all threads."""
  before = os.times()
  call()
  after = os.times()
  return after.user + after.system - before.user - before.system


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--gb', type=float, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--warm', action='store_true')
  parser.add_argument('--folder', help='a folder of the file system to measure')
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  from tfm.train import memory

  memory.keep_freed_memory()
  import orbax.checkpoint as ocp

  from tfm.train import checksums

  state = state_of(args.gb)
  plain = lambda: ocp.PyTreeCheckpointHandler(use_compression=False)
  with tempfile.TemporaryDirectory(dir=args.folder) as name:
    folder = Path(name)
    stored = {
      'tfm': Stored(folder / 'tfm', state, checksums.StateHandler),
      'no checksums': Stored(folder / 'plain', state, plain),
      'no checksums, compressed': Stored(folder / 'zstd', state, ocp.PyTreeCheckpointHandler),
    }
    saves = {'raw': lambda: raw_write(folder / 'raw', state)}
    saves |= {name: one.save for name, one in stored.items()}
    restores = {'raw': lambda: raw_read(folder / 'raw')}
    restores |= {name: one.restore for name, one in stored.items()}
    if not args.warm:
      folders = {'raw': folder / 'raw', 'tfm': folder / 'tfm', 'no checksums': folder / 'plain'}
      folders['no checksums, compressed'] = folder / 'zstd'
      restores = {name: cold(folders[name], call) for name, call in restores.items()}
    saved = harness.alternate(saves, args.rounds)
    restored = harness.alternate(restores, args.rounds)
    cpu = {name: [cpu_seconds(call) for _ in range(3)] for name, call in restores.items()}
    sizes = {name: one.size for name, one in stored.items()}
  middle = statistics.median
  rows = []
  for name in saves:
    blocked = middle(stored[name].blocked[1:]) if name in stored else middle(saved['raw'])
    rows.append({
      'what': name,
      'GB': sizes.get(name, len(state) * _MB64) / 1e9,
      'save s': middle(saved[name]),
      'save blocks s': blocked,
      'blocks / raw write': blocked / middle(saved['raw']),
      'restore s': middle(restored[name]),
      'restore / raw read': middle(restored[name]) / middle(restored['raw']),
      'restore CPU s': middle(cpu[name]),
    })  # fmt: skip
  ratio = harness.ratio(restored['tfm'], restored['no checksums'])
  harness.report('checkpoints', rows, args.out, {'restore, with / without checksums': ratio})


if __name__ == '__main__':
  main()
