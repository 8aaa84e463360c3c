"""From the keyword arguments of `apply` to the inputs of each tower, with checks."""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.model import outputs as outputs_lib
from tfm.model.check_arrays import as_array, check_dtype, check_not_empty, check_outputs, dtypes
from tfm.model.spec import MAIN, Model, Tower, blocks, token_extras
from tfm.parts.tokeninfo import TokenInfo

#: Decoder inputs that have no prefix `decoder_` in an encoder-decoder.
_UNPREFIXED = ('prefix_mask',)


@dataclasses.dataclass(frozen=True)
class TowerInputs:
  """The inputs of one tower.

  Attributes:
    arrays: Arrays by the input names of the tower's `embed`.
    outputs: The outputs `[B, S, D]` of the tower, if they were computed before.
  """

  arrays: Mapping[str, jax.Array]
  outputs: jax.Array | None = None


def order(model: Model) -> tuple[str, ...]:
  """Return the names of the towers in execution order; the model's own is last."""
  ordered: dict[str, None] = {}

  def visit(name: str) -> None:
    for other in sorted(outputs_lib.prerequisites(model, name)):
      if other not in ordered:
        visit(other)
    ordered.setdefault(name)

  for name in model.towers:
    visit(name)
  visit(MAIN)
  return tuple(ordered)


def input_name(model: Model, tower: str, name: str) -> str:
  """Return the name under which `apply` takes an input of a tower.

  It is the same name, with two exceptions as in Hugging Face's models. The decoder of an
  encoder-decoder takes `decoder_input_ids` and so on. Another tower with an input of the same name
  as the model's own takes it with the name of the tower as a prefix (`query_input_ids`).

  Args:
    model: The model.
    tower: The name of the tower.
    name: The input's name in the tower's `embed`.

  Returns:
    A keyword of `apply`.
  """
  return input_names(model)[tower][name]


@functools.lru_cache(maxsize=512)
def input_names(model: Model) -> Mapping[str, Mapping[str, str]]:
  """Return for each tower a mapping from names of its `embed` to keywords of `apply`."""

  def inputs_of(tower: Tower) -> tuple[str, ...]:
    assert tower.embed is not None
    return (*tower.embed.needs, *tower.embed.takes)

  main = {n: n for n in inputs_of(model)}
  if model.encoder is not None:
    main |= {n: f'decoder_{n}' for n in main if n not in _UNPREFIXED}
  names: dict[str, Mapping[str, str]] = {}
  for tower in model.towers:
    own = {n: n for n in inputs_of(model.tower(tower))}
    names[tower] = own | {n: f'{tower}_{n}' for n in own if n in main.values()}
  return {**names, MAIN: main}


def required(model: Model) -> Iterator[tuple[str, str]]:
  """Yield (tower, name) of every input that `apply` requires."""
  for tower in order(model):
    embed = model.tower(tower).embed
    assert embed is not None
    yield from ((tower, input_name(model, tower, name)) for name in embed.needs)


