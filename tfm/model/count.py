"""What a model costs, from its spec alone: parameters, FLOPs a token, cache bytes a token. No array is made."""

from collections.abc import Iterator
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from tfm.model import transformer
from tfm.model.spec import Block, Encoder, Model, blocks, depth
from tfm.parts.cache.base import Cache
from tfm.parts.cache.dense import DenseCache


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table of layers: `repeats` layers alike, with the parameters and the FLOPs a token of each.

  `parts` names the pieces by kind (`mixer`, `ffn`, ...), empty where the line is no block.
  """

  where: str
  repeats: int
  parts: dict[str, str]
  params: int
  flops: float


def count_params(spec: Model) -> int:
  """How many parameters the model has; a tied table counts once."""
  return _size(transformer.param_shapes(spec))


def count_active_params(spec: Model) -> int:
  """How many parameters a token meets: all but the experts that its router does not choose, and `mtp`."""
  idle = _idle(spec, transformer.param_shapes(spec), transformer.param_letters(spec))
  if spec.encoder is not None:
    params, letters = (tree(spec)['encoder'] for tree in (transformer.param_shapes, transformer.param_letters))
    idle += _idle(spec.encoder, params, letters)
  return count_params(spec) - idle - _size(transformer.param_shapes(spec).get('mtp', {}))


def _idle(stack: Model | Encoder, params: Any, letters: Any) -> int:
  """Parameters of a layer's experts (their letters begin LE, or E if layers share them) times the share not chosen."""
  idle = 0
  for i, segment in enumerate(stack.segments):
    for j, block in enumerate(segment.pattern):
      shapes, names = (jax.tree.leaves(tree[f'segment_{i}'][f'block_{j}']['ffn']) for tree in (params, letters))
      own = [(x.size, n.removeprefix('L')) for x, n in zip(shapes, names, strict=True)]
      of_experts = sum(size for size, n in own if n.startswith('E') and n != 'E')
      idle += int(of_experts * (1 - block.ffn.active))
  return idle


def flops_per_token(spec: Model, length: int) -> float:
  """Forward FLOPs a token of a document of `length`: 2 a matmul parameter, 4 N H a visible pair.

  Pairs are those the masks allow, on average over the document: (length + 1) / 2 for a causal one. Looking up
  embeddings, norms, activations and softmax count nothing; a classifier of rows counts once a document. Training takes
  three times as much, and as much of `mtp_flops`.

  For an encoder-decoder the sum of one decoder token and one encoder token, in documents of `length` each; other
  lengths go by `flops_of_document`.
  """
  return flops_of_document(spec, length, length) / length


def flops_of_document(spec: Model, length: int, source: int = 0) -> float:
  """Forward FLOPs of `length` tokens of a decoder (or a single stack) that reads `source` tokens of an encoder."""
  total = length * (
    _head_flops(spec)
    + _embed_flops(spec)
    + _residual_flops(spec, spec)
    + sum(n * _block_flops(spec, b, length, source) for n, b in _blocks(spec))
  )
  if spec.encoder is not None and source:
    reader = spec.source
    total += source * sum(n * _block_flops(reader, b, source, 0) for n, b in _blocks(spec.encoder))
    total += source * (_residual_flops(reader, spec.encoder) + _embed_flops(reader))
    total += source * sum(n * _memory_flops(spec, b) for n, b in _blocks(spec))
  return total + _classifier_flops(spec, length)


def mtp_flops(spec: Model, length: int, source: int = 0) -> float:
  """Forward FLOPs a token of a document of `length` that training takes for `spec.mtp`, and nobody else; 0 without."""
  if spec.mtp is None:
    return 0.0
  one = _block_flops(spec, blocks(spec)[-1], length, source)
  return spec.mtp.depth * (one + spec.mtp.flops(spec.d_model) + _head_flops(spec))


def cache_bytes(spec: Model, length: int, dtype: Any = jnp.bfloat16, kind: Cache = DenseCache()) -> int:
  """Bytes of what is cached for a row of `length` tokens: keys and values, and row states, which do not grow.

  What is cached of an encoder is not among them.
  """
  return sum(n * b.mixer.cache_bytes(spec.d_model, length, dtype, kind) for n, b in _blocks(spec))


def state_bytes(spec: Model, dtype: Any = jnp.bfloat16) -> int:
  """Bytes of the row states of all layers, the same for rows of any length: a part of `cache_bytes`."""
  return sum(n * b.mixer.state_bytes(spec.d_model, dtype) for n, b in _blocks(spec))


