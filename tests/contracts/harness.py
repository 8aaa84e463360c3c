"""The one program that a case is asked: its rows, alone, step by step, by two kernels, with all
gradients.

T = 12. The rows of the one batch: 0 a document of 12; 1 the same with token 7 changed; 2 and 3 its
first 8 tokens padded left and right; 4 another document of 4 packed before those 8; 5 that other
document padded right. An encoder-decoder's source is one text of 8 tokens for rows 0 to 4, wherever
it stands, and another for row 5."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm.model import cache, transformer
from tfm.model.spec import Model, blocks, reads
from tfm.parts.attend import DenseAttention
from tfm.parts.attend.base import Attend
from tfm.parts.context import Run
from tfm.parts.mixer import BigBirdAttention, GlobalLocal, Hierarchical, Longformer, SpanConv
from tfm.parts.tokeninfo import TokenInfo

T, LONG, SHORT, CHANGED, PROMPT = 12, 8, 4, 7, 7
_rng = np.random.default_rng(0)
_DOCUMENT, _OTHER, _SOURCE = (_rng.integers(1, 64, T) for _ in range(3))
_PLACES = np.arange(T, dtype=np.int32)
_ORDER = 5 * _PLACES % T


@dataclasses.dataclass(frozen=True)
class Halves(Attend):
  """Each kernel attends to its share of the batch: one program compares kernels, forward and
  backward.
  """

  kernels: tuple[Attend, ...] = ()

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    n = len(q_BTNH) // len(self.kernels)
    given = q_BTNH, k_BSKH, v_BSKH, q, k
    shares = (
      jax.tree.map(lambda a, i=i: a[i * n : (i + 1) * n], given) for i in range(len(self.kernels))
    )
    return jnp.concatenate(
      [f(*share, scores, reduce) for f, share in zip(self.kernels, shares, strict=True)]
    )


class Answers(NamedTuple):
  """What the program says.

  `rows` and `tiled` are logits [6, 12, V]: by the dense kernel, and by the run's kernel, under a
  remat policy if one is asked; `grads` and `tiled_grads` their gradients, if they are asked.
  `beside` is what `alone` or `stepped` says, or `unrolled` where neither has a meaning. `steered`
  are the paths of the parameters that no gradient moves, those whose load is told."""

  rows: np.ndarray
  tiled: np.ndarray | None
  grads: Any
  tiled_grads: Any
  beside: np.ndarray
  steered: set[str]


def _padded(tokens):
  """[6, 12] of tokens and of segment ids."""
  changed = tokens.copy()
  changed[CHANGED] = (changed[CHANGED] + 7) % 64
  first, other, gap = tokens[:LONG], _OTHER[:SHORT], T - LONG
  zeros = np.zeros(T, int)
  ids = [
    tokens,
    changed,
    [*zeros[:gap], *first],
    [*first, *zeros[:gap]],
    [*other, *first],
    [*other, *zeros[:LONG]],
  ]
  one, two = [1] * LONG, [2] * LONG
  seg = [
    [1] * T,
    [1] * T,
    [0] * gap + one,
    one + [0] * gap,
    [1] * SHORT + two,
    [1] * SHORT + [0] * LONG,
  ]
  return np.asarray(ids, np.int32), np.asarray(seg, np.int32)


def batch(spec: Model) -> dict[str, np.ndarray]:
  """The six rows as inputs. A prefix mask covers the first 3 tokens of each document."""
  ids, segments = _padded(_DOCUMENT)
  if spec.encoder is None:
    inputs = {'input_ids': ids, 'segment_ids': segments}
  else:
    source, places = _padded(_SOURCE)
    source[:2], places[:2] = source[3], places[3]
    inputs = {
      'input_ids': source,
      'segment_ids': places,
      'decoder_input_ids': ids,
      'decoder_segment_ids': segments,
    }
  if spec.reads_prefix:
    starts = np.asarray([0, 0, T - LONG, 0, 0, 0])
    prefix = (np.arange(T)[None] >= starts[:, None]) & (np.arange(T)[None] < starts[:, None] + 3)
    prefix[4, SHORT : SHORT + 3] = True
    inputs['prefix_mask'] = prefix.astype(np.int32)
  marks = _marks(spec, segments, None if spec.encoder is None else places)
  return (
    inputs
    | _types(spec, ids)
    | marks
    | _languages(spec, ids, None if spec.encoder is None else source)
  )


def _marks(spec: Model, segments: np.ndarray, source: np.ndarray | None) -> dict[str, np.ndarray]:
  """The first token of each document as a global one, where layers have such tokens."""
  found = {}
  own = '' if spec.encoder is None else 'decoder_'
  for prefix, tower, places in ((own, spec, segments), ('', spec.encoder, source)):
    if tower is not None and places is not None and 'global' in reads(tower):
      before = np.pad(places, ((0, 0), (1, 0)))[:, :-1]
      found[f'{prefix}global_attention_mask'] = ((places != before) & (places > 0)).astype(np.int32)
  return found


def _languages(spec: Model, ids: Any, source: Any) -> dict[str, Any]:
  """Languages, where layers have a part for each: a token has the same one wherever it stands."""
  found = {}
  own = '' if spec.encoder is None else 'decoder_'
  for prefix, tower, tokens in ((own, spec, ids), ('', spec.encoder, source)):
    if tower is not None and tokens is not None and 'language' in reads(tower):
      found[f'{prefix}lang_ids'] = tokens % 8
  return found


def _types(spec: Model, ids: np.ndarray) -> dict[str, np.ndarray]:
  """Types, where layers are told them: a token has the same one wherever it stands."""
  return {'token_type_ids': ids % 2} if 'type' in reads(spec) else {}


def real(spec: Model) -> np.ndarray:
  """[6, 12] bool: where the (decoder) tokens of the batch are, not padding."""
  return batch(spec)['segment_ids' if spec.encoder is None else 'decoder_segment_ids'] > 0


@functools.lru_cache(maxsize=1)
def params(spec: Model):
  """Random parameters, none at an idle start such as a sink of 0: projections keep lengths, scales
  are near 1.
  """
  rng = np.random.default_rng(1)

  def leaf(path, shape):
    name = path[-1].key
    noise = rng.standard_normal(shape.shape).astype(np.float32)
    return 1 + 0.1 * noise if name == 'scale' else np.asarray(0.2 * noise, np.float32)

  return jax.tree_util.tree_map_with_path(leaf, transformer.param_shapes(spec))


@functools.lru_cache(maxsize=1)
def answers(spec: Model, run: Run, policy: str | None = None, backward: bool = True) -> Answers:
  """Everything that the case is asked, of one compiled program."""
  inputs, shape = batch(spec), (6, T, spec.vocab)
  target = (
    np.random.default_rng(2).standard_normal(shape).astype(np.float32) * real(spec)[..., None] / 100
  )
  steered: set[str] = set()

  def passed(p, inputs, run):
    out = transformer.apply(spec, p, run=run, mtp=True, **inputs)
    paths = jax.tree_util.tree_leaves_with_path(out.get('load', {}))
    steered.update(jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths)
    said = (out['logits'], *out.get('mtp_logits', ()))
    if not spec.embed.query:
      return said
    asked = {'order_ids': _ORDER, 'target_positions': _PLACES}
    asked = {name: jnp.broadcast_to(x, out['logits'].shape[:2]) for name, x in asked.items()}
    return (*said, transformer.apply(spec, p, run=run, **inputs, **asked)['logits'])

  def gradient(p, inputs, run, *targets):
    if not backward:
      return passed(p, inputs, run)[0], [None for _ in targets]
    y, pull = jax.vjp(lambda p: passed(p, inputs, run), p)
    (grads,) = jax.lax.map(
      pull, tuple(jnp.stack(targets) for _ in y)
    )  # the backward pass is compiled once
    return y[0], [jax.tree.map(lambda g, i=i: g[i], grads) for i in range(len(targets))]

  @jax.jit
  def program(p, inputs, target):
    dense, tiled, tiled_grads = DenseAttention(), None, None
    if policy is None and run.attend != dense:
      # Where experts choose they do within a row: none minds that the batch is there twice.
      twice, none = jax.tree.map(lambda a: jnp.concatenate([a, a]), inputs), jnp.zeros_like(target)
      targets = jnp.concatenate([target, none]), jnp.concatenate([none, target])
      y, (grads, tiled_grads) = gradient(
        p, twice, Run(attend=Halves((dense, run.attend))), *targets
      )
      rows, tiled = y[:6], y[6:]
    else:
      rows, (grads,) = gradient(p, inputs, Run(attend=dense), target)
    if policy is not None:
      tiled, (tiled_grads,) = gradient(p, inputs, Run(attend=run.attend, remat=policy), target)
    return rows, tiled, grads, tiled_grads, _beside(spec, run, p, inputs)

  return Answers(*jax.device_get(program(params(spec), inputs, target)), steered)


def _beside(spec: Model, run: Run, p, inputs) -> jax.Array:
  if not spec.apart:
    return transformer.apply(spec, p, run=Run(loop='unroll'), **inputs)['logits']
  return _stepped(spec, run, p, inputs) if decodable(spec) else _alone(spec, p)


def _alone(spec: Model, p) -> jax.Array:
  """Logits [8, V] of the document's first 8 tokens in a row of their own, with neither mask nor
  segments, unrolled.
  """
  ids = _DOCUMENT[None, :LONG]
  inputs = (
    {'input_ids': ids}
    if spec.encoder is None
    else {'decoder_input_ids': ids, 'input_ids': _SOURCE[None, :LONG]}
  )
  if spec.reads_prefix:
    inputs['prefix_mask'] = (np.arange(LONG) < 3).astype(np.int32)[None]
  inputs |= _types(spec, ids) | _marks(spec, np.ones_like(ids), np.ones_like(ids))
  inputs |= _languages(spec, ids, _SOURCE[None, :LONG])
  return transformer.apply(spec, p, run=Run(loop='unroll'), **inputs)['logits'][0]


def _stepped(spec: Model, run: Run, p, inputs) -> jax.Array:
  """Logits [2, 12, V] of rows 0 and 2, a prompt of 7 tokens, unrolled, and then one at a time.

  They are what a decoder meets: no document begins after the prompt, none is padded on the right. A
  source is alone."""
  own = '' if spec.encoder is None else 'decoder_'
  texts = jnp.asarray(_SOURCE[None, :LONG]).repeat(2, 0)
  source = {} if spec.encoder is None else {'input_ids': texts}
  mine = {
    n: x[jnp.asarray([0, 2])] for n, x in inputs.items() if n.startswith(own) or n == 'prefix_mask'
  }
  empty = cache.init_cache(spec, 2, T, source=LONG, kind=run.cache)
  first = {n: x[:, :PROMPT] for n, x in mine.items()}
  if spec.encoder is not None:
    source |= {n: x for n, x in _languages(spec, texts, texts).items() if not n.startswith(own)}
  prompt = dataclasses.replace(run, loop='unroll')
  out = transformer.apply(spec, p, run=prompt, cache=empty, **first, **source)

  def step(kept, token_B):
    languages = {
      n: x for n, x in _languages(spec, token_B[:, None], None).items() if n.startswith(own)
    }
    out = transformer.apply(
      spec, p, run=run, cache=kept, **{f'{own}input_ids': token_B[:, None]}, **languages
    )
    return out['cache'], out['logits'][:, 0]

  _, rest = jax.lax.scan(step, out['cache'], mine[f'{own}input_ids'][:, PROMPT:].T)
  return jnp.concatenate([out['logits'], rest.swapaxes(0, 1)], 1)


@functools.lru_cache(maxsize=4)
def sight(spec: Model) -> np.ndarray:
  """[12, 12] bool: whether the output at i may know of the (decoder) token at j, through all
  layers.
  """
  pos = np.arange(T, dtype=np.int32)[None]
  info = TokenInfo(pos, np.ones_like(pos), {'prefix': pos < 3})
  reach = np.eye(T, dtype=bool)
  with jax.ensure_compile_time_eval():
    for segment in spec.segments:
      for block in segment.pattern * segment.repeats:
        seen = np.asarray(block.mixer.mask(info.rows(), info.columns()))[0]
        if isinstance(block.mixer, Hierarchical):
          number = pos[0] // block.mixer.block
          seen = (seen & (number[:, None] == number)) | (number < number[:, None])
        if isinstance(block.mixer, Longformer):  # the first token is global
          seen = seen | (pos[0] == 0)[:, None] | (pos[0] == 0)[None]
        if isinstance(block.mixer, BigBirdAttention):
          length = info.with_extras(length=np.full_like(pos, T))
          seen = np.asarray(block.mixer.sight(length.rows(), length.columns()))[0]
        if isinstance(block.mixer, GlobalLocal):  # the first token is global
          marked = info.with_extras(**{'global': pos == 0})
          seen = np.asarray(block.mixer.sight(marked.rows(), marked.columns()))[0]
        if isinstance(block.mixer, SpanConv):
          seen = seen | (abs(pos[0][:, None] - pos[0][None]) <= block.mixer.span // 2)
        seen = seen | (
          getattr(block.mixer, 'pool', T + 1) <= T
        )  # by blocks, of which every token is in one
        reach = (seen.astype(int) @ reach.astype(int) > 0) | reach
  return reach


def decodable(spec: Model) -> bool:
  """Whether tokens after the prompt are seen by later ones only, and a cache can keep what they
  need.
  """
  if any(
    isinstance(block.mixer, Longformer | BigBirdAttention | GlobalLocal) for block in blocks(spec)
  ):
    return False
  return spec.apart and not np.triu(sight(spec), 1)[:, PROMPT:].any()
