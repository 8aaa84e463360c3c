"""A model in a folder as sheets: files, generation settings, layers and cost."""

from collections.abc import Iterator, Sequence

from tfm.cli import layers
from tfm.cli.sheets import Sheet
from tfm.core import errors
from tfm.hub import Loaded, describe
from tfm.hub.files import CONFIG
from tfm.parts.cache import Cache


def sheets(path: str, cache: Cache, ignore: Sequence[str] = ()) -> list[Sheet]:
  """Return the sheets of a published folder or a checkpoint. Its weights are not read.

  Args:
    path: The folder.
    cache: The kind of cache, for its memory.
    ignore: Unknown fields of its config to ignore.

  Raises:
    UserError: The folder holds no model.
  """
  m = describe(path, ignore)
  data, precision = getattr(m.experiment, 'data', None), getattr(m.experiment, 'precision', None)
  values = m.files.json(CONFIG)
  computed = getattr(precision, 'compute', 'bfloat16')
  dtype = str(values.get('dtype') or values.get('torch_dtype') or computed)
  about = Sheet('folder', ('field', 'value'), tuple(_about(path, m)))
  costs = layers.sheets(m.spec, getattr(data, 'length', None), dtype, cache)
  return [about, *_settings(m), *costs]


def _about(path: str, m: Loaded) -> Iterator[tuple[str, str]]:
  values = m.files.json(CONFIG)
  yield 'path', path
  if 'model_type' in values:
    yield 'model_type', str(values['model_type'])
    yield 'class', ', '.join(values.get('architectures') or ['not named'])
  if m.experiment is not None:
    yield 'training step', str(m.step)
  yield (
    'tokenizer',
    'none' if m.tokenizer is None else f'{m.tokenizer.kind}, {m.tokenizer.size:,} tokens',
  )
  yield 'chat template', 'none' if m.chat_template is None else 'yes'
  yield 'files', ', '.join(m.files) or 'none'


def _settings(m: Loaded) -> Iterator[Sheet]:
  """Yield the generation settings of the folder, if the model has a language-model head."""
  if m.spec.lm is None:
    return
  try:
    rows = tuple((name, f'{value!r:.80}') for name, value in m.settings().items())
  except errors.UserError as error:
    rows = (('not supported', str(error)),)
  yield Sheet('generation settings', ('option', 'value'), rows)
