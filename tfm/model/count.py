"""What a model costs, from its spec alone: parameters, FLOPs a token, cache bytes a token. No array
is made.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from tfm.model import inputs as inputs_lib
from tfm.model import stack as stack_lib
from tfm.model import transformer
from tfm.model.spec import Block, Model, Tower, blocks, depth, last_width, placed
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table of layers: `repeats` layers alike, with the parameters and the FLOPs a
  token of each.

  `parts` names the pieces by kind (`mixer`, `ffn`, ...), empty where the line is no block.
  """

  where: str
  repeats: int
  parts: dict[str, str]
  params: int
  flops: float


def count_params(spec: Model) -> int:
  """Return the number of parameters; a tied table counts once."""
  return _size(transformer.param_shapes(spec))


def count_active_params(spec: Model) -> int:
  """Return the number of parameters used for a token: all but experts that are not chosen, and
  `mtp`.
  """
  params, letters = transformer.param_shapes(spec), transformer.param_letters(spec)
  idle = _idle(spec, params, letters)
  for name, tower in spec.towers.items():
    idle += _idle(tower, params[name], letters[name])
  return count_params(spec) - idle - _size(params.get('mtp', {}))


def _idle(tower: Tower, params: Any, letters: Any) -> int:
  """Parameters of a layer's experts (their letters begin LE, or E if layers share them) times the
  share not chosen.
  """
  idle = 0
  for i, segment in enumerate(tower.segments):
    for j, block in enumerate(segment.pattern):
      for field, part in block.ffns.items():
        shapes, names = (
          jax.tree.leaves(tree[f'segment_{i}'][f'block_{j}'][field]) for tree in (params, letters)
        )
        own = [(x.size, n.removeprefix('L')) for x, n in zip(shapes, names, strict=True)]
        of_experts = sum(size for size, n in own if n.startswith('E') and n != 'E')
        idle += int(of_experts * (1 - part.active))
  return idle


def flops_per_token(spec: Model, length: int) -> float:
  """Return the forward FLOPs per token of a document of `length`: 2 per matmul parameter, 4 N H per
  attended pair.

  Pairs are those that the masks allow, on average over the document: (length + 1) / 2 for a causal
  one. Embedding lookups, norms, activations, softmax and what is computed once per example from a
  condition count nothing; a classifier of sequences counts once per document. Training takes three
  times as much, and as much of `mtp_flops`.

  For an encoder-decoder it is the sum of one decoder token and one encoder token, in documents of
  `length` each; other lengths are counted by `flops_of_document`. Of images, whose length is fixed,
  it is the FLOPs per patch or token."""
  return flops_of_document(spec, length, length) / spec.embed.tokens(length)


def flops_of_document(spec: Model, length: int, source: int = 0) -> float:
  """Return the forward FLOPs for inputs of `length` tokens, and `source` tokens of an encoder (0:
  none are read).
  """
  total = 0.0
  for name in inputs_lib.order(spec):
    if name == 'encoder' and not source:
      continue
    tower = spec.tower(name)
    n = _tokens(tower, source if name == 'encoder' else length)
    widths = {other: _width(spec.tower(other)) for other in spec.towers}
    lengths = {
      o: _last_length(spec.tower(o), source if o == 'encoder' else length) for o in spec.towers
    }
    total += _embed_flops(tower, n, lengths, widths) + _layer_flops(tower, n, lengths, widths)
    total += _heads_flops(
      spec, tower, int(_last_length(tower, source if name == 'encoder' else length))
    )
  return total


def _tokens(tower: Tower, length: int) -> float:
  assert tower.embed is not None
  return tower.embed.tokens(length)


def _last_length(tower: Tower, length: int) -> float:
  """Return the length of a tower's output."""
  n = _tokens(tower, length)
  for segment in tower.segments:
    n = n if segment.resample is None else segment.resample.length(n)
  return n


def _width(tower: Tower) -> int:
  assert tower.embed is not None
  return tower.embed.d_out or last_width(tower)


