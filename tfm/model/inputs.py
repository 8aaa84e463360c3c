"""From the keyword arguments of `apply` to the inputs of each tower, with one error for what does
not fit.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.model import outputs as outputs_lib
from tfm.model.spec import MAIN, Model, Tower, blocks, reads
from tfm.parts.tokeninfo import TokenInfo

#: Inputs that an encoder-decoder takes under their plain names although its decoder reads them.
_PLAIN = ('prefix_mask',)


@dataclasses.dataclass(frozen=True)
class Given:
  """The inputs of one tower: arrays by the names of its `embed`, or its outputs `[B, S, D]`,
  computed before.
  """

  arrays: Mapping[str, jax.Array]
  outputs: jax.Array | None = None


def order(model: Model) -> tuple[str, ...]:
  """Return the names of the towers, each after those that it or a head of it reads; the model's own
  is the last.
  """
  found: dict[str, None] = {}

  def visit(name: str) -> None:
    for other in sorted(outputs_lib.before(model, name)):
      if other not in found:
        visit(other)
    found.setdefault(name)

  for name in model.towers:
    visit(name)
  visit(MAIN)
  return tuple(found)


def input_name(model: Model, tower: str, name: str) -> str:
  """Return the name under which `apply` takes the input `name` of a tower.

  It is the plain name, with two exceptions as in Hugging Face's models: the decoder of an
  encoder-decoder takes `decoder_input_ids` and so on, and another tower that reads an input of the
  same name as the model's own takes it with the name of the tower before it (`query_input_ids`).
  """
  return names(model)[tower][name]


@functools.lru_cache(maxsize=512)
def names(model: Model) -> Mapping[str, Mapping[str, str]]:
  """Return for each tower a mapping from the names of its `embed` to those of `apply`."""

  def inputs_of(tower: Tower) -> tuple[str, ...]:
    assert tower.embed is not None
    return (*tower.embed.needs, *tower.embed.takes)

  two = model.encoder is not None
  own = {n: f'decoder_{n}' if two and n not in _PLAIN else n for n in inputs_of(model)}
  found: dict[str, dict[str, str]] = {}
  for tower in model.towers:
    found[tower] = {
      n: f'{tower}_{n}' if n in own.values() else n for n in inputs_of(model.tower(tower))
    }
  return {**found, MAIN: own}


def needed(model: Model) -> Iterator[tuple[str, str]]:
  """Yield (tower, name) of every input that `apply` must be given."""
  for tower in order(model):
    embed = model.tower(tower).embed
    assert embed is not None
    yield from ((tower, input_name(model, tower, name)) for name in embed.needs)


def shapes(
  model: Model, batch: int, length: int, source: int | None = None
) -> dict[str, jax.ShapeDtypeStruct]:
  """Return the shapes of the inputs that `apply` must be given, by name.

  Args:
    model: the model.
    batch: number of examples.
    length: their length in tokens, for inputs whose length is not fixed.
    source: the length for a tower 'encoder'; None: the same.
  """
  found: dict[str, jax.ShapeDtypeStruct] = {}
  for tower in order(model):
    embed = model.tower(tower).embed
    assert embed is not None
    own = length if source is None or tower != 'encoder' else source
    found |= {
      input_name(model, tower, name): shape for name, shape in embed.shapes(batch, own).items()
    }
  return found


def split(
  model: Model, inputs: Mapping[str, Any], cache: Any, only: str | None = None
) -> dict[str, Given]:
  """Return the inputs of every tower that is to run, in order, checked by name and shape.

  A tower beside the model's own does not run if none of its inputs are given, but a cache is, or no
  tower needs it (`Embed.optional`). With `only`, the other towers that it does not read do not run
  either."""
  given = {name: _array(name, value) for name, value in inputs.items() if value is not None}
  known = names(model)
  outputs = {f'{tower}_outputs': tower for tower in model.towers}
  _check_names(model, given, (*(n for own in known.values() for n in own.values()), *outputs))
  running = order(model) if only is None else _needed_by(model, only, given)
  found: dict[str, Given] = {}
  for tower in running:
    arrays = {bare: given[name] for bare, name in known[tower].items() if name in given}
    computed = given.get(f'{tower}_outputs') if tower else None
    embed = model.tower(tower).embed
    assert embed is not None
    may_lack = tower and (cache is not None or tower in optional(model))
    if computed is None and may_lack and not _is_given(model, tower, arrays, found):
      continue
    if computed is None:
      _check(model, tower, arrays, cache)
    found[tower] = Given(arrays, computed)
  return found


def _array(name: str, value: Any) -> Any:
  if not isinstance(value, list | tuple):
    return value
  try:
    return np.asarray(value)
  except ValueError:
    raise errors.UserError(
      f'apply: {name} holds rows of several lengths. Expected [B, T], padded.'
    ) from None


def _is_given(
  model: Model, tower: str, arrays: Mapping[str, Any], found: Mapping[str, Any]
) -> bool:
  """Return whether a tower has some of the inputs it needs, or needs none and the towers it reads
  have run.
  """
  embed = model.tower(tower).embed
  assert embed is not None
  read = model.tower(tower).reads_towers
  return any(n in arrays for n in embed.needs) or (
    not embed.needs and bool(read) and read <= set(found)
  )


@functools.lru_cache(maxsize=512)
def optional(model: Model) -> frozenset[str]:
  """Return the names of the towers whose inputs `apply` need not be given: all towers that read
  them do without.
  """
  found: set[str] = set()
  for name in reversed(order(model)[:-1]):
    readers = [n for n in order(model) if name in model.tower(n).reads_towers]
    if readers and all(n in found or _does_without(model.tower(n), name) for n in readers):
      found.add(name)
  return frozenset(found)


def _does_without(reader: Tower, name: str) -> bool:
  crosses = {b.cross.tower for b in blocks(reader) if b.cross is not None}
  return name not in crosses and reader.embed is not None and reader.embed.optional


def _needed_by(model: Model, only: str, given: Mapping[str, Any]) -> tuple[str, ...]:
  """Return the towers that run for the outputs of one, in order; inputs that none of them takes are
  an error.
  """
  if only not in (MAIN, *model.towers):
    known = (f'{MAIN!r} (its own)', *model.towers)
    raise errors.UserError(f'apply: tower: {errors.unknown("tower", only, known)}')
  running = tuple(t for t in order(model) if t == only or t in _read_by(model, only))
  taken = {
    *(n for t in running for n in names(model)[t].values()),
    *(f'{t}_outputs' for t in running),
  }
  if idle := [name for name in given if name not in taken]:
    raise errors.UserError(
      f'apply: {idle[0]} is given, and tower={only!r} does not read it. Expected it without, or no '
      f'tower.'
    )
  return running


def _read_by(model: Model, tower: str) -> frozenset[str]:
  """Return the names of all towers that a tower reads, directly or through others."""
  direct = model.tower(tower).reads_towers
  return direct.union(*(_read_by(model, other) for other in direct))


def _check_names(model: Model, given: Mapping[str, Any], known: tuple[str, ...]) -> None:
  for name in given:
    if name not in known:
      if model.encoder is None and name.startswith(('decoder_', 'encoder_')):
        raise errors.UserError(
          f'apply: the model has no encoder, so it does not take {name}. {_expected(model)}'
        )
      raise errors.UserError(f'apply: {errors.unknown("input", name, tuple(dict.fromkeys(known)))}')


def _expected(model: Model) -> str:
  return f'Expected {", ".join(name for _, name in needed(model))}.'


def _check(model: Model, name: str, arrays: Mapping[str, jax.Array], cache: Any) -> None:
  """Raise UserError for inputs of a tower that are missing or of the wrong shape, or that a cache
  rules out.
  """
  tower, name_of = model.tower(name), names(model)[name]
  embed = tower.embed
  assert embed is not None
  if missing := [name_of[n] for n in embed.needs if n not in arrays]:
    raise errors.UserError(f'apply: {missing[0]} is missing. {_expected(model)}')
  embed.check_inputs(arrays, name_of.__getitem__, tower.max_positions)
  for why in _unfit(model, tower, arrays, cache):
    raise errors.UserError(f'apply: {why}')


def _unfit(
  model: Model, tower: Tower, arrays: Mapping[str, jax.Array], cache: Any
) -> Iterator[str]:
  """Yield a sentence for each input that the model, or a cache, cannot use."""
  tokens = None if tower.embed is None else tower.embed.token_embed
  types = getattr(tokens, 'types', 0) or 'type' in reads(tower)
  if 'token_type_ids' in arrays and not types:
    yield 'token_type_ids are given, but the model has no token types (embed.types=0).'
  if 'global_attention_mask' in arrays and 'global' not in reads(tower):
    yield (
      'global_attention_mask is given, but no layer has global tokens. Expected mixer=longformer, '
      'or no '
      'global_attention_mask.'
    )
  if 'task_type_ids' in arrays and not getattr(tokens, 'tasks', 0):
    yield 'task_type_ids are given, but the model has no task types. Expected embed.tasks of at least 1, or no ids.'
  if 'lang_ids' in arrays and 'language' not in reads(tower):
    yield 'lang_ids are given, but no layer has a part for each language. Expected router=language, or no lang_ids.'
  yield from dict.fromkeys(
    why for b in blocks(tower) for f in b.ffns.values() for why in f.check_inputs(arrays)
  )
  if cache is not None and getattr(tokens, 'mask_token', None) is not None:
    yield 'a cache keeps no share of mask tokens, and embed.mask_token needs it. Expected whole rows, without a cache.'
  if cache is not None and 'token_type_ids' in arrays and 'type' in reads(tower):
    yield (
      'a cache keeps no token types, and layers of the model need them. Expected whole rows, or no '
      'token_type_ids.'
    )
  targets = 'target_positions' in arrays
  if not targets and 'order_ids' not in arrays:
    return
  if not model.masked:
    yield (
      'order_ids: some layer lets tokens depend on others whatever the mask (a mixer without '
      'masks, a router that '
      'weighs tokens, an encoder). Expected a single tower of attention layers.'
    )
  if cache is not None:
    yield 'order_ids: a cache keeps no order. Expected whole rows, without a cache.'
  if targets and 'order_ids' not in arrays:
    yield 'target_positions: without order_ids a target would attend to its own token. Expected both.'
  if targets and not getattr(tokens, 'query', False):
    yield 'target_positions: the model has no vector for targets. Expected embed.query=true.'
  if targets and (model.mtp is not None or model.classifier is not None):
    yield 'target_positions: neither mtp nor a classifier supports targets. Expected mtp=none and no head classify.'


def advance(cache: dict[str, Any], info: TokenInfo, layers: Any) -> dict[str, Any]:
  """Return the cache after the tokens of `info` have been written to it."""
  real_BT = info.segment_ids > 0
  last_B = jnp.max(jnp.where(real_BT, info.positions + 1, 0), axis=1)
  slot_B = cache['slot'] + jnp.sum(real_BT, axis=1, dtype=jnp.int32)
  return cache | {'slot': slot_B, 'next': jnp.maximum(cache['next'], last_B), 'layers': layers}
