"""Longformer (Beltagy et al., 2020): RoBERTa with windowed attention and global tokens."""

from collections.abc import Sequence
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Model, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.mask.window import Window
from tfm.parts.mixer.longformer import Longformer
from tfm.zoo import roberta
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel, FamilyTower
from tfm.zoo.fields import Fields
from tfm.zoo.layers import layers_of, segments

PAPER = 'Longformer: The Long-Document Transformer, arXiv:2004.05150'


def longformer(layers: int, d: int, heads: int, window: int = 512) -> Model:
  """Return a RoBERTa with 4,096 positions, windowed attention and global tokens.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    window: number of tokens that a token attends to, half on each side.

  Returns:
    The spec of the model.
  """
  spec: Any = with_windows(roberta.roberta(layers, d, heads), [window] * layers)
  return dataclasses.replace(spec, absolute=Learned(4096, spec.absolute.offset))


def with_windows(stack: FamilyTower, windows: Sequence[int]) -> Any:
  """Return a tower with windowed attention and global tokens.

  Args:
    stack: the tower.
    windows: window of each layer, half of it on each side.

  Returns:
    The tower with these windows.
  """
  layers = []
  for block, window in zip(layers_of(stack), windows, strict=True):
    mask = Window(window // 2 + 1, ahead=True)
    layers.append(
      dataclasses.replace(block, mixer=Longformer(**{**vars(block.mixer), 'mask': mask}))
    )
  return dataclasses.replace(stack, segments=segments(layers))


def read_windows(c: Fields, layers: int) -> list[int]:
  """Return the window of each layer.

  Args:
    c: fields of the config.
    layers: number of layers.

  Returns:
    One even number per layer.

  Raises:
    UserError: for an odd window, and for a number of windows that is not the number of layers.
  """
  windows = c.get('attention_window', 512)
  windows = windows if isinstance(windows, list) else [windows] * layers
  if len(windows) != layers or any(w < 2 or w % 2 for w in windows):
    raise errors.UserError(
      f'{c.where}: attention_window is {windows}. Expected an even number, or {layers} of them, '
      'one for each layer.'
    )
  return windows


def write_windows(stack: FamilyTower) -> dict[str, Any]:
  """Return the config field of a tower's windows."""
  return {'attention_window': [2 * (b.mixer.mask.size - 1) for b in layers_of(stack)]}


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.only(onnx_export=False)
  c.skip(
    'ignore_attention_mask', 'attention_mode', 'autoregressive'
  )  # unused fields of the first release
  spec = roberta.read(c)
  return with_windows(spec, read_windows(c, depth(spec)))


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {**roberta.write(m), **write_windows(m)}


MODELS = {
  'longformer-base-4096': Entry(longformer(12, 768, 12), 148_711_257, '149M', PAPER),
  'longformer-large-4096': Entry(longformer(24, 1024, 16), 434_653_273, '435M', PAPER),
}
