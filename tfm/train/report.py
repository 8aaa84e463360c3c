"""The curve of a run as a picture."""

from pathlib import Path
from typing import Any

FILE = 'curve.png'


def draw(workdir: Path, rows: list[dict[str, Any]]) -> Path | None:
  """Draws the losses of the metric `rows` into `workdir/curve.png`; None if there is nothing to draw yet."""
  # Not pyplot: that would choose a backend for the whole process.
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  train = [(r['step'], r['loss_nats']) for r in rows if r.get('loss_nats') is not None]
  val = [(r['step'], r['val_loss_nats']) for r in rows if r.get('val_loss_nats') is not None]
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
    axes.plot(steps, losses, color='#e6550d', linewidth=1.6, marker='o', markersize=3, label='validation')
    axes.annotate(f'{losses[-1]:.3f}', (steps[-1], losses[-1]), xytext=(4, 4), textcoords='offset points')
  axes.set(xlabel='step', ylabel='loss (nats a token)')
  axes.grid(alpha=0.3)
  axes.legend(frameon=False)
  new = workdir / f'.{FILE}'
  figure.savefig(new, format='png')
  return new.replace(workdir / FILE)


def _smooth(values: tuple[float, ...], share: float = 0.05) -> list[float]:
  """The mean of the last few values before each."""
  width = max(1, int(len(values) * share))
  return [sum(values[max(0, i + 1 - width) : i + 1]) / min(i + 1, width) for i in range(len(values))]
