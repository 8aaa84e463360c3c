"""Outputs of another tower among token embeddings, in the places of placeholder tokens (LLaVA,
arXiv:2304.08485).
"""

from collections.abc import Iterator
import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.core.module import Module
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.context import Dims
from tfm.parts.dense import Dense
from tfm.parts.embed import ids_in_range
from tfm.parts.embed.base import Embed, Embedded
from tfm.parts.embed.tokens import Tokens


@dataclasses.dataclass(frozen=True)
class Splice(Embed):
  """Token embeddings, in which the i-th placeholder of the batch is the i-th vector of the tower,
  projected.

  Inputs: the inputs of `text`. The tower gives vectors `[I, S, R]` of I images, in the order of
  their placeholders, row by row; a row can have any number of images. The numbers of placeholders
  and of vectors in a batch must be equal. If they are not, `apply` raises an error where it can
  count them; under `jax.jit` all embeddings become NaN.

  Without the inputs of the tower all tokens are text. So the tokens after a cached prompt need no
  image; a prompt that is read in chunks needs the images with the one chunk that has their
  placeholders.

  Attributes:
    text: the token embeddings.
    tower: the tower whose outputs take the places.
    placeholder: token id of a place. It need not have a row in the token table.
    lead: how many tokens of each image are left out at its beginning (a class token: 1).
    act: activation between two linear layers. None: one linear layer.
    bias: biases of these layers.
  """

  needs: ClassVar = Tokens.needs
  takes: ClassVar = Tokens.takes
  provides: ClassVar = Tokens.provides

  text: Tokens = Tokens(32_064)
  tower: str = 'vision'
  placeholder: int = 32_000
  lead: int = 0
  act: Act | None = Gelu()
  bias: bool = True

  def make(self, dims):
    return _Splice(self, dims)

  def shapes(self, batch, length):
    return self.text.shapes(batch, length)

  def example(self, key, batch, length):
    ids_BT = self.text.example(key, batch, length)['input_ids']
    places = length // 2 - self.lead
    return {'input_ids': ids_BT.at[:, 1 : 1 + places].set(self.placeholder)}

  @property
  def towers(self):
    return (self.tower,)

  @property
  def optional(self):
    return True

  @property
  def token_embed(self):
    return self.text

  @property
  def width(self):
    return self.text.width

  @property
  def d_out(self):
    return self.text.d_out

  @property
  def vocab(self):
    return self.text.vocab or 0

  def flops(self, d_model):
    return self.text.flops(d_model)

  def read_flops(self, d_model, width):
    d = self.text.width or d_model
    return 2.0 * width * d + (0.0 if self.act is None else 2.0 * d * d)

  def check(self) -> Iterator[str]:
    if self.placeholder < 0 or self.lead < 0:
      yield f'placeholder={self.placeholder}, lead={self.lead}: a token id and a number of tokens. Expected at least 0.'
    if self.text.vocab is None:
      yield 'text.vocab=none shares a table, and there is none. Expected the number of token ids.'

  def check_inputs(self, given, name_of, limit):
    ids = given['input_ids']
    if ids_in_range.on_host(ids):  # a placeholder may be an id outside of the vocabulary
      ids = np.where(np.asarray(ids) == self.placeholder, 0, ids)
    self.text.check_inputs({**given, 'input_ids': ids}, name_of, limit)

  def info(self, inputs, shape):
    return self.text.info(inputs, shape)


class _Splice(Module):
  spec: Splice
  dims: Dims

  def setup(self):
    self.text = self.spec.text.make(self.dims)
    self.project = _Projector(self.spec, self.dims.foot)

  def __call__(self, inputs, outputs):
    return self.leave(self.finish(self.start(inputs, outputs, None).x_BTD, False))

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the embeddings of tokens and projected vectors, before positions are added."""
    if self.spec.tower not in outputs:
      return self.text.start(inputs, outputs, next_B)
    is_place_BT = inputs['input_ids'] == self.spec.placeholder
    vectors_BSR = outputs[self.spec.tower][0][:, self.spec.lead :]
    if not self.is_initializing():
      _check_places(self.spec, is_place_BT, vectors_BSR)
    start = self.text.start(
      {**inputs, 'input_ids': jnp.where(is_place_BT, 0, inputs['input_ids'])}, outputs, next_B
    )
    return start._replace(x_BTD=_put(start.x_BTD, is_place_BT, self.project(vectors_BSR)))

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout, and project to d_model."""
    return self.text.finish(x_BTD, train)

  def leave(self, x_BTD: jax.Array) -> jax.Array:
    """Project the last hidden state to the width of the table, if `text.back`."""
    return self.text.leave(x_BTD)

  def words(self):
    """Return the token table as a tied head uses it."""
    return self.text.words()


class _Projector(Module):
  spec: Splice
  dims: Dims

  @nn.compact
  def __call__(self, x_BSR: jax.Array) -> jax.Array:
    s, R, D = self.spec, x_BSR.shape[-1], self.dims.d_model
    y_BSD = Dense('RD', (R, D), self.dims, bias=s.bias, name='in')(x_BSR)
    return (
      y_BSD
      if s.act is None
      else Dense('DD', (D, D), self.dims, bias=s.bias, name='out')(s.act(y_BSD))
    )


def _put(x_BTD: jax.Array, is_place_BT: jax.Array, y_BSD: jax.Array) -> jax.Array:
  """Return `x_BTD` with the vectors `y_BSD` at the places, in order; NaN unless they are equally
  many.
  """
  D, n = x_BTD.shape[-1], y_BSD.shape[0] * y_BSD.shape[1]
  count_BT = jnp.cumsum(is_place_BT.reshape(-1)).reshape(is_place_BT.shape)
  # One row more than there are vectors, so that there is something to take of none.
  rows_SD = jnp.concatenate([y_BSD.reshape(n, D), jnp.zeros((1, D), y_BSD.dtype)])
  put_BTD = jnp.take(rows_SD, jnp.clip(count_BT - 1, 0, n), axis=0)
  x_BTD = jnp.where(is_place_BT[..., None], put_BTD.astype(x_BTD.dtype), x_BTD)
  return jnp.where(count_BT[-1, -1] == n, x_BTD, jnp.nan)


def _check_places(spec: Splice, is_place_BT: jax.Array, vectors_BSR: jax.Array) -> None:
  """Raise UserError if the number of places cannot be, or is seen not to be, that of vectors."""
  images, each = vectors_BSR.shape[:2]
  rows, length = is_place_BT.shape
  found, count = f'at most {rows * length}', images * each
  bad = rows * length < count
  if not bad and not isinstance(is_place_BT, jax.core.Tracer):
    places = int(jnp.sum(is_place_BT))
    found, bad = str(places), places != count
  if bad:
    raise errors.UserError(
      f'apply: input_ids has {found} placeholders (id {spec.placeholder}), and tower '
      f'{spec.tower!r} gives {count} '
      f'vectors: {images} inputs of {each} tokens. Expected a placeholder for each vector.'
    )