def _layer_flops(
  tower: Tower, n: float, lengths: Mapping[str, float], widths: Mapping[str, int]
) -> float:
  """Return the FLOPs of all layers for `n` tokens; `lengths` and `widths` are those of the other
  towers' outputs.
  """
  total, width = 0.0, tower.d_model or 0
  for segment in tower.segments:
    if segment.resample is not None:
      new = segment.d_model or width
      total, n, width = (
        total + n * segment.resample.flops(width, new),
        segment.resample.length(n),
        new,
      )
    for block in segment.pattern:
      total += n * segment.repeats * _block_flops(block, width, n, lengths)
      if block.cross is not None and lengths[block.cross.tower]:
        read = block.cross.memory_flops(width, widths[block.cross.tower])
        total += lengths[block.cross.tower] * segment.repeats * read
  return total + n * tower.residual.flops(width, depth(tower))


def _block_flops(block: Block, width: int, length: float, lengths: Mapping[str, float]) -> float:
  """Return the FLOPs per token of a block."""
  flops = sum(m.flops(width, m.pairs(int(length))) for m in block.mixers)
  flops += sum(f.flops(width) for f in block.ffns.values())
  gained = sum(part is not None for part in (block.mixer, block.cross)) + len(block.ffns)
  flops += gained * block.residual_scale.flops(width)
  return (
    flops if block.cross is None else flops + block.cross.flops(width, lengths[block.cross.tower])
  )


def _heads_flops(spec: Model, tower: Tower, length: int) -> float:
  dims = stack_lib.tower_dims(spec, tower, transformer.RUN).replace(d_model=_width(tower))
  return sum(head.flops(dims, _head_length(tower, head, length)) for head in tower.heads.values())


def _head_length(tower: Tower, head: Any, length: int) -> int:
  """Return the number of tokens that a head is given, of `length`."""
  assert tower.embed is not None
  return length if head.stream is None else length // len(tower.embed.streams)


def mtp_flops(spec: Model, length: int, source: int = 0) -> float:
  """Return the forward FLOPs per token that training takes for `spec.mtp`, and nothing else; 0
  without.
  """
  if spec.mtp is None:
    return 0.0
  one = _block_flops(blocks(spec)[-1], spec.d_model, length, {'encoder': source})
  dims = stack_lib.tower_dims(spec, spec, transformer.RUN)
  return spec.mtp.depth * (one + spec.mtp.flops(spec.d_model) + spec.lm.flops(dims, 1))


def cache_bytes(
  spec: Model, length: int, dtype: Any = jnp.bfloat16, kind: Cache = DenseCache()
) -> int:
  """Return the bytes cached for a row of `length` tokens: keys, values, and row states, which do
  not grow.

  What is cached of other towers is left out.
  """
  return sum(
    s.repeats * m.cache_bytes(d, length, dtype, kind)
    for _, s, b, d in placed(spec)
    if (m := b.mixer)
  )


def state_bytes(spec: Model, dtype: Any = jnp.bfloat16) -> int:
  """Return the bytes of the row states of all layers, the same for rows of any length: a part of
  `cache_bytes`.
  """
  return sum(s.repeats * m.state_bytes(d, dtype) for _, s, b, d in placed(spec) if (m := b.mixer))


def cache_bytes_per_token(
  spec: Model, dtype: Any = jnp.bfloat16, kind: Cache = DenseCache()
) -> int:
  """Return the bytes by which the cache of a long row grows per token; a window or fixed state adds
  none.
  """
  far = 1 << 30
  return cache_bytes(spec, far + 1, dtype, kind) - cache_bytes(spec, far, dtype, kind)


