"""TensorFlow Datasets with a text feature, read by random access without TensorFlow."""

from collections.abc import Iterator
import dataclasses
import importlib
import os
from typing import Any

from tfm.core.errors import UserError
from tfm.data import builders
from tfm.data.textdata import TextData

_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class Tfds(TextData):
  """A TensorFlow Datasets dataset. It must be available as ArrayRecord.

  Attributes:
    name: Name of the dataset (`lm1b`, `wiki40b/en`, ...).
    split: The training split, in the syntax of TFDS (`train[:95%]`).
    val_split: The validation split. Empty holds out nothing.
    feature: The text feature.
    data_dir: The folder of prepared datasets. Defaults to that of TFDS.
    manual_dir: The folder of the files that you downloaded, for datasets that need them, such as
      those of `tfm/data/builders`.
  """

  name: str = ''
  split: str = 'train'
  val_split: str = 'test'
  feature: str = 'text'
  data_dir: str = ''
  manual_dir: str = ''

  def documents(self, split: str) -> Iterator[str]:
    chosen = self.split if split == 'train' else self.val_split
    if not chosen:
      return
    source = self._source(chosen)
    for start in range(0, len(source), _BATCH):
      index = list(range(start, min(start + _BATCH, len(source))))
      for number, example in zip(index, source.__getitems__(index), strict=True):
        yield self._text(example, chosen, number)

  def identity(self) -> dict[str, Any]:
    info = self._builder().info
    splits = {n: [s.num_examples, s.num_bytes] for n, s in sorted(info.splits.items())}
    chosen = {'split': self.split, 'val_split': self.val_split, 'feature': self.feature}
    return {'data': 'tfds', 'name': info.full_name, 'splits': splits, **chosen}

  def check(self) -> Iterator[str]:
    yield from super().check()
    if not self.name:
      yield 'name: is empty. Expected the name of a TFDS dataset, such as lm1b or wiki40b/en.'

  def _text(self, example: dict[str, Any], split: str, number: int) -> str:
    if self.feature not in example:
      raise UserError(
        f'data.feature: {self.name} has no feature {self.feature!r}. Expected '
        f'{" or ".join(sorted(example))}.'
      )
    value = example[self.feature]
    if not isinstance(value, bytes | str):
      raise UserError(
        f'data.feature: {self.feature!r} of {self.name} is {type(value).__name__}. Expected text.'
      )
    try:
      return value if isinstance(value, str) else value.decode('utf-8')
    except UnicodeDecodeError as error:
      raise UserError(
        f'data: example {number} of {self.name} {split} is not UTF-8 ({error.reason}). Expected '
        f'UTF-8 text.'
      ) from error

  def _builder(self) -> Any:
    library = _library()
    if (own := self.name.partition(':')[0]) in builders.MODULES:
      importlib.import_module(builders.MODULES[own])
    try:
      builder = library.builder(
        self.name, data_dir=self.data_dir or None, file_format='array_record'
      )
    except library.core.registered.DatasetNotFoundError as error:
      raise UserError(
        f'data.name: TFDS has no dataset {self.name!r}. {_first_line(error)}'
      ) from error
    except ValueError as error:
      raise self._not_array_record(error) from error
    if not builder.is_prepared():
      self._prepare(library, builder)
    return builder

  def _prepare(self, library: Any, builder: Any) -> None:
    """Download and convert the dataset, or convert the files of `manual_dir`."""
    config = library.download.DownloadConfig()
    if self.manual_dir:
      config.manual_dir = os.path.expanduser(self.manual_dir)
    try:
      builder.download_and_prepare(download_config=config)
    except AssertionError as error:
      if 'manual' not in str(error).lower():
        raise
      raise UserError(
        f'data.manual_dir: {self.name} is made of files that you download '
        f'({builder.MANUAL_DOWNLOAD_INSTRUCTIONS}) Expected their folder.'
      ) from error

  def _not_array_record(self, error: Exception) -> UserError:
    return UserError(
      f'data.name: TFDS cannot open {self.name!r} as ArrayRecord ({str(error).splitlines()[0]}). '
      f'Expected a dataset prepared by `tfds build {self.name} --file_format=array_record`, or '
      f'another data_dir.'
    )

  def _source(self, split: str) -> Any:
    builder = self._builder()
    try:
      return builder.as_data_source(split=split)
    except NotImplementedError as error:
      raise self._not_array_record(error) from error
    except (ValueError, KeyError) as error:
      known = ' or '.join(sorted(builder.info.splits))
      raise UserError(f'data: {self.name} has no split {split!r}. Expected {known}.') from error


def _library() -> Any:
  try:
    import array_record  # noqa: F401
    import importlib_resources  # noqa: F401
    import tensorflow_datasets
  except ImportError as error:
    raise UserError(
      f'data: TFDS datasets need the package {error.name}. Expected it installed, by: pip install '
      f"'tfm[tfds]'"
    ) from error
  return tensorflow_datasets


def _first_line(error: Exception) -> str:
  return next(iter(str(error).strip().splitlines()), '')
