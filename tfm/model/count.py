"""Costs of a model, from its spec: parameters, FLOPs per token, cache bytes."""

from collections.abc import Iterator, Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tfm.model import inputs as inputs_lib
from tfm.model import stack as stack_lib
from tfm.model import transformer
from tfm.model.spec import Block, Model, Tower, blocks, blocks_with_width, depth, last_width
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache
from tfm.parts.head.base import Head


@dataclasses.dataclass(frozen=True)
class Row:
  """A row of the layer table: equal layers, or a piece outside the layers.

  Attributes:
    where: The path in the spec.
    repeats: The number of equal layers.
    parts: The names of the parts by kind (`mixer`, `ffn`, ...), for layers.
    params: The parameters of each layer.
    flops: The forward FLOPs per token of each layer.
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
  """Return the number of parameters used per token: without idle experts and without `mtp`."""
  params, letters = transformer.param_shapes(spec), transformer.param_letters(spec)
  idle = _idle(spec, params, letters)
  for name, tower in spec.towers.items():
    idle += _idle(tower, params[name], letters[name])
  return count_params(spec) - idle - _size(params.get('mtp', {}))


def _idle(tower: Tower, params: Any, letters: Any) -> int:
  """Return the expert parameters of a tower that a token does not use, on average."""
  idle = 0
  for i, segment in enumerate(tower.segments):
    for j, block in enumerate(segment.pattern):
      for field, ffn in block.ffns.items():
        shapes = jax.tree.leaves(params[f'segment_{i}'][f'block_{j}'][field])
        axes = jax.tree.leaves(letters[f'segment_{i}'][f'block_{j}'][field])
        in_experts = 0
        for shape, letter in zip(shapes, axes, strict=True):
          own_axes = letter.removeprefix('L')
          # Weights of experts begin with axis E. Arrays of E alone (router biases) are always used.
          if own_axes.startswith('E') and own_axes != 'E':
            in_experts += shape.size
        idle += int(in_experts * (1 - ffn.active))
  return idle


def flops_per_token(spec: Model, length: int) -> float:
  """Return the forward FLOPs per token of a document of `length` tokens.

  They are 2 per matmul parameter, and 4 N H per attended pair. Pairs are counted as the masks
  allow, on average over the document: (length + 1) / 2 per token for a causal mask. Embedding
  lookups, norms, activations, softmax, and computations once per example count nothing. A sequence
  classifier counts once per document. Training takes three times as many, also of `mtp_flops`.

  For an encoder-decoder it is the sum for one decoder token and one encoder token, in documents of
  `length` each; use `flops_of_document` for other lengths. For images, which have a fixed length,
  it is the FLOPs per patch or token.
  """
  return flops_of_document(spec, length, length) / spec.embed.tokens(length)


def flops_of_document(spec: Model, length: int, source: int = 0) -> float:
  """Return the forward FLOPs of a document.

  Args:
    spec: The model.
    length: The length in tokens.
    source: The length of the encoder input. 0: the encoder does not run.

  Returns:
    FLOPs, counted as in `flops_per_token`.
  """
  total = 0.0
  for name in inputs_lib.order(spec):
    if name == 'encoder' and not source:
      continue
    tower = spec.tower(name)
    n = _tokens(tower, source if name == 'encoder' else length)
    widths = {other: _width(spec.tower(other)) for other in spec.towers}
    lengths = {other: _last_length(spec.tower(other), length) for other in spec.towers}
    if spec.encoder is not None:
      lengths['encoder'] = _last_length(spec.tower('encoder'), source)
    total += _embed_flops(tower, n, lengths, widths) + _layer_flops(tower, n, lengths, widths)
    last = _last_length(tower, source if name == 'encoder' else length)
    total += _heads_flops(spec, tower, int(last))
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
  """Return the FLOPs of all layers for `n` tokens, given the outputs of other towers."""
  total, width = 0.0, tower.d_model or 0
  for segment in tower.segments:
    if segment.resample is not None:
      new = segment.d_model or width
      total += n * segment.resample.flops(width, new)
      n, width = segment.resample.length(n), new
    for block in segment.pattern:
      total += n * segment.repeats * _block_flops(block, width, n, lengths)
      if block.cross is not None and lengths[block.cross.tower]:
        per_token = block.cross.memory_flops(width, widths[block.cross.tower])
        total += lengths[block.cross.tower] * segment.repeats * per_token
  return total + n * tower.residual.flops(width, depth(tower))


def _block_flops(block: Block, width: int, length: float, lengths: Mapping[str, float]) -> float:
  """Return the FLOPs per token of a block."""
  flops = sum(m.flops(width, m.pairs(int(length))) for m in block.mixers)
  flops += sum(ffn.flops(width) for ffn in block.ffns.values())
  if block.cross is not None:
    flops += block.cross.flops(width, lengths[block.cross.tower])
  flops += block.residual_layout.flops(width)
  branches = sum(part is not None for part in (block.mixer, block.cross)) + len(block.ffns)
  return flops + branches * block.residual_scale.flops(width)


def _heads_flops(spec: Model, tower: Tower, length: int) -> float:
  dims = stack_lib.tower_dims(spec, tower, transformer.RUN).replace(d_model=_width(tower))
  return sum(head.flops(dims, _head_length(tower, head, length)) for head in tower.heads.values())


def _head_length(tower: Tower, head: Head, length: int) -> int:
  """Return the number of tokens that a head reads, of `length`."""
  assert tower.embed is not None
  return length if head.stream is None else length // len(tower.embed.streams)


def mtp_flops(spec: Model, length: int, source: int = 0) -> float:
  """Return the forward FLOPs per token of `spec.mtp` in training, 0 without it.

  Args:
    spec: The model.
    length: The length of the document in tokens.
    source: The length of the encoder input.

  Returns:
    FLOPs, to be added to `flops_per_token`.
  """
  if spec.mtp is None:
    return 0.0
  one = _block_flops(blocks(spec)[-1], spec.d_model, length, {'encoder': source})
  dims = stack_lib.tower_dims(spec, spec, transformer.RUN)
  return spec.mtp.depth * (one + spec.mtp.flops(spec.d_model) + spec.lm.flops(dims, 1))


def cache_bytes(
  spec: Model, length: int, dtype: DTypeLike = jnp.bfloat16, kind: Cache = DenseCache()
) -> int:
  """Return the bytes cached for a sequence: keys, values and recurrent states.

  The cross-attention cache is not included.

  Args:
    spec: The model.
    length: The length in tokens.
    dtype: The dtype of the cache.
    kind: The kind of cache.

  Returns:
    Bytes.
  """
  total = 0
  for _, segment, block, width in blocks_with_width(spec):
    if block.mixer is not None:
      total += segment.repeats * block.mixer.cache_bytes(width, length, dtype, kind)
  return total


def state_bytes(spec: Model, dtype: DTypeLike = jnp.bfloat16) -> int:
  """Return the bytes of the recurrent states per sequence, which `cache_bytes` includes."""
  total = 0
  for _, segment, block, width in blocks_with_width(spec):
    if block.mixer is not None:
      total += segment.repeats * block.mixer.state_bytes(width, dtype)
  return total


def cache_bytes_per_token(
  spec: Model, dtype: DTypeLike = jnp.bfloat16, kind: Cache = DenseCache()
) -> int:
  """Return the growth of the cache of a long sequence, in bytes per token.

  Windows and recurrent states add nothing.

  Args:
    spec: The model.
    dtype: The dtype of the cache.
    kind: The kind of cache.

  Returns:
    Bytes per token.
  """
  far = 1 << 30
  return cache_bytes(spec, far + 1, dtype, kind) - cache_bytes(spec, far, dtype, kind)


def table(spec: Model, length: int = 1024) -> list[Row]:
  """Return the rows of the layer table.

  Parameters times repeats add up to `count_params`, FLOPs times repeats to `flops_per_token` of a
  document of `length` tokens.
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
        per_token = block.cross.memory_flops(width, widths[block.cross.tower])
        flops += lengths[block.cross.tower] * per_token
      # Repeats that share their parameters are one layer here, so that the parameters add up.
      times = 1 if segment.shared else segment.repeats
      flops *= segment.repeats // times / whole
      yield Row(f'{at}segments.{i}.pattern.{j}', times, _pieces(block), _size(own) // times, flops)
  flops = n * tower.residual.flops(width, depth(tower)) / whole
  own = _size(params.get('residual', {}))
  yield Row(f'{at}residual', 1, {'residual': _name(tower.residual)}, own, flops)
  norm = {} if tower.norm is None else {'norm': _name(tower.norm)}
  yield Row(f'{at}norm', 1, norm, _size(params.get('norm', {})), 0.0)
  dims = stack_lib.tower_dims(spec, tower, transformer.RUN).replace(d_model=_width(tower))
  for head_name, head in tower.heads.items():
    own = _size(params.get(transformer.head_params(head_name), {}))
    flops = head.flops(dims, _head_length(tower, head, int(n))) / whole
    yield Row(f'{at}heads.{head_name}', 1, {'head': _name(head)}, own, flops)


def _pieces(block: Block) -> dict[str, str]:
  kinds = ('mixer', 'cross', 'ffn', 'second_ffn', 'extra_branch', 'norm', 'residual_layout')
  parts = {kind: getattr(block, kind) for kind in kinds}
  return {kind: _name(part) for kind, part in parts.items() if part is not None}


def _name(part: Any) -> str:
  name: str = part.table().name_of(part)
  return name


def _embed_flops(
  tower: Tower, n: float, lengths: Mapping[str, float], widths: Mapping[str, int]
) -> float:
  """Return the FLOPs of the input layer for `n` tokens, given the outputs of other towers."""
  assert tower.embed is not None
  embed, d = tower.embed, tower.d_model or 0
  own = embed.flops(d) + 2 * d * depth(tower) * embed.layered
  return n * own + sum(lengths[t] * embed.read_flops(d, widths[t]) for t in embed.towers)


def _size(tree: Any) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