def table(spec: Model, length: int = 1024) -> list[Row]:
  """Return the model line by line; parameters times repeats add up to `count_params`, FLOPs to
  `flops_per_token`.
  """
  params = transformer.param_shapes(spec)
  rows = []
  lengths = {other: _last_length(spec.tower(other), length) for other in spec.towers}
  widths = {other: _width(spec.tower(other)) for other in spec.towers}
  for name in ('', *(n for n in inputs_lib.order(spec) if n)):
    own, at = (params[name], f'towers.{name}.') if name else (params, '')
    tower = spec.tower(name)
    embed = _embed_flops(tower, _tokens(tower, length), lengths, widths) / spec.embed.tokens(length)
    rows.append(Row(f'{at}embed', 1, {}, _size(own.get('embed', {})), embed))
    if name:
      rows += _tower_rows(spec, name, own, length, at)
  rows += _tower_rows(spec, '', params, length, '')
  if spec.mtp is not None:
    rows.append(Row('mtp', 1, {'mtp': _name(spec.mtp)}, _size(params['mtp']), 0.0))
  return rows


def _tower_rows(spec: Model, name: str, params: Any, length: int, at: str) -> Iterator[Row]:
  tower, whole = spec.tower(name), spec.embed.tokens(length)
  lengths = {other: _last_length(spec.tower(other), length) for other in spec.towers}
  widths = {other: _width(spec.tower(other)) for other in spec.towers}
  for piece in ('absolute', 'shared_relative'):
    part = getattr(tower, piece)
    yield Row(f'{at}{piece}', 1, {piece: _name(part)}, _size(params.get(piece, {})), 0.0)
  if 'common' in params:
    yield Row(f'{at}common', 1, {}, _size(params['common']), 0.0)
  n, width = _tokens(tower, length), tower.d_model or 0
  for i, segment in enumerate(tower.segments):
    if segment.resample is not None:
      new = segment.d_model or width
      flops = n * segment.resample.flops(width, new) / whole
      own = _size(params.get(f'segment_{i}_resample', {}))
      yield Row(f'{at}segments.{i}.resample', 1, {'resample': _name(segment.resample)}, own, flops)
      n, width = segment.resample.length(n), new
    for j, block in enumerate(segment.pattern):
      own = params[f'segment_{i}'][f'block_{j}']
      flops = n * _block_flops(block, width, n, lengths)
      if block.cross is not None:
        flops += lengths[block.cross.tower] * block.cross.memory_flops(
          width, widths[block.cross.tower]
        )
      # A line's parameters times its repeats add up, so repeats that share theirs are one line.
      times = 1 if segment.shared else segment.repeats
      flops *= segment.repeats // times / whole
      yield Row(f'{at}segments.{i}.pattern.{j}', times, _pieces(block), _size(own) // times, flops)
  flops = n * tower.residual.flops(width, depth(tower)) / whole
  yield Row(
    f'{at}residual',
    1,
    {'residual': _name(tower.residual)},
    _size(params.get('residual', {})),
    flops,
  )
  norm = {} if tower.norm is None else {'norm': _name(tower.norm)}
  yield Row(f'{at}norm', 1, norm, _size(params.get('norm', {})), 0.0)
  dims = stack_lib.tower_dims(spec, tower, transformer.RUN).replace(d_model=_width(tower))
  for head_name, head in tower.heads.items():
    own = _size(params.get(transformer.head_params(head_name), {}))
    flops = head.flops(dims, _head_length(tower, head, int(n))) / whole
    yield Row(f'{at}heads.{head_name}', 1, {'head': _name(head)}, own, flops)


def _pieces(block: Block) -> dict[str, str]:
  kinds = ('mixer', 'cross', 'ffn', 'second_ffn', 'extra_branch', 'norm', 'residual_layout')
  return {kind: _name(piece) for kind in kinds if (piece := getattr(block, kind)) is not None}


def _name(piece: Any) -> str:
  return piece.table().name_of(piece)


def _embed_flops(
  tower: Tower, n: float, lengths: Mapping[str, float], widths: Mapping[str, int]
) -> float:
  """Return the FLOPs of the input layer for `n` tokens; `lengths` and `widths` are those of the
  towers it reads.
  """
  assert tower.embed is not None
  embed, d = tower.embed, tower.d_model or 0
  return n * embed.flops(d) + sum(lengths[t] * embed.read_flops(d, widths[t]) for t in embed.towers)


def _size(tree: Any) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