def cache_bytes_per_token(spec: Model, dtype: Any = jnp.bfloat16, kind: Cache = DenseCache()) -> int:
  """Bytes by which the cache of a long row grows with a token: layers that forget as much as they learn add none."""
  far = 1 << 30
  return cache_bytes(spec, far + 1, dtype, kind) - cache_bytes(spec, far, dtype, kind)


def table(spec: Model, length: int = 1024) -> list[Row]:
  """The model line by line: parameters times repeats add up to `count_params`, FLOPs to `flops_per_token`."""
  params = transformer.param_shapes(spec)
  rows = [Row('embed', 1, {}, _size(params['embed']), _embed_flops(spec))]
  if spec.encoder is not None:
    rows.append(Row('encoder.embed', 1, {}, _size(params['encoder'].get('embed', {})), _embed_flops(spec.source)))
    rows += _stack_rows(spec.source, spec.encoder, params['encoder'], length, 0, 'encoder.')
  rows += _stack_rows(spec, spec, params, length, length if spec.encoder is not None else 0, '')
  if spec.mtp is not None:
    rows.append(Row('mtp', 1, {'mtp': _name(spec.mtp)}, _size(params['mtp']), 0.0))
  rows.append(Row('head', 1, {}, _size(params.get('head', {})), _head_flops(spec)))
  if spec.classifier is not None:
    flops = _classifier_flops(spec, length) / length
    rows.append(Row('classifier', 1, {}, _size(params['classifier']), flops))
  return rows


def _stack_rows(spec: Model, stack: Model | Encoder, params: Any, length: int, source: int, at: str) -> Iterator[Row]:
  for name in ('absolute', 'shared_relative'):
    piece = getattr(stack, name)
    yield Row(f'{at}{name}', 1, {name: _name(piece)}, _size(params.get(name, {})), 0.0)
  if 'common' in params:
    yield Row(f'{at}common', 1, {}, _size(params['common']), 0.0)
  for i, segment in enumerate(stack.segments):
    for j, block in enumerate(segment.pattern):
      own = params[f'segment_{i}'][f'block_{j}']
      flops = _block_flops(spec, block, length, source)
      flops += _memory_flops(spec, block)
      # A line's parameters times its repeats add up, so repeats that share theirs are one line.
      n = 1 if segment.shared else segment.repeats
      flops *= segment.repeats // n
      yield Row(f'{at}segments.{i}.pattern.{j}', n, _pieces(block), _size(own) // n, flops)
  flops = _residual_flops(spec, stack)
  yield Row(f'{at}residual', 1, {'residual': _name(stack.residual)}, _size(params.get('residual', {})), flops)
  yield Row(f'{at}norm', 1, {'norm': _name(stack.norm)}, _size(params.get('norm', {})), 0.0)


def _pieces(block: Block) -> dict[str, str]:
  kinds = ('mixer', 'cross', 'ffn', 'aside', 'norm', 'wiring')
  return {kind: _name(piece) for kind in kinds if (piece := getattr(block, kind)) is not None}


def _name(piece: Any) -> str:
  return piece.table().name_of(piece)


def _blocks(stack: Model | Encoder) -> list[tuple[int, Block]]:
  return [(segment.repeats, block) for segment in stack.segments for block in segment.pattern]


def _block_flops(spec: Model, block: Block, length: int, source: int) -> float:
  D = spec.d_model
  flops = sum(m.flops(D, m.pairs(length)) for m in block.mixers) + block.ffn.flops(D)
  return flops if block.cross is None else flops + block.cross.flops(D, source)


def _memory_flops(spec: Model, block: Block) -> float:
  return 0.0 if block.cross is None else block.cross.memory_flops(spec.d_model, spec.source.d_model)


def _residual_flops(spec: Model, stack: Model | Encoder) -> float:
  return stack.residual.flops(spec.d_model, depth(stack))


def _embed_flops(spec: Model) -> float:
  return 0.0 if spec.embed.dim is None else 2 * (1 + spec.embed.back) * spec.embed.dim * spec.d_model


def _classifier_flops(spec: Model, length: int) -> float:
  """Those of a document of `length`: its labels are of the document, or of each token."""
  if (top := spec.classifier) is None:
    return 0.0
  D, times = spec.d_out, length if top.pick == 'each' else 1
  return times * 2 * D * (top.labels + (0 if top.hidden is None else D))


def _head_flops(spec: Model) -> float:
  if spec.head is None:
    return 0.0
  if spec.head.transform is None:
    return 2 * spec.d_out * spec.vocab
  width = spec.embed.dim or spec.d_model
  return 2 * spec.d_model * width + 2 * width * spec.vocab


def _size(tree: Any) -> int:
  return sum(math.prod(x.shape) for x in jax.tree.leaves(tree))
