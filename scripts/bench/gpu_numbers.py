"""Compare attention kernels with each other, and models on a device with a CPU."""

from collections.abc import Callable, Iterator
import dataclasses
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tfm import zoo
from tfm.core import config
from tfm.core.platform import traced_for
from tfm.model import inputs, transformer
from tfm.model.spec import Model
from tfm.parts import mask as masks
from tfm.parts.attend import TABLE, Auto
from tfm.parts.attend.base import Attend, Scores
from tfm.parts.context import Run
from tfm.parts.relative import ALiBi
from tfm.parts.relative.t5 import bucket
from tfm.parts.term import QueryLookup
from tfm.parts.tokeninfo import TokenInfo

KERNELS = ('cudnn', 'blockwise', 'dense')
MODELS = ('gpt2', 't5-small', 'llama3.2-1b', 'gemma2-2b', 'vit-small-16', 'whisper-tiny')
#: Largest error of values and gradients, relative to the largest entry.
LIMITS = {'float32': 2e-4, 'bfloat16': 3e-2}

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
  """One attention call.

  Attributes:
    mask: The mask, to which documents and padding are added.
    terms: Some of 'alibi', 't5', 'content', 'cap' and 'sink'.
    T: The number of queries; 0: as many as keys.
    K: The number of key/value heads.
    H: The head size.
  """

  mask: masks.Mask = masks.Causal()
  terms: tuple[str, ...] = ()
  T: int = 0
  K: int = 2
  H: int = 64


def cases(tiny: bool) -> dict[str, Case]:
  """Return the calls by name; `tiny` joins them into two."""
  causal, full = masks.Causal(), masks.Mask()
  if tiny:
    terms = ('alibi', 't5', 'content', 'cap', 'sink')
    return {'causal': Case(), 'all terms': Case(masks.Prefix(), terms)}
  return {
    'causal': Case(),
    'full': Case(full),
    'window': Case(causal & masks.Window(40)),
    'chunks': Case(causal & masks.Chunks(48)),
    'strided': Case(masks.Strided(16)),
    'fixed': Case(masks.Fixed(32, 8)),
    'prefix': Case(masks.Prefix()),
    'all heads own keys': Case(K=4),
    'one key head, size 128': Case(K=1, H=128),
    'fewer queries than keys': Case(full, T=32),
    'alibi': Case(terms=('alibi',)),
    't5 bias': Case(full, terms=('t5',)),
    'content term': Case(terms=('content',)),
    'cap': Case(terms=('cap',)),
    'sink': Case(terms=('sink',)),
  }


