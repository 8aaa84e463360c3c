"""Run benchmarks in turns, and report medians with the limits of the machine."""

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


class OwnProcess:
  """A rival in its own process.

  Two runtimes in one process share an allocator and keep each other's threads awake.

  Args:
    make: function that returns the call to be timed; it runs in the process and must pickle.
    *args: arguments of `make`, which must pickle.
    limit: seconds that the start and each call may take; None: any time.
  """

  def __init__(
    self, make: Callable[..., Callable[[], Any]], *args: Any, limit: float | None = None
  ):
    self._limit = limit
    context = multiprocessing.get_context('spawn')
    self._here, there = context.Pipe()
    self._process = context.Process(target=_serve, args=(there, make, args), daemon=True)
    self._process.start()
    there.close()
    self._wait()

  def __call__(self) -> float:
    """Run the call one time in its process, and return the CPU seconds of all its threads."""
    self._here.send(None)
    return self._wait()

  def _wait(self) -> float:
    if not self._here.poll(self._limit):
      self.close()
      raise RuntimeError(f'no answer after {self._limit:.0f} s')
    answer = self._here.recv()
    if isinstance(answer, str):
      raise RuntimeError(answer)
    return float(answer)

  def close(self) -> None:
    """End the process."""
    self._process.terminate()
    self._process.join()


def apart(fn: Callable[..., Any], *args: Any, limit: float | None = None) -> Any:
  """Return the result of a function in a separate process.

  Args:
    fn: the function, which must pickle, as its result.
    *args: its arguments.
    limit: seconds after which the process is ended; None: no limit.

  Returns:
    The result.

  Raises:
    RuntimeError: the function failed, or took too long.
  """
  context = multiprocessing.get_context('spawn')
  here, there = context.Pipe(duplex=False)
  process = context.Process(target=_answer, args=(there, fn, args), daemon=True)
  process.start()
  there.close()
  try:
    if not here.poll(limit):
      raise RuntimeError(f'no answer after {limit:.0f} s')
    result, error = here.recv()
  except EOFError as ended:
    raise RuntimeError('the process ended') from ended
  finally:
    process.terminate()
    process.join()
  if error is not None:
    raise RuntimeError(error)
  return result


def _answer(pipe: Connection, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
  try:
    pipe.send((fn(*args), None))
  except Exception as error:
    pipe.send((None, f'{type(error).__name__}: {error}'))


def _serve(pipe: Connection, make: Callable[..., Callable[[], Any]], args: tuple[Any, ...]) -> None:
  try:
    call = make(*args)
    pipe.send(0.0)
    while True:
      pipe.recv()
      start = time.process_time()
      call()
      pipe.send(time.process_time() - start)
  except EOFError:
    pass
  except Exception as error:
    pipe.send(f'{type(error).__name__}: {error}')


def alternate(
  rivals: dict[Any, Callable[[], Any]], rounds: int = 5, warm: int = 1
) -> dict[Any, list[float]]:
  """Time all rivals in turns, so that disturbances affect all of them.

  Args:
    rivals: calls by name.
    rounds: number of timed calls per rival.
    warm: number of calls before them that are not timed.

  Returns:
    Seconds of each timed call, by name.
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
  """Return the speedup of the second over the first: the median of the ratios per round."""
  return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def matmul_gflops(m: int = 1024, k: int = 768, n: int = 3072, rounds: int = 7) -> float:
  """Return the best matmul rate of the machine in GFLOP/s, by jax or PyTorch.

  Args:
    m: rows of the first matrix.
    k: columns of the first matrix.
    n: columns of the second matrix.
    rounds: number of timed calls.

  Returns:
    GFLOP/s of the fastest call.
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


def _shown(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def report(
  title: str, rows: list[dict[str, Any]], out: str | None, notes: dict[str, Any] | None = None
) -> None:
  """Print the rows as a table, and write them as JSON.

  Args:
    title: title of the table.
    rows: one dict per row, with the same keys.
    out: file for the JSON, with the machine and the versions; None writes none.
    notes: further values to print and write.
  """
  import jax

  table = Table(title=title)
  for column in rows[0]:
    table.add_column(column, justify='left' if isinstance(rows[0][column], str) else 'right')
  for row in rows:
    table.add_row(*map(_shown, row.values()))
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
