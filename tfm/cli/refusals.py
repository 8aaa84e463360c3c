"""Combinations of parts that are refused, and why, found by trying all pairs of parts."""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import itertools
import math
import re
from typing import Any

from tfm.cli.sheets import Sheet
from tfm.core import config, errors, nodes
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.cross import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention

#: `(field, name)` of parts.
Rows = tuple[tuple[str, str], ...]

#: The path of each field that holds a part.
PLACES = {
  'absolute': 'absolute',
  'shared_relative': 'shared_relative',
  'relative': '..relative',
  'mask': '..mask',
  'mixer': '..mixer',
  'ffn': '..ffn',
  'router': '..router',
  'norm': '..norm',
  'residual_layout': '..residual_layout',
  'mtp': 'mtp',
  'residual': 'residual',
}


@functools.cache
def sheet() -> Sheet:
  """Return the parts and the pairs of parts that are refused, one row for each reason."""
  lines: dict[tuple[str, str], list[Rows]] = {}
  for rows, task, why in itertools.chain(_training(), _generating(), _kernels()):
    if rows in lines.get((why, 'any'), ()):
      continue
    found = lines.setdefault((why, task), [])
    found += [] if rows in found else [rows]
  return Sheet(
    'refused',
    ('parts', 'with', 'reason'),
    tuple((_described(what), *key[::-1]) for key, what in lines.items()),
  )


def _described(combinations: list[Rows]) -> str:
  """Return `mask=full, window with mtp=parallel` for combinations refused for the same reason."""
  groups: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
  for rows in combinations:
    places, names = zip(*rows, strict=True)
    groups.setdefault(places, []).append(names)
  texts = []
  for places, group in groups.items():
    choices = [list(dict.fromkeys(column)) for column in zip(*group, strict=True)]
    if len(group) == math.prod(map(len, choices)):  # all combinations of these names
      texts.append(_joined(places, choices))
      continue
    for names in group:
      texts.append(_joined(places, [[name] for name in names]))
  return '; '.join(texts)


def _joined(places: tuple[str, ...], names: list[list[str]]) -> str:
  """Return `PLACE=NAME, NAME with PLACE=NAME`."""
  return ' with '.join(f'{p}={", ".join(n)}' for p, n in zip(places, names, strict=True))


def _decoder() -> Model:
  return Model(Tokens(64), 32, (Segment((Block(Attention(4)),)), Segment((Block(Attention(4)),))))


def _encoder_decoder() -> Model:
  reader, writer = Block(Attention(4, mask=Mask())), Block(Attention(4), cross=CrossAttention(4))
  return Model(
    Tokens(64), 32, (Segment((writer,)),), towers={'encoder': Tower(segments=(Segment((reader,)),))}
  )


def _rows() -> Iterator[tuple[str, str]]:
  """Yield every (field, name) of a part of a model."""
  from tfm.cli import catalog

  tables = {package.rpartition('.')[2]: table for package, table in catalog.tables().items()}
  for place in PLACES:
    for name in tables[place.removeprefix('shared_')]:
      yield place, name


def _with(spec: Model, *rows: tuple[str, str]) -> Model | None:
  """Return a model with these parts, or None if it has no such field."""
  try:
    if any(place == 'router' for place, _ in rows):
      spec = config.override(spec, '..ffn', 'moe')
    # Many pairs share a part: the cache sets it once.
    return functools.reduce(_put, sorted(rows, key=lambda row: list(PLACES).index(row[0])), spec)
  except errors.ConfigError:
    return None


@functools.lru_cache(maxsize=256)
def _put(spec: Model, row: tuple[str, str]) -> Model:
  return config.override(spec, PLACES[row[0]], row[1])


def _sentences(spec: Model | None) -> set[str]:
  """Return why a model is refused, without the paths of its parts."""
  # Models share most of their parts: the cache checks each part once.
  if spec is None or not any(_faulty(node) for node in (spec, *_nodes(spec))):
    return set()
  try:
    config.validate(spec)
  except errors.ConfigError as error:
    lines = (line.strip() for line in str(error).splitlines())
    return {re.sub(r'^[a-z0-9_.]+(?:\[\d+\])*: ', '', line) for line in lines if ': ' in line}
  return set()


@functools.lru_cache(maxsize=1 << 14)
def _faulty(piece: Any) -> bool:
  """Return whether the `check` of a part yields anything."""
  return any(True for _ in getattr(piece, 'check', tuple)())


@functools.lru_cache(maxsize=1 << 14)
def _nodes(piece: Any) -> frozenset[Any]:
  """Return the parts inside a part, at any depth."""
  inside = [child.value for child in nodes.children(piece, Any, '')]
  return frozenset(value for value in inside if nodes.is_node(value)).union(
    *map(_nodes, filter(_holds, inside))
  )


def _holds(value: Any) -> bool:
  return nodes.is_node(value) or isinstance(value, (tuple, Mapping))


def _training() -> Iterator[tuple[Rows, str, str]]:
  for topology, spec in (('any', _decoder()), ('an encoder-decoder', _encoder_decoder())):
    alone = {row: _sentences(_with(spec, row)) for row in _rows()}
    for row, why in alone.items():
      yield from (((row,), topology, sentence) for sentence in sorted(why))
    for a, b in itertools.combinations(alone, 2):
      if a[0] != b[0] and not (alone[a] or alone[b]):
        yield from (
          ((a, b), topology, sentence) for sentence in sorted(_sentences(_with(spec, a, b)))
        )


def _generating() -> Iterator[tuple[Rows, str, str]]:
  from tfm.generate.prompts import decoding_problems

  for row in _rows():
    spec = _with(_decoder(), row)
    if spec is not None and not _sentences(spec):
      yield from (((row,), 'generate', why) for why in decoding_problems(spec))


def _kernels() -> Iterator[tuple[Rows, str, str]]:
  """Yield the combinations that attention kernels refuse, of models that are valid."""
  import jax
  import jax.numpy as jnp

  from tfm.model import transformer
  from tfm.parts.attend import TABLE
  from tfm.parts.attend.base import Attend
  from tfm.parts.context import Run

  kernels = {name: row() for name, row in TABLE.items() if row.refuses is not Attend.refuses}
  found: dict[str, str] = {}

  class Collecting(Attend):
    """A kernel that collects the errors of all others in one trace, since tracing takes time."""

    def __call__(self, q_BTNH: Any, k_BSKH: Any, v_BSKH: Any, *others: Any) -> jax.Array:
      args = (q_BTNH, k_BSKH, v_BSKH, *others)
      for name in kernels.keys() - found.keys():
        if kernels[name].refuses(*args[:-1]) is not None:
          try:
            kernels[name](*args)
          except errors.UserError as error:
            found[name] = str(error).partition(': ')[2]
      return jnp.zeros((*q_BTNH.shape[:-1], v_BSKH.shape[-1]), q_BTNH.dtype)

  tokens = jax.ShapeDtypeStruct((1, 8), jnp.int32)
  one_layer = dataclasses.replace(_decoder(), segments=_decoder().segments[:1])
  for place, name in _rows():
    if (
      place not in ('relative', 'mask', 'mixer')
      or (spec := _with(one_layer, (place, name))) is None
    ):
      continue
    if _sentences(spec):
      continue
    found.clear()
    call = lambda p, x, spec=spec: transformer.apply(
      spec, p, run=Run(attend=Collecting()), input_ids=x
    )
    jax.eval_shape(call, transformer.param_shapes(spec), tokens)
    yield from (
      (((place, name),), f'attend={kernel}', found[kernel]) for kernel in kernels if kernel in found
    )