def call_of(kernel: Attend, case: Case, S: int, dtype: str, N: int = 4, B: int = 2) -> Any:
  """Return (function, arguments) of an attention call with its gradients.

  Args:
    kernel: The attention kernel.
    case: The call.
    S: The number of keys.
    dtype: The dtype of queries, keys and values.
    N: The number of query heads.
    B: The batch size.

  Returns:
    A jittable function that returns (output, gradients), and its arguments.
  """
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape, np.float32)
  T = case.T or S
  arrays = {'q': draw(B, T, N, case.H), 'k': draw(B, S, case.K, case.H)}
  arrays |= {'v': draw(B, S, case.K, case.H), 'table': draw(32, N), 'sink': draw(N)}
  weight = draw(B, T, N, case.H)

  def loss(arrays: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
    q_BTNH, k_BSKH, v_BSKH = (arrays[name].astype(dtype) for name in 'qkv')
    given = scores_of(case, arrays['table'], arrays['sink'], N, T == S)
    y_BTNH = kernel(q_BTNH, k_BSKH, v_BSKH, info(B, T), info(B, S), given, 'float32')
    return (y_BTNH.astype(jnp.float32) * weight).sum(), y_BTNH

  def fn(arrays: dict[str, jax.Array]) -> Any:
    grads, y_BTNH = jax.grad(loss, has_aux=True)(arrays)
    return y_BTNH, grads

  return fn, arrays


def info(B: int, n: int) -> TokenInfo:
  """Return two documents in each sequence, with padding at the end; the first 8 are a prefix."""
  at = np.arange(n)
  segment = np.where(at < n // 2, 1, 2) * (at < n - 2)
  pos = np.where(at < n // 2, at, at - n // 2)
  tile = lambda a: jnp.asarray(np.tile(a, (B, 1)))
  extras = {'prefix': tile(pos < 8)}
  return TokenInfo(tile(pos.astype(np.int32)), tile(segment.astype(np.int32)), extras)


def scores_of(case: Case, table_UN: jax.Array, sink_N: jax.Array, N: int, square: bool) -> Scores:
  """Return the scores of a call.

  Args:
    case: The call.
    table_UN: Biases by bucket of distance and head.
    sink_N: Logits of the sink.
    N: The number of query heads.
    square: Whether queries and keys are the same tokens.

  Returns:
    The scores.
  """

  def t5(q: TokenInfo, k: TokenInfo) -> jax.Array:
    distance_BTS = k.positions[:, None, :] - q.positions[:, :, None]
    return jnp.moveaxis(table_UN[bucket(distance_BTS)], -1, 1)

  def content(q_BTNH: jax.Array, k_BSKH: jax.Array, q: TokenInfo, k: TokenInfo) -> Any:
    score_BNTU = jnp.einsum('BTNH,UN->BNTU', q_BTNH, table_UN.astype(q_BTNH.dtype))
    return (QueryLookup(score_BNTU, lambda q, k: bucket(k.positions - q.positions)),)

  biases: list[Any] = [t5] if 't5' in case.terms else []
  biases += [lambda q, k: ALiBi().bias(N, q, k)] if 'alibi' in case.terms else []
  return Scores(
    case.H**-0.5,
    case.mask & masks.Segments(),
    tuple(biases),
    (content,) if 'content' in case.terms else (),
    2.0 if 'cap' in case.terms else None,
    sink_N if 'sink' in case.terms else None,
    ordered=square and case.mask.causal,
  )


def error(found: Any, expected: Any) -> float:
  """Return the largest difference of two trees, relative to the largest entry of each array."""
  worst = 0.0
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    if not np.isfinite(a).all():
      return float('inf')
    worst = max(worst, float(np.abs(a - b).max(initial=0) / (np.abs(b).max(initial=0) + 1e-6)))
  return worst


def on_cpu(fn: Callable[..., Any], *args: Any) -> Any:
  """Return the result of a function that is compiled for and runs on the CPU."""
  cpu = jax.devices('cpu')[0]
  with traced_for('cpu'), jax.default_device(cpu):
    return jax.device_get(jax.jit(fn)(*jax.device_put(args, cpu)))


def kernels(dtype: str, tiny: bool) -> Iterator[Row]:
  """Yield the errors of all kernels in a dtype.

  The reference is `dense` in float32 on the CPU, with products in full precision.

  Args:
    dtype: 'float32' or 'bfloat16'.
    tiny: Whether to use short sequences.
  """
  S, limit = (32 if tiny else 512), LIMITS[dtype]
  for name, case in cases(tiny).items():
    with jax.default_matmul_precision('highest'):
      rounded, arrays = call_of(TABLE['dense'](), case, S, 'float32')
      near = {n: a.astype(dtype).astype('float32') for n, a in arrays.items()}
      expected = on_cpu(rounded, near)
    for kernel in KERNELS:
      row = {'check': f'{kernel} {dtype}', 'case': name, 'error': '', 'limit': f'{limit:.0e}'}
      fn, _ = call_of(TABLE[kernel](), case, S, dtype)
      try:
        with jax.default_matmul_precision('highest'):
          wrong = error(jax.jit(fn)(near), expected)
      except Exception as problem:
        yield row | {'verdict': verdict_of(problem)}
        continue
      yield row | {'error': f'{wrong:.1e}', 'verdict': 'ok' if wrong <= limit else 'WRONG'}


def verdict_of(problem: Exception) -> str:
  """Return one line on an error: kernels refuse some calls, and anything else is a failure."""
  line = (str(problem).splitlines() or [''])[0][:120]
  refused = line.startswith('attend=')
  return f'refused: {line.partition(": ")[2]}' if refused else f'FAILED: {line}'


def models(tiny: bool) -> Iterator[Row]:
  """Yield the errors of outputs and gradients of small models against the CPU."""
  for name in MODELS[:1] if tiny else MODELS:
    spec = zoo.tiny(config.override(zoo.get(name), '..dropout', '0'))
    row = {'check': 'model float32', 'case': name, 'error': '', 'limit': '1e-03'}
    try:
      with jax.default_matmul_precision('highest'):
        wrong = model_error(spec)
    except Exception as problem:
      yield row | {'verdict': verdict_of(problem)}
      continue
    yield row | {'error': f'{wrong:.1e}', 'verdict': 'ok' if wrong <= 1e-3 else 'WRONG'}


def model_error(spec: Model) -> float:
  """Return the error of a model's outputs and gradients on the default device."""
  rng = np.random.default_rng(0)
  params = on_cpu(lambda key: transformer.init(spec, key), jax.random.key(0))
  given = {}
  for name, shape in inputs.shapes(spec, 2, 16).items():
    whole = jnp.issubdtype(shape.dtype, jnp.integer)
    draw = rng.integers(1, 16, shape.shape) if whole else rng.standard_normal(shape.shape)
    given[name] = draw.astype(shape.dtype)

  def make() -> Callable[..., Any]:
    def loss(params: Any, given: Any) -> Any:
      out = transformer.apply(spec, params, run=Run(attend=Auto()), **given)
      first = next(v for n, v in out.items() if n in ('logits', 'last_hidden_state'))
      return (first * jnp.cos(jnp.arange(first.size)).reshape(first.shape)).mean(), first

    return jax.value_and_grad(loss, has_aux=True)

  return error(jax.jit(make())(params, given), on_cpu(make(), params, given))


#: name -> (B, S, N, K, H) of timed calls.
SHAPES = {
  'GPT-2 training': (32, 1024, 12, 12, 64),
  'Llama 1B training': (4, 2048, 32, 8, 64),
  'long context': (1, 8192, 32, 8, 128),
  'short text': (64, 128, 12, 12, 64),
}


def preferred(tiny: bool) -> Iterator[Row]:
  """Yield the time of each kernel by shape, and whether `auto` takes the fastest."""
  shapes = {'short text': (2, 32, 4, 2, 16)} if tiny else SHAPES
  for name, (B, S, N, K, H) in shapes.items():
    times: dict[str, float] = {}
    for kernel in (*KERNELS, 'auto'):
      fn, arrays = call_of(TABLE[kernel](), Case(K=K, H=H), S, 'bfloat16', N, B)
      try:
        times[kernel] = milliseconds(jax.jit(fn), jax.device_put(arrays), 2 if tiny else 10)
      except Exception as problem:
        yield {'shape': name, 'kernel': kernel, 'ms': '', 'verdict': verdict_of(problem)}
    own = {kernel: ms for kernel, ms in times.items() if kernel != 'auto'}
    best = min(own, key=lambda kernel: own[kernel], default='none')
    for kernel, ms in times.items():
      slow = kernel == 'auto' and ms > 1.1 * own[best]
      verdict = f'should prefer {best}' if slow else {best: 'fastest'}.get(kernel, '')
      yield {'shape': name, 'kernel': kernel, 'ms': f'{ms:.3f}', 'verdict': verdict}


def milliseconds(fn: Callable[..., Any], arrays: Any, rounds: int) -> float:
  """Return the median time of a compiled call in milliseconds."""
  jax.block_until_ready(fn(arrays))
  seconds = []
  for _ in range(rounds):
    start = time.perf_counter()
    jax.block_until_ready(fn(arrays))
    seconds.append(time.perf_counter() - start)
  return 1e3 * statistics.median(seconds)
