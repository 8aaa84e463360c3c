"""Measuring side by side: the rivals take turns, every number is a median, the machine's floor is
measured too.
"""

from collections.abc import Callable
import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
import platform
import statistics
import time
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


class Apart:
  """A rival in a process of its own: two runtimes in one share an allocator and keep each other's
  threads awake.

  `make(*args)` is called there and gives the call to be timed; it and `args` must pickle.
  """

  def __init__(self, make: Callable[..., Callable[[], Any]], *args: Any):
    context = multiprocessing.get_context('spawn')
    self._here, there = context.Pipe()
    self._process = context.Process(target=_serve, args=(there, make, args), daemon=True)
    self._process.start()
    there.close()
    self._wait()

  def __call__(self) -> None:
    self._here.send(None)
    self._wait()

  def _wait(self) -> None:
    if (error := self._here.recv()) is not None:
      raise RuntimeError(error)

  def close(self) -> None:
    self._process.terminate()
    self._process.join()


def _serve(pipe: Connection, make: Callable[..., Callable[[], Any]], args: tuple[Any, ...]) -> None:
  try:
    call = make(*args)
    pipe.send(None)
    while True:
      pipe.recv()
      call()
      pipe.send(None)
  except EOFError:
    pass
  except Exception as error:
    pipe.send(f'{type(error).__name__}: {error}')


def alternate(
  rivals: dict[Any, Callable[[], Any]], rounds: int = 5, warm: int = 1
) -> dict[Any, list[float]]:
  """Seconds of each of `rounds` calls of every rival, taken in turns so that all feel the same
  disturbances.
  """
  seconds: dict[Any, list[float]] = {name: [] for name in rivals}
  for i in range(warm + rounds):
    for name, call in rivals.items():
      start = time.perf_counter()
      call()
      if i >= warm:
        seconds[name].append(time.perf_counter() - start)
  return seconds


def ratio(slow: list[float], fast: list[float]) -> float:
  """How many times faster the second is: the median over rounds of the ratios within a round."""
  return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def matmul_gflops(m: int = 1024, k: int = 768, n: int = 3072, rounds: int = 7) -> float:
  """The best matmul rate of this machine at a transformer's shapes, by whichever of jax and PyTorch
  is faster.
  """
  import jax
  import jax.numpy as jnp

  a, b = np.random.rand(m, k).astype(np.float32), np.random.rand(k, n).astype(np.float32)
  calls: dict[str, Callable[[], Any]] = {}
  multiply, x, y = jax.jit(jnp.matmul), jnp.asarray(a), jnp.asarray(b)
  calls['jax'] = lambda: [multiply(x, y) for _ in range(8)][-1].block_until_ready()
  try:
    import torch

    s, t = torch.from_numpy(a), torch.from_numpy(b)
    calls['torch'] = lambda: [s @ t for _ in range(8)]
  except ImportError:
    pass
  best = min(min(times) for times in alternate(calls, rounds).values())
  return 8 * 2 * m * k * n / best / 1e9


def report(
  title: str, rows: list[dict[str, Any]], out: str | None, notes: dict[str, Any] | None = None
) -> None:
  """Prints rows as a table and writes them, with the machine and the versions, as JSON to `out`."""
  import jax

  table = Table(title=title)
  for column in rows[0]:
    table.add_column(column, justify='left' if isinstance(rows[0][column], str) else 'right')
  for row in rows:
    table.add_row(*(f'{v:.4g}' if isinstance(v, float) else str(v) for v in row.values()))
  console = Console(width=120)
  console.print(table)
  for name, value in (notes or {}).items():
    console.print(f'{name}: {value:.4g}' if isinstance(value, float) else f'{name}: {value}')
  if out:
    machine = {
      'platform': platform.platform(),
      'python': platform.python_version(),
      'jax': jax.__version__,
    }
    machine['devices'] = [d.device_kind for d in jax.devices()]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(
      json.dumps({'title': title, 'rows': rows, 'notes': notes or {}, **machine}, indent=1)
    )
