"""A chart of the memory of plans: one stacked bar each, and the limit of the chip."""

from collections.abc import Sequence
from pathlib import Path

from tfm.plan.chips import GIB
from tfm.plan.plan import Plan

#: The order of the classes, from the bottom, and their colours.
_COLOURS = {
  'parameters': '#08519c',
  'optimizer': '#3182bd',
  'average': '#6baed6',
  'models': '#756bb1',
  'cache': '#9ecae1',
  'batch': '#c6dbef',
  'gradients': '#31a354',
  'weight copies': '#a1d99b',
  'activations': '#fd8d3c',
  'temporaries': '#fdd0a2',
}


def draw(plans: Sequence[Plan], path: str | Path, names: Sequence[str] = ()) -> Path:
  """Draw the memory of plans into a PNG file.

  Args:
    plans: The plans.
    path: The file.
    names: A name for each bar; by default step and topology.

  Returns:
    The path.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  names = names or [f'{plan.step}\n{plan.topology}' for plan in plans]
  figure = Figure(figsize=(2.8 + 1.5 * len(plans), 4.8), dpi=120, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  bottom = [0.0] * len(plans)
  for label, colour in _COLOURS.items():
    heights = [plan.memory.bytes.get(label, 0) / GIB for plan in plans]
    if max(heights) <= 0:
      continue
    axes.bar(range(len(plans)), heights, 0.6, bottom, label=label, color=colour)
    bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
  for i, plan in enumerate(plans):
    axes.annotate(f'{plan.memory.peak / GIB:.2f}', (i, bottom[i]), ha='center', va='bottom')
    if plan.topology.chip.hbm is not None:
      limit = plan.topology.chip.hbm / GIB
      axes.hlines(limit, i - 0.4, i + 0.4, colors='#cb181d', linewidth=1.6)
  axes.set(xticks=range(len(plans)), ylabel='GiB per chip', xlim=(-0.6, len(plans) - 0.4))
  axes.set_xticklabels(names, fontsize=8)
  handles, labels = axes.get_legend_handles_labels()
  figure.legend(handles[::-1], labels[::-1], loc='outside right upper', frameon=False, fontsize=8)
  figure.savefig(path)
  return Path(path)
