"""Start training from the parameters of another model. Parameters without a match are initialised."""

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
from tfm.hub.load import is_published, load
from tfm.hub.loaded import Loaded
from tfm.hub.token_texts import Comparison, compare, rows_by_text
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.train.experiment import Experiment
from tfm.train.step import init_key

_MOST = 6

#: Fields of a config about the classes of a published classifier.
_CLASSES = ('id2label', 'label2id', 'num_labels', 'problem_type')

Say = Callable[[str], None]


class _Axis(NamedTuple):
  """The vocabulary axis of a parameter, and its rows."""

  axis: int
  size: int


class _Ids(NamedTuple):
  """Whether token ids mean the same to the model and the data, and the old row of each new one
  (None: by id).
  """

  agree: bool = True
  rows: NDArray[np.int32] | None = None


def warm_start(
  x: Experiment, vocabulary: Vocabulary | None, where: Any, say: Say
) -> tuple[Any, dict[str, bytes]]:
  """Return parameters of `x.model` from `x.init_from` where path and shape are equal, and files for
  checkpoints.

  Rows of token tables follow `x.init_vocab`. `say` gets the numbers of kept, new and dropped
  parameters. The files describe special tokens by id, so there are none where ids mean other
  tokens.

  Args:
    x: The experiment.
    vocabulary: The vocabulary of the data, None if it has no text.
    where: The shardings of the parameters.
    say: Prints a line.

  Raises:
    UserError: if there is no model, if no parameter fits, or if token ids mean other tokens and
    `init_vocab` is 'same'.
  """
  mesh = jax.tree.leaves(where)[0].mesh if is_published(x.init_from) else None
  loaded = load(x.init_from, dtype=x.precision.param, mesh=mesh)
  ids = _ids(x, loaded.tokenizer, vocabulary, say)
  given = _named(loaded.params)
  wanted, places = _named(transformer.param_shapes(x.model)), _named(where)
  tables = {n: axis for n, axis in vocabulary_axes(x.model).items() if n in given}
  kept = {
    n: _placed(a, places[n]) for n, a in given.items() if n in wanted and a.shape == wanted[n].shape
  }
  kept |= _tables(given, wanted, places, tables, ids.rows)
  if x.init_vocab == 'new':
    kept = {n: a for n, a in kept.items() if n not in tables}
  if not kept:
    raise errors.UserError(
      f'init_from: none of the {len(given)} parameters of {x.init_from} belongs to the model, '
      f'which has '
      f'{", ".join(list(wanted)[:3])}, ... Expected a model that shares some of its parts.'
    )
  say(f'init_from {x.init_from}: {_summary(given, wanted, kept)}')
  missing = [n for n in wanted if n not in kept]

  def fresh(key: jax.Array) -> dict[str, jax.Array]:
    made = _named(transformer.init(x.model, key, x.run()))
    return {n: made[n] for n in missing}

  new = (
    jax.jit(fresh, out_shardings={n: places[n] for n in missing})(init_key(x.seed))
    if missing
    else {}
  )
  params = jax.tree.unflatten(jax.tree.structure(where), [{**kept, **new}[n] for n in places])
  return params, _beside(loaded, ids.agree)


def _beside(loaded: Loaded, agree: bool) -> dict[str, bytes]:
  """Return the files that a checkpoint keeps of the folder of a model: not its card, nor names of
  its classes.

  Where token ids do not `agree`, nothing is kept that depends on them: of the config all but ids,
  such as the context length."""
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
  """Return the parameters with a row per token: tables, and the kernel and bias of a language-model
  head.
  """
  letters, shapes = (
    _named(transformer.param_letters(model)),
    _named(transformer.param_shapes(model)),
  )
  sizes = {model.tower(name).vocab for name in ('', *model.towers)} - {0}
  found = {}
  for name, word in letters.items():
    axis = word.find('V')
    # The axis of class scores has the same letter.
    if axis >= 0 and shapes[name].shape[axis] in sizes and {'embed', 'head'} & set(name.split('/')):
      found[name] = _Axis(axis, shapes[name].shape[axis])
  return found


