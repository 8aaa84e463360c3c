"""One compiled program per case, with the results that all contracts are checked on.

It computes a batch of sequences, sequences alone, cached steps, two kernels and all gradients.

T = 12. The sequences of the batch are:

- 0: a document of 12 tokens.
- 1: the same document with token 7 changed.
- 2 and 3: its first 8 tokens, padded on the left and on the right.
- 4: another document of 4 tokens, packed before those 8.
- 5: that other document, padded on the right.

The source of an encoder-decoder is the same text of 8 tokens for sequences 0 to 4, at different
places, and another text for sequence 5.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm.model import cache, transformer
from tfm.model.spec import Model, blocks, token_extras
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
  """Split the batch over several kernels, so that one program compares them."""

  kernels: tuple[Attend, ...] = ()

  def __call__(self, q_BTNH, k_BSKH, v_BSKH, q, k, scores, reduce):
    n = len(q_BTNH) // len(self.kernels)
    inputs = q_BTNH, k_BSKH, v_BSKH, q, k
    outputs = []
    for i, kernel in enumerate(self.kernels):
      share = jax.tree.map(lambda a, i=i: a[i * n : (i + 1) * n], inputs)
      outputs.append(kernel(*share, scores, reduce))
    return jnp.concatenate(outputs)


class Results(NamedTuple):
  """Results of a case.

  Attributes:
    logits: logits [6, 12, V] of the dense kernel.
    tiled: logits of the kernel of the run, with the remat policy if there is one.
    grads, tiled_grads: their gradients, or None.
    reference: logits of `_alone` or `_stepped`, or of the unrolled model if neither is defined.
    steered: paths of parameters without a gradient, which are updated by the expert load.
  """

  logits: np.ndarray
  tiled: np.ndarray | None
  grads: Any
  tiled_grads: Any
  reference: np.ndarray
  steered: set[str]


def _padded(tokens):
  """Return tokens and segment ids of the batch, [6, 12] each."""
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
  """Return the inputs of the six sequences. A prefix mask covers 3 tokens of each document."""
  ids, segments = _padded(_DOCUMENT)
  if spec.encoder is None:
    inputs = {'input_ids': ids, 'segment_ids': segments}
  else:
    source, source_segments = _padded(_SOURCE)
    source[:2], source_segments[:2] = source[3], source_segments[3]
    inputs = {
      'input_ids': source,
      'segment_ids': source_segments,
      'decoder_input_ids': ids,
      'decoder_segment_ids': segments,
    }
  if spec.reads_prefix:
    starts = np.asarray([0, 0, T - LONG, 0, 0, 0])
    prefix = (np.arange(T)[None] >= starts[:, None]) & (np.arange(T)[None] < starts[:, None] + 3)
    prefix[4, SHORT : SHORT + 3] = True
    inputs['prefix_mask'] = prefix.astype(np.int32)
  if spec.encoder is None:
    source = source_segments = None
  marks = _marks(spec, segments, source_segments)
  return inputs | _types(spec, ids) | marks | _languages(spec, ids, source)


def _marks(spec: Model, segments: np.ndarray, source: np.ndarray | None) -> dict[str, np.ndarray]:
  """Return masks of global tokens, if layers have them: the first token of each document."""
  inputs = {}
  decoder = '' if spec.encoder is None else 'decoder_'
  for prefix, tower, documents in ((decoder, spec, segments), ('', spec.encoder, source)):
    if tower is not None and documents is not None and 'global' in token_extras(tower):
      before = np.pad(documents, ((0, 0), (1, 0)))[:, :-1]
      first = (documents != before) & (documents > 0)
      inputs[f'{prefix}global_attention_mask'] = first.astype(np.int32)
  return inputs


def _languages(spec: Model, ids: Any, source: Any) -> dict[str, Any]:
  """Return languages that depend on the token id only, if layers use languages."""
  inputs = {}
  decoder = '' if spec.encoder is None else 'decoder_'
  for prefix, tower, tokens in ((decoder, spec, ids), ('', spec.encoder, source)):
    if tower is not None and tokens is not None and 'language' in token_extras(tower):
      inputs[f'{prefix}lang_ids'] = tokens % 8
  return inputs


def _types(spec: Model, ids: np.ndarray) -> dict[str, np.ndarray]:
  """Return token types that depend on the token id only, if layers use token types."""
  return {'token_type_ids': ids % 2} if 'type' in token_extras(spec) else {}


def real(spec: Model) -> np.ndarray:
  """Return a mask [6, 12] of the (decoder) tokens that are not padding."""
  return batch(spec)['segment_ids' if spec.encoder is None else 'decoder_segment_ids'] > 0


@functools.lru_cache(maxsize=1)
def params(spec: Model):
  """Return random parameters, with projections that keep lengths and scales near 1."""
  rng = np.random.default_rng(1)

  def leaf(path, shape):
    name = path[-1].key
    noise = rng.standard_normal(shape.shape).astype(np.float32)
    return 1 + 0.1 * noise if name == 'scale' else np.asarray(0.2 * noise, np.float32)

  return jax.tree_util.tree_map_with_path(leaf, transformer.param_shapes(spec))


@functools.lru_cache(maxsize=1)
def results(spec: Model, run: Run, policy: str | None = None, backward: bool = True) -> Results:
  """Return the results of a case, computed by one compiled program."""
  inputs, shape = batch(spec), (6, T, spec.vocab)
  target = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
  target = target * real(spec)[..., None] / 100
  steered: set[str] = set()

  def passed(p, inputs, run):
    out = transformer.apply(spec, p, run=run, mtp=True, **inputs)
    paths = jax.tree_util.tree_leaves_with_path(out.get('load', {}))
    steered.update(jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths)
    logits = (out['logits'], *out.get('mtp_logits', ()))
    if not spec.embed.query:
      return logits
    targets = {'order_ids': _ORDER, 'target_positions': _PLACES}
    targets = {name: jnp.broadcast_to(x, out['logits'].shape[:2]) for name, x in targets.items()}
    return (*logits, transformer.apply(spec, p, run=run, **inputs, **targets)['logits'])

  def gradient(p, inputs, run, *targets):
    if not backward:
      return passed(p, inputs, run)[0], [None for _ in targets]
    y, pull = jax.vjp(lambda p: passed(p, inputs, run), p)
    # With `map` the backward pass is compiled once.
    (grads,) = jax.lax.map(pull, tuple(jnp.stack(targets) for _ in y))
    return y[0], [jax.tree.map(lambda g, i=i: g[i], grads) for i in range(len(targets))]

  @jax.jit
  def program(p, inputs, target):
    dense, tiled, tiled_grads = DenseAttention(), None, None
    if policy is None and run.attend != dense:
      # Experts choose within a sequence, so a repeated batch does not affect them.
      twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), inputs)
      none = jnp.zeros_like(target)
      targets = jnp.concatenate([target, none]), jnp.concatenate([none, target])
      halves = Run(attend=Halves((dense, run.attend)))
      y, (grads, tiled_grads) = gradient(p, twice, halves, *targets)
      logits, tiled = y[:6], y[6:]
    else:
      logits, (grads,) = gradient(p, inputs, Run(attend=dense), target)
    if policy is not None:
      tiled, (tiled_grads,) = gradient(p, inputs, Run(attend=run.attend, remat=policy), target)
    return logits, tiled, grads, tiled_grads, _reference(spec, run, p, inputs)

  return Results(*jax.device_get(program(params(spec), inputs, target)), steered)


def _reference(spec: Model, run: Run, p, inputs) -> jax.Array:
  if not spec.apart:
    return transformer.apply(spec, p, run=Run(loop='unroll'), **inputs)['logits']
  return _stepped(spec, run, p, inputs) if decodable(spec) else _alone(spec, p)


def _alone(spec: Model, p) -> jax.Array:
  """Return logits [8, V] of the first 8 tokens without padding, masks or segments, unrolled."""
  ids = _DOCUMENT[None, :LONG]
  inputs = {'input_ids': ids}
  if spec.encoder is not None:
    inputs = {'decoder_input_ids': ids, 'input_ids': _SOURCE[None, :LONG]}
  if spec.reads_prefix:
    inputs['prefix_mask'] = (np.arange(LONG) < 3).astype(np.int32)[None]
  inputs |= _types(spec, ids) | _marks(spec, np.ones_like(ids), np.ones_like(ids))
  inputs |= _languages(spec, ids, _SOURCE[None, :LONG])
  return transformer.apply(spec, p, run=Run(loop='unroll'), **inputs)['logits'][0]


def _stepped(spec: Model, run: Run, p, inputs) -> jax.Array:
  """Return logits [2, 12, V] of sequences 0 and 2 with a cache.

  The prompt has 7 tokens and is unrolled; the other tokens are single steps. No document begins
  after the prompt, and there is no padding on the right. The source has no padding.
  """
  prefix, source = '', {}
  if spec.encoder is not None:
    texts = jnp.asarray(_SOURCE[None, :LONG]).repeat(2, 0)
    prefix, source = 'decoder_', {'input_ids': texts}
    languages = _languages(spec, texts, texts)
    source |= {n: x for n, x in languages.items() if not n.startswith(prefix)}
  names = [n for n in inputs if n.startswith(prefix) or n == 'prefix_mask']
  decoder = {n: inputs[n][jnp.asarray([0, 2])] for n in names}
  empty = cache.init_cache(spec, 2, T, source=LONG, kind=run.cache)
  first = {n: x[:, :PROMPT] for n, x in decoder.items()}
  prompt = dataclasses.replace(run, loop='unroll')
  out = transformer.apply(spec, p, run=prompt, cache=empty, **first, **source)

  def step(kv_cache, token_B):
    inputs = {f'{prefix}input_ids': token_B[:, None]}
    languages = _languages(spec, token_B[:, None], None)
    inputs |= {n: x for n, x in languages.items() if n.startswith(prefix)}
    out = transformer.apply(spec, p, run=run, cache=kv_cache, **inputs)
    return out['cache'], out['logits'][:, 0]

  _, rest = jax.lax.scan(step, out['cache'], decoder[f'{prefix}input_ids'][:, PROMPT:].T)
  return jnp.concatenate([out['logits'], rest.swapaxes(0, 1)], 1)


@functools.lru_cache(maxsize=4)
def reach(spec: Model) -> np.ndarray:
  """Return a mask [12, 12]: whether output i can depend on (decoder) token j through all layers."""
  pos = np.arange(T, dtype=np.int32)[None]
  info = TokenInfo(pos, np.ones_like(pos), {'prefix': pos < 3})
  reached = np.eye(T, dtype=bool)
  with jax.ensure_compile_time_eval():
    for segment in spec.segments:
      for block in segment.pattern * segment.repeats:
        allowed = np.asarray(block.mixer.mask(info.rows(), info.columns()))[0]
        if isinstance(block.mixer, Hierarchical):
          number = pos[0] // block.mixer.block
          allowed = (allowed & (number[:, None] == number)) | (number < number[:, None])
        if isinstance(block.mixer, Longformer):  # the first token is global
          allowed = allowed | (pos[0] == 0)[:, None] | (pos[0] == 0)[None]
        if isinstance(block.mixer, BigBirdAttention):
          length = info.with_extras(length=np.full_like(pos, T))
          allowed = np.asarray(block.mixer.effective_mask(length.rows(), length.columns()))[0]
        if isinstance(block.mixer, GlobalLocal):  # the first token is global
          marked = info.with_extras(**{'global': pos == 0})
          allowed = np.asarray(block.mixer.effective_mask(marked.rows(), marked.columns()))[0]
        if isinstance(block.mixer, SpanConv):
          allowed = allowed | (abs(pos[0][:, None] - pos[0][None]) <= block.mixer.span // 2)
        # Pooled blocks cover all tokens.
        allowed = allowed | (getattr(block.mixer, 'pool', T + 1) <= T)
        reached = (allowed.astype(int) @ reached.astype(int) > 0) | reached
  return reached


def decodable(spec: Model) -> bool:
  """Return whether the model can decode the last tokens with a cache."""
  if any(
    isinstance(block.mixer, Longformer | BigBirdAttention | GlobalLocal) for block in blocks(spec)
  ):
    return False
  return spec.apart and not np.triu(reach(spec), 1)[:, PROMPT:].any()