def shapes(
  model: Model, batch: int, length: int, source: int | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
  """Return the shapes of the inputs that `apply` requires, by name.

  Args:
    model: The model.
    batch: The number of examples.
    length: Their length in tokens, for inputs of variable length.
    source: The length for a tower 'encoder'. None: the same.

  Returns:
    Shapes and dtypes by input name.
  """
  found: dict[str, jax.ShapeDtypeStruct] = {}
  for tower in order(model):
    embed = model.tower(tower).embed
    assert embed is not None
    own_length = length if source is None or tower != 'encoder' else source
    for name, shape in embed.shapes(batch, own_length).items():
      found[input_name(model, tower, name)] = shape
  return found


def split_inputs(
  model: Model, inputs: Mapping[str, Any], cache: Any, only: str | None = None
) -> dict[str, TowerInputs]:
  """Return the checked inputs of every tower that runs, in order.

  A tower without any given input does not run in two cases: there is a cache, or the towers that
  read it do not need it (`Embed.optional`). The model's own tower always runs.

  Args:
    model: The model.
    inputs: Keyword arguments of `apply`. None values are ignored.
    cache: The cache, or None.
    only: The name of a tower, to run only this one and its prerequisites. None: all.

  Returns:
    The inputs by tower.

  Raises:
    UserError: for an unknown, missing or badly shaped input.
  """
  given = {name: as_array(name, value) for name, value in inputs.items() if value is not None}
  names = input_names(model)
  outputs = {f'{tower}_outputs': tower for tower in model.towers}
  _check_names(model, given, (*(n for own in names.values() for n in own.values()), *outputs))
  running = order(model) if only is None else _towers_for(model, only, given)
  found: dict[str, TowerInputs] = {}
  for tower in running:
    arrays = {bare: given[name] for bare, name in names[tower].items() if name in given}
    computed = given.get(f'{tower}_outputs') if tower else None
    can_skip = tower and (cache is not None or tower in optional(model))
    if computed is None and can_skip and not _is_given(model, tower, arrays, found):
      continue
    if computed is None:
      _check(model, tower, arrays, cache)
    else:
      check_outputs(f'{tower}_outputs', computed, model.tower(tower))
    found[tower] = TowerInputs(arrays, computed)
  return found


def _is_given(
  model: Model, tower: str, arrays: Mapping[str, Any], found: Mapping[str, Any]
) -> bool:
  """Return whether a tower has some required input, or requires none and its inputs have run."""
  embed = model.tower(tower).embed
  assert embed is not None
  if embed.needs:
    return any(name in arrays for name in embed.needs)
  read = model.tower(tower).reads_towers
  return bool(read) and read <= set(found)


@functools.lru_cache(maxsize=512)
def optional(model: Model) -> frozenset[str]:
  """Return the names of the towers with optional inputs: no reader needs them."""
  found: set[str] = set()
  for name in reversed(order(model)[:-1]):
    readers = [n for n in order(model) if name in model.tower(n).reads_towers]
    if readers and all(n in found or _can_omit(model.tower(n), name) for n in readers):
      found.add(name)
  return frozenset(found)


def _can_omit(reader: Tower, name: str) -> bool:
  crosses = {b.cross.tower for b in blocks(reader) if b.cross is not None}
  return name not in crosses and reader.embed is not None and reader.embed.optional


def _towers_for(model: Model, only: str, given: Mapping[str, Any]) -> tuple[str, ...]:
  """Return the towers that one needs, in order; raise for unused inputs."""
  if only not in (MAIN, *model.towers):
    known = (f'{MAIN!r} (its own)', *model.towers)
    raise errors.UserError(f'apply: tower: {errors.unknown("tower", only, known)}')
  read = _all_read(model, only)
  running = tuple(tower for tower in order(model) if tower == only or tower in read)
  names = input_names(model)
  used = {name for tower in running for name in names[tower].values()}
  used |= {f'{tower}_outputs' for tower in running}
  if unused := [name for name in given if name not in used]:
    raise errors.UserError(
      f'apply: {unused[0]} is given, but tower={only!r} does not read it. '
      'Expected no such input, or no tower.'
    )
  return running


def _all_read(model: Model, tower: str) -> frozenset[str]:
  """Return the names of all towers that a tower reads, directly or through others."""
  direct = model.tower(tower).reads_towers
  return direct.union(*(_all_read(model, other) for other in direct))


def _check_names(model: Model, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
  for name in given:
    if name in known:
      continue
    if model.encoder is None and name.startswith(('decoder_', 'encoder_')):
      raise errors.UserError(
        f'apply: {name} is given, but the model has no encoder. {_expected(model)}'
      )
    raise errors.UserError(f'apply: {errors.unknown("input", name, tuple(dict.fromkeys(known)))}')


def _expected(model: Model) -> str:
  return f'Expected {", ".join(name for _, name in required(model))}.'


def _check(model: Model, name: str, arrays: Mapping[str, jax.Array], cache: Any) -> None:
  """Raise UserError for inputs of a tower that are missing, badly shaped or not supported."""
  tower, name_of = model.tower(name), input_names(model)[name]
  embed = tower.embed
  assert embed is not None
  if missing := [name_of[n] for n in embed.needs if n not in arrays]:
    raise errors.UserError(f'apply: {missing[0]} is missing. {_expected(model)}')
  for n in embed.needs:
    check_dtype(name_of[n], arrays[n], dtypes(embed)[n])
    check_not_empty(name_of[n], arrays[n])
  embed.check_inputs(arrays, name_of.__getitem__, tower.max_positions)
  for why in (*_unsupported(tower, arrays, cache), *_order_problems(model, tower, arrays, cache)):
    raise errors.UserError(f'apply: {why}')


def _unsupported(tower: Tower, arrays: Mapping[str, jax.Array], cache: Any) -> Iterator[str]:
  """Yield a sentence for each input that the model, or a cache, does not support."""
  tokens = None if tower.embed is None else tower.embed.token_embed
  extras = token_extras(tower)
  types = getattr(tokens, 'types', 0) or 'type' in extras
  if 'token_type_ids' in arrays and not types:
    yield (
      'token_type_ids are given, but the model has no token types. '
      'Expected embed.types of at least 1, or no token_type_ids.'
    )
  if 'global_attention_mask' in arrays and 'global' not in extras:
    yield (
      'global_attention_mask is given, but no layer has global tokens. '
      'Expected mixer=longformer, or no global_attention_mask.'
    )
  if 'task_type_ids' in arrays and not getattr(tokens, 'tasks', 0):
    yield (
      'task_type_ids are given, but the model has no task types. '
      'Expected embed.tasks of at least 1, or no task_type_ids.'
    )
  if 'lang_ids' in arrays and 'language' not in extras:
    yield (
      'lang_ids are given, but no layer has a part for each language. '
      'Expected router=language, or no lang_ids.'
    )
  ffns = [ffn for b in blocks(tower) for ffn in b.ffns.values()]
  yield from dict.fromkeys(why for ffn in ffns for why in ffn.check_inputs(arrays))
  if cache is None:
    return
  if getattr(tokens, 'mask_token', None) is not None:
    yield (
      'embed.mask_token needs the share of mask tokens, which a cache does not store. '
      'Expected whole sequences, without a cache.'
    )
  if 'token_type_ids' in arrays and 'type' in extras:
    yield (
      'layers of the model need token types, which a cache does not store. '
      'Expected whole sequences, or no token_type_ids.'
    )


def _order_problems(
  model: Model, tower: Tower, arrays: Mapping[str, jax.Array], cache: Any
) -> Iterator[str]:
  """Yield a sentence for each reason against the inputs of permutation language modelling."""
  tokens = None if tower.embed is None else tower.embed.token_embed
  targets = 'target_positions' in arrays
  if not targets and 'order_ids' not in arrays:
    return
  if not model.masked:
    yield (
      'order_ids: tokens of the model depend on others in ways that no mask limits (a mixer '
      'without masks, a router over several tokens, an encoder). '
      'Expected a single tower of attention layers.'
    )
  if cache is not None:
    yield 'order_ids: a cache stores no order. Expected whole sequences, without a cache.'
  if targets and 'order_ids' not in arrays:
    yield 'target_positions: a target would attend to itself without order_ids. Expected both.'
  if targets and not getattr(tokens, 'query', False):
    yield 'target_positions: the model has no target vector. Expected embed.query=true.'
  if targets and (model.mtp is not None or model.classifier is not None):
    yield (
      'target_positions: neither mtp nor a classifier supports targets. '
      'Expected mtp=none and no head classify.'
    )


def advance_cache(cache: dict[str, Any], info: TokenInfo, layers: Any) -> dict[str, Any]:
  """Return the cache after the tokens of `info` were written to it.

  Args:
    cache: The cache before.
    info: Positions and segment ids of the tokens.
    layers: The new caches of the layers.

  Returns:
    The new cache.
  """
  real_BT = info.segment_ids > 0
  last_B = jnp.max(jnp.where(real_BT, info.positions + 1, 0), axis=1)
  slot_B = cache['slot'] + jnp.sum(real_BT, axis=1, dtype=jnp.int32)
  return cache | {'slot': slot_B, 'next': jnp.maximum(cache['next'], last_B), 'layers': layers}
