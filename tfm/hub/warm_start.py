"""Initialise training from the parameters of another model."""

from collections.abc import Callable, Mapping
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
import numpy as np
from numpy.typing import NDArray

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.hub.files import CONFIG, FolderFiles, without_ids
from tfm.hub.load import describe, is_published, load
from tfm.hub.loaded import Loaded
from tfm.hub.token_texts import Comparison, compare, rows_by_text
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train.experiment import Experiment
from tfm.train.step import init_key

#: The maximum number of names in each list of a report.
_MAX_LISTED = 6

#: Fields of a config about the classes of a published classifier.
_CLASSES = ('id2label', 'label2id', 'num_labels', 'problem_type')

Log = Callable[[str], None]


class _Axis(NamedTuple):
  """The vocabulary axis of a parameter and its size."""

  axis: int
  size: int


class _Ids(NamedTuple):
  """The relation between the token ids of the model and of the data.

  Attributes:
    agree: Whether all shared ids are the same tokens.
    rows: The old row of each new row, -1 for none. None keeps rows at their ids.
  """

  agree: bool = True
  rows: NDArray[np.int32] | None = None


def warm_start(
  x: Experiment, vocabulary: Vocabulary | None, where: Any, log: Log
) -> tuple[Any, dict[str, bytes]]:
  """Return the initial parameters of `x.model`, taken from the model at `x.init_from`.

  Parameters with equal path and shape are copied. The others are initialised. `x.init_vocab` sets
  how rows of token tables are matched.

  Args:
    x: The experiment.
    vocabulary: The vocabulary of the data, None if the data has no text.
    where: The tree of shardings of the parameters.
    log: Prints a line about kept, new and dropped parameters.

  Returns:
    The parameters, and the files of the old model to keep in checkpoints. Files with token ids are
    left out if the ids change their meaning.

  Raises:
    UserError: `x.init_from` holds no model, no parameter matches, or token ids differ while
      `init_vocab` is 'same'.
  """
  mesh = jax.tree.leaves(where)[0].mesh if is_published(x.init_from) else None
  loaded = load(x.init_from, dtype=x.precision.param, mesh=mesh)
  ids = _ids(x, loaded.tokenizer, vocabulary, log)
  old = _by_path(loaded.params)
  shapes, shardings = _by_path(transformer.param_shapes(x.model)), _by_path(where)
  tables = {n: axis for n, axis in vocabulary_axes(x.model).items() if n in old}
  kept = {}
  for name, array in old.items():
    if name in shapes and array.shape == shapes[name].shape:
      kept[name] = _placed(array, shardings[name])
  kept |= _tables(old, shapes, shardings, tables, ids.rows)
  if x.init_vocab == 'new':
    kept = {n: a for n, a in kept.items() if n not in tables}
  if not kept:
    raise errors.UserError(
      f'init_from: none of the {len(old)} parameters of {x.init_from} matches the model, which has '
      f'{", ".join(list(shapes)[:3])}, ... Expected a model with some of the same parts.'
    )
  log(f'init_from {x.init_from}: {_summary(old, shapes, kept)}')
  missing = [n for n in shapes if n not in kept]

  def initialise(key: jax.Array) -> dict[str, jax.Array]:
    params = _by_path(transformer.init(x.model, key, x.run()))
    return {n: params[n] for n in missing}

  if missing:
    out = {n: shardings[n] for n in missing}
    kept |= jax.jit(initialise, out_shardings=out)(init_key(x.seed))
  params = jax.tree.unflatten(jax.tree.structure(where), [kept[n] for n in shardings])
  return params, _checkpoint_files(loaded, ids.agree)


def read_model(folder: str, dtype: Any = None, where: Any = None) -> Loaded:
  """Return a model with its parameters placed on the devices of a run, or without parameters.

  Args:
    folder: A published folder, or a workdir or a checkpoint of tfm.
    dtype: The dtype of the parameters. None is the stored one.
    where: The tree of shardings of the parameters. None reads no parameters.

  Returns:
    The model with its tokenizer.

  Raises:
    UserError: `folder` holds no model.
  """
  if where is None:
    return describe(folder)
  mesh = jax.tree.leaves(where)[0].mesh if is_published(folder) else None
  loaded = load(folder, dtype=dtype, mesh=mesh)
  return loaded._replace(params=jax.tree.map(_placed, loaded.params, where))


def _checkpoint_files(loaded: Loaded, agree: bool) -> dict[str, bytes]:
  """Return the files of the old model to keep in checkpoints.

  The model card and class names are left out. If token ids do not `agree`, only the config remains,
  without its token ids.
  """
  files = loaded.files.without(
    ('README*', 'modules.json', 'sentence_*', 'config_sentence_*', '[0-9]_*')
  )
  if not agree:
    config = without_ids(files.json(CONFIG))
    files = FolderFiles({CONFIG: json.dumps(config).encode()} if config else {})
  if CONFIG in files:
    config = {name: value for name, value in files.json(CONFIG).items() if name not in _CLASSES}
    files = files.with_files({CONFIG: json.dumps(config, indent=2).encode()})
  return files.kept()


def vocabulary_axes(model: Model) -> dict[str, _Axis]:
  """Return the parameters with a vocabulary axis: token tables and language-model heads."""
  letters = _by_path(transformer.param_letters(model))
  shapes = _by_path(transformer.param_shapes(model))
  sizes = {model.tower(name).vocab for name in ('', *model.towers)} - {0}
  found = {}
  for name, word in letters.items():
    axis = word.find('V')
    if axis < 0 or not {'embed', 'head'} & set(name.split('/')):
      continue
    # The axis of class scores has the same letter, so the size is compared, too.
    if shapes[name].shape[axis] in sizes:
      found[name] = _Axis(axis, shapes[name].shape[axis])
  return found


