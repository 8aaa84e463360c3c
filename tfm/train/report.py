"""Plots of a run: the training curve, its use of time, and images with predictions."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tfm.tasks import Shown

FILE = 'curve.png'
GRID = 'predictions.png'
GOODPUT = 'goodput.png'
#: Columns of the grid, and the size of each image in inches.
_COLUMNS, _INCHES = 4, 1.8
_PHASE_COLORS = (
  '#3182bd', '#9ecae1', '#fd8d3c', '#74c476', '#9e9ac8', '#bdbdbd', '#de2d26', '#636363',
)  # fmt: skip


def draw(workdir: Path, rows: list[dict[str, Any]], shown: Shown) -> Path | None:
  """Draw the curve of one metric into `workdir/curve.png`.

  Args:
    workdir: The folder of the picture.
    rows: The rows of the metrics file.
    shown: The metric. Its validation counterpart is named `val_NAME`.

  Returns:
    The path of the picture, or None if there is nothing to draw yet.
  """
  # Pyplot would choose a backend for the whole process.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  train, val = _points(rows, shown.name), _points(rows, f'val_{shown.name}')
  if not train:
    return None
  figure = Figure(figsize=(8, 4.5), dpi=120, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  steps, losses = zip(*train, strict=True)
  axes.plot(steps, losses, color='#9ecae1', linewidth=0.8, label='train')
  axes.plot(steps, _smooth(losses), color='#3182bd', linewidth=1.6, label='train, smoothed')
  if val:
    steps, losses = zip(*val, strict=True)
    axes.plot(
      steps, losses, color='#e6550d', linewidth=1.6, marker='o', markersize=3, label='validation'
    )
    axes.annotate(
      f'{losses[-1]:.3f}', (steps[-1], losses[-1]), xytext=(4, 4), textcoords='offset points'
    )
  axes.set(xlabel='step', ylabel=shown.label)
  axes.grid(alpha=0.3)
  axes.legend(frameon=False)
  return _saved(figure, workdir / FILE)


def draw_goodput(workdir: Path, runs: list[dict[str, float]]) -> Path | None:
  """Draw the seconds of each phase of each run into `workdir/goodput.png`.

  Args:
    workdir: The folder of the picture.
    runs: For each run, seconds by phase, from `goodput.runs`.

  Returns:
    The path of the picture, or None without runs.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  if not runs:
    return None
  figure = Figure(figsize=(8, 1.6 + 0.25 * len(runs)), dpi=120, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  names = [f'run {n}' for n in range(1, len(runs) + 1)]
  left = np.zeros(len(runs))
  for phase, color in zip(runs[0], _PHASE_COLORS, strict=True):
    widths = np.array([run[phase] for run in runs])
    axes.barh(names, widths, left=left, color=color, label=phase)
    left += widths
  axes.invert_yaxis()
  axes.set(xlabel='seconds')
  figure.legend(
    frameon=False,
    ncols=len(runs[0]),
    loc='outside upper center',
    handlelength=1,
    columnspacing=1,
    fontsize=9,
  )
  return _saved(figure, workdir / GOODPUT)


def draw_grid(workdir: Path, pictures: list[tuple[NDArray[Any], str]]) -> Path | None:
  """Draw images with captions into `workdir/predictions.png`.

  Args:
    workdir: The folder of the picture.
    pictures: (image [H, W, 3] with values from 0 to 1, caption) pairs.

  Returns:
    The path of the picture, or None without images.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  if not pictures:
    return None
  columns = min(_COLUMNS, len(pictures))
  rows = -(-len(pictures) // columns)
  size = (columns * _INCHES, rows * (_INCHES + 0.3))
  figure = Figure(figsize=size, dpi=120, layout='constrained')
  FigureCanvasAgg(figure)
  for index, (image, caption) in enumerate(pictures, 1):
    axes = figure.add_subplot(rows, columns, index)
    axes.imshow(np.clip(image, 0, 1), interpolation='nearest')
    axes.set_title(caption, fontsize=7, wrap=True)
    axes.set_axis_off()
  return _saved(figure, workdir / GRID)


def _points(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
  return [(row['step'], row[name]) for row in rows if row.get(name) is not None]


def _saved(figure: Any, path: Path) -> Path:
  """Write a picture atomically, so that readers never open an incomplete file."""
  new = path.with_name(f'.{path.name}')
  figure.savefig(new, format='png')
  return new.replace(path)


def _smooth(values: tuple[float, ...], share: float = 0.05) -> list[float]:
  """Return the trailing moving average of `values`."""
  width = max(1, int(len(values) * share))
  return [
    sum(values[max(0, i + 1 - width) : i + 1]) / min(i + 1, width) for i in range(len(values))
  ]