def _ids(x: Experiment, old: Vocabulary | None, new: Vocabulary | None, say: Say) -> _Ids:
  """Return how token ids of the data relate to those of the model.

  Raises:
    UserError: if ids mean other tokens and `x.init_vocab` is 'same'.
  """
  if new is None or not x.model.vocab:
    return _Ids()
  where = f'init_from {x.init_from}'
  if old is None:
    say(f'{where}: has no tokenizer, so token ids are not compared. Rows keep their ids.')
    return _Ids()
  if old.same(new):
    return _Ids()
  texts = compare(old, new)
  if not texts.differ and x.init_vocab in ('same', 'keep'):
    if len(texts.new) > len(texts.old):
      more = ', '.join(
        f'{i} = {texts.new[i]}' for i in range(len(texts.old), len(texts.new))[:_MOST]
      )
      say(f'{where}: all {texts.shared} token ids agree, and the data has new ones ({more}).')
    return _Ids()
  if x.init_vocab == 'same':
    raise errors.UserError(_refusal(x, texts))
  if x.init_vocab == 'remap':
    rows = rows_by_text(old, new, texts, x.model.vocab)
    known, count = int((rows[: len(texts.new)] >= 0).sum()), len(texts.new)
    say(
      f'{where}: {known} of {count} tokens of the data have the text of an old token and take its '
      f'row. '
      'The others start as the mean row.'
    )
    return _Ids(agree=False, rows=rows)
  what = 'rows keep their ids' if x.init_vocab == 'keep' else 'token tables are initialised'
  say(f'{where}: {texts.agree} of {texts.shared} shared token ids agree; {what}.')
  return _Ids(agree=False)


def _refusal(x: Experiment, texts: Comparison) -> str:
  lines = [
    f'  id {i}: {texts.old[i]} there, {texts.new[i]} in the data' for i in texts.differ[:_MOST]
  ]
  lines += [f'  ... {len(texts.differ) - _MOST} more'] if len(texts.differ) > _MOST else []
  return (
    f'init_from: {x.init_from} was trained with another vocabulary than the data has: '
    f'{texts.agree} of {texts.shared} '
    'shared token ids agree.\n' + '\n'.join(lines) + '\n'
    'Expected its own tokenizer (data.tokenizer=file, with the path of its tokenizer.json), or a '
    'choice: '
    'init_vocab=remap (rows by token text), init_vocab=new (initialised token tables), '
    'init_vocab=keep (rows by id, '
    'even if they are other tokens).'
  )


def _tables(
  given: Mapping[str, Any],
  wanted: Mapping[str, Any],
  places: Mapping[str, NamedSharding],
  tables: Mapping[str, _Axis],
  rows: NDArray[np.int32] | None,
) -> dict[str, jax.Array]:
  """Return the token tables that change: rows in another order, or another number of them."""
  found = {}
  for name, (axis, size) in tables.items():
    old, shape = given[name].shape, wanted[name].shape
    fits = len(old) == len(shape) and all(
      a == b for i, (a, b) in enumerate(zip(old, shape, strict=True)) if i != axis
    )
    if not fits or (rows is None and old == shape):
      continue
    by_id = np.where(np.arange(size) < old[axis], np.arange(size), -1)
    found[name] = _taken(given[name], by_id if rows is None else rows, axis, places[name])
  return found


def _taken(table: jax.Array, rows: NDArray[Any], axis: int, place: NamedSharding) -> jax.Array:
  """Return a table of some rows of another, -1 being their mean."""

  def take(table: jax.Array) -> jax.Array:
    known = jnp.asarray(rows >= 0).reshape([-1 if i == axis else 1 for i in range(table.ndim)])
    mean = jnp.mean(table.astype(jnp.float32), axis, keepdims=True).astype(table.dtype)
    return jnp.where(known, jnp.take(table, np.maximum(rows, 0), axis), mean)

  if table.sharding.device_set == place.device_set:
    return jax.jit(take, out_shardings=place)(table)
  return _placed(jax.jit(take)(table), place)


def _summary(given: Mapping[str, Any], wanted: Mapping[str, Any], kept: Mapping[str, Any]) -> str:
  shapes = [n for n in given if n in wanted and n not in kept and given[n].shape != wanted[n].shape]
  groups = {
    'new': [n for n in wanted if n not in kept and n not in shapes],
    'of another shape, so new': [f'{n} {given[n].shape} -> {wanted[n].shape}' for n in shapes],
    'dropped': [n for n in given if n not in wanted],
  }
  lines = [f'{len(kept)} parameters of the model kept']
  for what, names in groups.items():
    if names:
      more = f', ... {len(names) - _MOST} more' if len(names) > _MOST else ''
      lines.append(f'{len(names)} {what}: {", ".join(names[:_MOST])}{more}')
  return '\n  '.join(lines)


def _named(tree: Any) -> dict[str, Any]:
  leaves = jax.tree_util.tree_leaves_with_path(
    tree, is_leaf=lambda x: isinstance(x, jax.sharding.Sharding)
  )
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in leaves}


def _placed(array: jax.Array, sharding: NamedSharding) -> jax.Array:
  if array.sharding.device_set == sharding.device_set:
    return jax.device_put(array, sharding)
  # Read by every process as a whole; each gives its devices their share.
  return jax.make_array_from_callback(array.shape, sharding, lambda index: np.asarray(array[index]))
