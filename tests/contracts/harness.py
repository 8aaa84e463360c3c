"""The few programs that a case is asked: all its rows at once, alone and step by step, and its gradient.

T = 12. The rows of the one batch: 0 a document of 12; 1 the same with token 7 changed; 2 and 3 its first 8 tokens
padded left and right; 4 another document of 4 packed before those 8; 5 that other document padded right.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tfm.model import cache, transformer
from tfm.model.spec import Model, reads_types
from tfm.parts.context import Run
from tfm.parts.site import Site

T, LONG, SHORT, CHANGED, PROMPT = 12, 8, 4, 7, 7
_rng = np.random.default_rng(0)
_DOCUMENT, _OTHER, _SOURCE = (_rng.integers(1, 64, T) for _ in range(3))
_PLACES = np.arange(T, dtype=np.int32)
_ORDER = 5 * _PLACES % T


def _padded(tokens, segments):
  """[6, 12] of tokens and of segment ids."""
  changed = tokens.copy()
  changed[CHANGED] = (changed[CHANGED] + 7) % 64
  first, other, gap = tokens[:LONG], _OTHER[:SHORT], T - LONG
  zeros = np.zeros(T, int)
  ids = [tokens, changed, [*zeros[:gap], *first], [*first, *zeros[:gap]], [*other, *first], [*other, *zeros[:LONG]]]
  one, two = [1] * LONG, [2] * LONG
  seg = [[1] * T, [1] * T, [0] * gap + one, one + [0] * gap, [1] * SHORT + two, [1] * SHORT + [0] * LONG]
  return jnp.asarray(ids, jnp.int32), jnp.asarray(seg, jnp.int32)


def batch(spec: Model) -> dict[str, jax.Array]:
  """The six rows as inputs. A prefix mask covers the first 3 tokens of each document."""
  ids, segments = _padded(_DOCUMENT, True)
  if spec.encoder is None:
    inputs = {'input_ids': ids, 'segment_ids': segments}
  else:
    # The changed token is the decoder's, so both sources are the same.
    source, source_segments = _padded(_SOURCE, True)
    source = source.at[1].set(source[0])
    inputs = {'input_ids': source, 'segment_ids': source_segments}
    inputs |= {'decoder_input_ids': ids, 'decoder_segment_ids': segments}
  if spec.reads_prefix:
    starts = np.asarray([0, 0, T - LONG, 0, 0, 0])
    prefix = (np.arange(T)[None] >= starts[:, None]) & (np.arange(T)[None] < starts[:, None] + 3)
    prefix[4, SHORT : SHORT + 3] = True
    inputs['prefix_mask'] = jnp.asarray(prefix, jnp.int32)
  return inputs | _types(spec, ids)


def _types(spec: Model, ids: jax.Array) -> dict[str, jax.Array]:
  """Types, where layers are told them: a token has the same one wherever it stands."""
  return {'token_type_ids': ids % 2} if reads_types(spec) else {}


@functools.lru_cache(maxsize=4)
def params(spec: Model):
  """Random parameters, none at an idle start such as a sink of 0: projections keep lengths, scales are near 1."""
  rng = np.random.default_rng(1)

  def leaf(path, shape):
    name = path[-1].key
    noise = rng.standard_normal(shape.shape).astype(np.float32)
    return jnp.asarray(1 + 0.1 * noise if name == 'scale' else 0.2 * noise)

  return jax.tree_util.tree_map_with_path(leaf, transformer.param_shapes(spec))


@functools.lru_cache(maxsize=4)
def rows(spec: Model, run: Run = Run()) -> np.ndarray:
  """Logits [6, 12, V] of the batch, scanned."""
  logits = jax.jit(lambda p, b: transformer.apply(spec, p, run=run, **b)['logits'])(params(spec), batch(spec))
  return np.asarray(logits)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradient(spec: Model, run: Run, p, inputs, target):
  def loss(p):
    out = transformer.apply(spec, p, run=run, mtp=True, **inputs)
    said = [out['logits'], *out.get('mtp_logits', ())]
    if spec.embed.query:
      asked = {'order_ids': jnp.broadcast_to(_ORDER, (6, T)), 'target_positions': jnp.broadcast_to(_PLACES, (6, T))}
      said.append(transformer.apply(spec, p, run=run, **inputs, **asked)['logits'])
    return sum(jnp.sum(target * x) for x in said) / 100, out['logits']

  (_, logits), grads = jax.value_and_grad(loss, has_aux=True)(p)
  return logits, grads


def gradient(spec: Model, run: Run):
  """(logits, gradients) of a random projection of the logits of all real tokens, those of later tokens among them."""
  inputs = batch(spec)
  target = np.random.default_rng(2).standard_normal((6, T, spec.vocab)).astype(np.float32)
  segments = inputs['segment_ids' if spec.encoder is None else 'decoder_segment_ids']
  return _gradient(spec, run, params(spec), inputs, target * np.asarray(segments > 0)[..., None])


@functools.lru_cache(maxsize=4)
def steered(spec: Model) -> set[str]:
  """The paths of the parameters that no gradient moves: those whose load the model tells."""
  told = jax.eval_shape(lambda p: transformer.apply(spec, p, mtp=True, **batch(spec)).get('load', {}), params(spec))
  paths = jax.tree_util.tree_leaves_with_path(told)
  return {jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in paths}


def alone(spec: Model) -> np.ndarray:
  """Logits [8, V] of the document's first 8 tokens in a row of their own, with neither mask nor segments.

  Where a single stack sees nothing that comes after the prompt, they are the first 8 of the batch's row 0.
  """
  if decodable(spec) and spec.encoder is None:
    return rows(spec)[0, :LONG]
  ids = jnp.asarray(_DOCUMENT[None, :LONG], jnp.int32)
  inputs = {'input_ids': ids} if spec.encoder is None else {'decoder_input_ids': ids}
  if spec.encoder is not None:
    inputs['input_ids'] = jnp.asarray(_SOURCE[None, :LONG], jnp.int32)
  if spec.reads_prefix:
    inputs['prefix_mask'] = (jnp.arange(LONG) < 3).astype(jnp.int32)[None]
  inputs |= _types(spec, ids)
  return np.asarray(jax.jit(lambda p, b: transformer.apply(spec, p, **b)['logits'])(params(spec), inputs))[0]


def stepped(spec: Model, run: Run = Run()) -> np.ndarray | None:
  """Logits [6, 12, V] of the batch, a prompt of 7 tokens and then one at a time; None where nobody may decode.

  Rows 0, 1 and 2 only are what a decoder meets: no document begins after the prompt, none is padded on the right.
  """
  if not decodable(spec):
    return None
  own = '' if spec.encoder is None else 'decoder_'
  inputs = batch(spec)
  source = {} if spec.encoder is None else {n: inputs[n] for n in ('input_ids', 'segment_ids')}
  mine = {n: x for n, x in inputs.items() if n not in source}
  first = {n: x[:, :PROMPT] for n, x in mine.items()}

  @jax.jit
  def program(p):
    empty = cache.init_cache(spec, 6, T, source=T, kind=run.cache)
    out = transformer.apply(spec, p, run=run, cache=empty, **first, **source)

    def step(kept, token_B):
      out = transformer.apply(spec, p, run=run, cache=kept, **{f'{own}input_ids': token_B[:, None]})
      return out['cache'], out['logits'][:, 0]

    _, rest = jax.lax.scan(step, out['cache'], mine[f'{own}input_ids'][:, PROMPT:].T)
    return jnp.concatenate([out['logits'], rest.swapaxes(0, 1)], 1)

  return np.asarray(program(params(spec)))


@functools.lru_cache(maxsize=64)
def sight(spec: Model) -> np.ndarray:
  """[12, 12] bool: whether the output at i may know of the (decoder) token at j, through all layers."""
  pos = jnp.arange(T, dtype=jnp.int32)[None]
  site = Site(pos, jnp.ones_like(pos), pos < 3)
  reach = np.eye(T, dtype=bool)
  for segment in spec.segments:
    for block in segment.pattern * segment.repeats:
      seen = np.asarray(block.mixer.mask(site.rows(), site.columns()))[0]
      seen = seen | (getattr(block.mixer, 'pool', T + 1) <= T)  # by blocks, of which every token is in one
      reach = (seen.astype(int) @ reach.astype(int) > 0) | reach
  return reach


def decodable(spec: Model) -> bool:
  """Whether tokens after the prompt are seen by later ones only."""
  return spec.apart and not np.triu(sight(spec), 1)[:, PROMPT:].any()