def _ids(x: Experiment, old: Vocabulary | None, new: Vocabulary | None, log: Log) -> _Ids:
  """Return how the token ids of the data relate to the model's.

  Raises:
    UserError: Ids are different tokens, and `x.init_vocab` is 'same'.
  """
  if new is None or not x.model.vocab:
    return _Ids()
  where = f'init_from {x.init_from}'
  if old is None:
    log(f'{where}: has no tokenizer, so token ids are not compared. Rows keep their ids.')
    return _Ids()
  if old.same(new):
    return _Ids()
  texts = compare(old, new)
  if not texts.differ and x.init_vocab in ('same', 'keep'):
    if len(texts.new) > len(texts.old):
      new_ids = range(len(texts.old), len(texts.new))[:_MAX_LISTED]
      listed = ', '.join(f'{i} = {texts.new[i]}' for i in new_ids)
      log(f'{where}: all {texts.shared} token ids agree. The data has new tokens ({listed}).')
    return _Ids()
  if x.init_vocab == 'same':
    raise errors.UserError(_mismatch(x, texts))
  if x.init_vocab == 'remap':
    rows = rows_by_text(old, new, texts, x.model.vocab)
    known, count = int((rows[: len(texts.new)] >= 0).sum()), len(texts.new)
    log(
      f'{where}: {known} of {count} tokens of the data match an old token and start from its row. '
      'The others start from the mean row.'
    )
    return _Ids(agree=False, rows=rows)
  what = 'Rows keep their ids' if x.init_vocab == 'keep' else 'Token tables are initialised'
  log(f'{where}: {texts.agree} of {texts.shared} shared token ids agree. {what}.')
  return _Ids(agree=False)


def _mismatch(x: Experiment, texts: Comparison) -> str:
  lines = []
  for i in texts.differ[:_MAX_LISTED]:
    lines.append(f'  id {i}: {texts.old[i]} in the model, {texts.new[i]} in the data')
  if len(texts.differ) > _MAX_LISTED:
    lines.append(f'  ... {len(texts.differ) - _MAX_LISTED} more')
  return (
    f'init_from: {x.init_from} has another vocabulary than the data: {texts.agree} of '
    f'{texts.shared} shared token ids agree.\n' + '\n'.join(lines) + '\n'
    "Expected the model's tokenizer (data.tokenizer=file, with the path of its tokenizer.json), or "
    'a choice: init_vocab=remap (rows by token text), init_vocab=new (initialised token tables), '
    'init_vocab=keep (rows by id, even for different tokens).'
  )


def _tables(
  old: Mapping[str, Any],
  shapes: Mapping[str, Any],
  shardings: Mapping[str, NamedSharding],
  tables: Mapping[str, _Axis],
  rows: NDArray[np.int32] | None,
) -> dict[str, jax.Array]:
  """Return the token tables with another order or number of rows."""
  found = {}
  for name, (axis, size) in tables.items():
    before, after = list(old[name].shape), list(shapes[name].shape)
    if len(before) != len(after) or (rows is None and before == after):
      continue
    old_size = before.pop(axis)
    after.pop(axis)
    if before != after:
      continue
    by_id = np.where(np.arange(size) < old_size, np.arange(size), -1)
    found[name] = _gathered(old[name], by_id if rows is None else rows, axis, shardings[name])
  return found


def _gathered(
  table: jax.Array, rows: NDArray[Any], axis: int, sharding: NamedSharding
) -> jax.Array:
  """Return a table with some rows of another table, the mean row for -1."""

  def gather(table: jax.Array) -> jax.Array:
    shape = [1] * table.ndim
    shape[axis] = -1
    known = jnp.asarray(rows >= 0).reshape(shape)
    mean = jnp.mean(table.astype(jnp.float32), axis, keepdims=True).astype(table.dtype)
    return jnp.where(known, jnp.take(table, np.maximum(rows, 0), axis), mean)

  if table.sharding.device_set == sharding.device_set:
    return jax.jit(gather, out_shardings=sharding)(table)
  return _placed(jax.jit(gather)(table), sharding)


def _summary(old: Mapping[str, Any], shapes: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
  resized = {}
  for name in old:
    if name in shapes and name not in kept and old[name].shape != shapes[name].shape:
      resized[name] = f'{name} {old[name].shape} -> {shapes[name].shape}'
  new = [n for n in shapes if n not in kept and n not in resized]
  dropped = [n for n in old if n not in shapes]
  groups = {'new': new, 'of another shape, so new': [*resized.values()], 'dropped': dropped}
  lines = [f'{len(kept)} parameters of the model kept']
  for what, names in groups.items():
    if names:
      more = f', ... {len(names) - _MAX_LISTED} more' if len(names) > _MAX_LISTED else ''
      lines.append(f'{len(names)} {what}: {", ".join(names[:_MAX_LISTED])}{more}')
  return '\n  '.join(lines)


def _by_path(tree: Any) -> dict[str, Any]:
  is_leaf = lambda x: isinstance(x, jax.sharding.Sharding)
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_leaf)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _placed(array: jax.Array, sharding: NamedSharding) -> jax.Array:
  if array.sharding.device_set == sharding.device_set:
    return jax.device_put(array, sharding)
  # Every process has the full array and copies the shards of its devices.
  return jax.make_array_from_callback(array.shape, sharding, lambda index: np.asarray(array[index]))
