"""Long short-term memory (LSTM)."""

from collections.abc import Callable, Iterator
import dataclasses
import math
from typing import Any, ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from tfm.core.axes import sharded, trailing
from tfm.core.module import Module
from tfm.parts.context import Ctx, Dims
from tfm.parts.contract import contract
from tfm.parts.dense import Dense, weight
from tfm.parts.mask.causal import Causal
from tfm.parts.mixer.base import Cache, Mixer
from tfm.parts.state import SEGMENT, Slot, documents, row_state, with_state
from tfm.parts.stored import Stored


@dataclasses.dataclass(frozen=True)
class LSTM(Mixer):
  """A long short-term memory network over each document (Hochreiter & Schmidhuber, 1997).

  c_t = s(f) c_{t-1} + s(i) tanh(g) and h_t = s(o) tanh(c_t), with [i f g o] = x_t W_x + h_{t-1} W_h
  + b and s the sigmoid. The forget gate is that of Gers et al. (2000). The gates are in PyTorch's
  order, and b is the sum of PyTorch's two biases.

  One matrix product computes x_t W_x for all tokens. It costs 16 D F FLOPs per token for F cells,
  and 2 D F more with `project`. The state of a sequence is h and c in float32, D + F + 1 numbers.

  Attributes:
    size: F, the number of cells; None: d_model.
    project: h_t is (s(o) tanh(c_t)) W_o, from F to D numbers (arXiv:1402.1128). Required if F
      differs from D.
    bias: whether to add b.
    forget_bias: the initial bias of the forget gates; the other gates start at 0.
  """

  size: int | None = None
  project: bool = False
  _: dataclasses.KW_ONLY
  bias: bool = True
  forget_bias: float = 1.0

  mask: ClassVar[Causal] = Causal()

  def check(self) -> Iterator[str]:
    if self.size is not None and self.size < 1:
      yield f'size={self.size} is not a number of cells. Expected at least 1, or none for d_model.'

  def fits(self, d_model):
    if not self.project and self.cells(d_model) != d_model:
      yield f'size={self.size} differs from d_model={d_model}. Expected project=true, or size=none.'

  def cells(self, d_model: int) -> int:
    """Return F, the number of cells."""
    return self.size or d_model

  def make(self, dims):
    return _LSTM(self, dims)

  def state(self, d_model):
    return {
      'h': Slot((d_model,), 'float32', 'row'),
      'c': Slot((self.cells(d_model),), 'float32', 'row'),
      SEGMENT: Slot((), 'int32', 'row'),
    }

  def flops(self, d_model, pairs):
    return (16 + 2 * self.project) * d_model * self.cells(d_model)

  def pairs(self, length):
    return 1.0


class _LSTM(Module):
  spec: LSTM
  dims: Dims

  @nn.compact
  def __call__(self, x_BTD: jax.Array, ctx: Ctx, cache: Cache = None) -> tuple[jax.Array, Cache]:
    s, (B, _, D), precision = self.spec, x_BTD.shape, self.dims.run.precision
    F, dtype, reduce = s.cells(D), x_BTD.dtype, precision.dtype('reduce')
    x_BTGF = Dense('DGF', (D, 4, F), self.dims, name='x')(x_BTD)
    if s.bias:
      bias_GF = self.param(
        'bias', sharded(_start(s.forget_bias), 'GF'), (4, F), precision.dtype('param')
      )
      x_BTGF = x_BTGF + trailing(bias_GF.astype(dtype), 4)
    kernels = {'h': _Kernel('DGF', (D, 4, F), self.dims, name='h')(dtype)}
    if s.project:
      kernels['o'] = _Kernel('FD', (F, D), self.dims, name='o')(dtype)

    rows = row_state(s.state(D), cache, B)
    docs = documents(ctx.info.segment_ids, rows[SEGMENT])
    by_time = lambda a: a.swapaxes(0, 1)
    marks = by_time(docs.starts)[..., None], by_time(docs.real)[..., None]
    stored = any(isinstance(kernel, Stored) for kernel in kernels.values())
    run = _states if stored else _recurrence
    h, c = run(kernels, by_time(x_BTGF), (rows['h'].astype(dtype), rows['c'].astype(reduce)), marks)
    each = lambda: {'h': by_time(h), 'c': by_time(c), SEGMENT: docs.segment}
    cache = with_state(
      cache, {'h': h[-1], 'c': c[-1], SEGMENT: docs.segment[:, -1]}, each, docs.real
    )
    return by_time(h), cache


#: h `[B, D]` and c `[B, F]`, or both after each token, time first.
_Pair = tuple[jax.Array, jax.Array]


def _scan(
  kernels: dict[str, Any], x: jax.Array, tap: jax.Array | None, state: _Pair, marks: _Pair
) -> Any:
  """Return h and c after each token, and the cell outputs before the projection, time first.

  Args:
    kernels: W_h as 'h', and W_o as 'o' if h is projected.
    x: x_t W_x + b, `[T, B, 4, F]`.
    tap: zeros `[T, B, D]` added to the projected outputs. Its gradient is the gradient of the
      projection's output. None: no gradient is needed.
    state: h and c before the first token.
    marks: where documents start, and which tokens are real, `[T, B, 1]`.
  """

  def product(name, a):
    kernel = kernels[name]
    return kernel.contract(a) if isinstance(kernel, Stored) else contract(a, kernel)

  def step(state, token):
    x_BGF, tap_BD, starts_B1, real_B1 = token
    h_BD, c_BF = (jnp.where(starts_B1, 0, a) for a in state)
    i, f, g, o = jnp.moveaxis((x_BGF + product('h', h_BD)).astype(c_BF.dtype), 1, 0)
    c_BF = jax.nn.sigmoid(f) * c_BF + jax.nn.sigmoid(i) * jnp.tanh(g)
    m_BF = (jax.nn.sigmoid(o) * jnp.tanh(c_BF)).astype(x_BGF.dtype)
    h_BD = product('o', m_BF) if 'o' in kernels else m_BF
    h_BD = h_BD if tap_BD is None else h_BD + tap_BD
    state = tuple(
      jnp.where(real_B1, new, old) for new, old in zip((h_BD, c_BF), state, strict=True)
    )
    return state, (state, m_BF)

  _, (states, m) = jax.lax.scan(step, state, (x, tap, *marks))
  return states, m


def _states(kernels: dict[str, Any], x: jax.Array, state: _Pair, marks: _Pair) -> _Pair:
  """Return h and c after each token."""
  return _scan(kernels, x, None, state, marks)[0]


@jax.custom_vjp
def _recurrence(kernels: dict[str, jax.Array], x: jax.Array, state: _Pair, marks: _Pair) -> _Pair:
  """Return `_states`, with the gradient of each kernel as one product over all tokens.

  Autodiff would add to the full gradient of each kernel at every token.
  """
  return _states(kernels, x, state, marks)


def _forward(kernels, x, state, marks):
  tap = jnp.zeros((*x.shape[:2], state[0].shape[-1]), x.dtype) if 'o' in kernels else None
  # The kernels are constants here. Each product is added to `x` or `tap`, so its gradient
  # is also the gradient of the product.
  states, pull, m = jax.vjp(
    lambda x, tap, state: _scan(kernels, x, tap, state, marks), x, tap, state, has_aux=True
  )
  before = jnp.concatenate([state[0][None], states[0][:-1]])
  return states, (pull, jnp.where(marks[0], 0, before), m if 'o' in kernels else None)


def _backward(residuals, grads):
  pull, before, m = residuals
  dx, dtap, dstate = pull(grads)
  dkernels = {'h': jnp.einsum('TBD,TBGF->DGF', before, dx)}
  if m is not None:
    dkernels['o'] = jnp.einsum('TBF,TBD->FD', m, dtap)
  return dkernels, dx, dstate, None


_recurrence.defvjp(_forward, _backward)


class _Kernel(Module):
  """A weight in the dtype of activations, or in the layout of `tfm.generate.prepare`."""

  letters: str
  shape: tuple[int, ...]
  dims: Dims

  @nn.compact
  def __call__(self, dtype: DTypeLike) -> Any:
    n_in, n_out = self.shape[0], math.prod(self.shape[1:])
    init = sharded(self.dims.init.weight(self.name or '', n_in, n_out, self.dims), self.letters)
    kernel = weight(self, 'kernel', init, self.shape, self.dims.run.precision.dtype('param'))
    return kernel if isinstance(kernel, Stored) else kernel.astype(dtype)


def _start(forget_bias: float) -> Callable[..., jax.Array]:
  """Return the initializer of the bias `[4, F]`."""
  return lambda key, shape, dtype: jnp.zeros(shape, dtype).at[1].set(forget_bias)
