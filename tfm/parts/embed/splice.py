"""Outputs of another tower in place of placeholder tokens."""

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
  """Token embeddings with projected images in place of placeholders (LLaVA, arXiv:2304.08485).

  Inputs: the inputs of `text`. The tower returns vectors `[I, S, R]` of I images. The i-th
  placeholder of the batch becomes the i-th vector, counted sequence by sequence. A sequence can
  have any number of images. The numbers of placeholders and vectors in a batch must be equal. If
  they are not, `apply` raises an error; under `jax.jit`, where it cannot count them, all embeddings
  become NaN.

  Without the inputs of the tower all tokens are text. So the tokens after a cached prompt need no
  image. If a prompt is given in chunks, pass the images with the chunk that has their placeholders.

  Attributes:
    text: the token embeddings.
    tower: name of the tower with the images.
    placeholder: token id of a placeholder. It need not be in the token table.
    lead: number of vectors left out at the start of each image (a class token: 1).
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
    count = length // 2 - self.lead
    return {'input_ids': ids_BT.at[:, 1 : 1 + count].set(self.placeholder)}

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
      yield (
        f'placeholder={self.placeholder}, lead={self.lead} must not be negative. '
        'Expected at least 0 each.'
      )
    if self.text.vocab is None:
      yield 'text.vocab=none shares a table, and there is none. Expected the number of token ids.'

  def check_inputs(self, given, name_of, limit):
    ids = given['input_ids']
    if ids_in_range.on_host(ids):  # the placeholder may be outside the vocabulary
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
    return self.project_out(self.finish(self.start(inputs, outputs, None).x_BTD, False))

  def start(self, inputs, outputs, next_B) -> Embedded:
    """Return the embeddings of tokens and projected vectors, before positions are added."""
    if self.spec.tower not in outputs:
      return self.text.start(inputs, outputs, next_B)
    is_placeholder_BT = inputs['input_ids'] == self.spec.placeholder
    vectors_BSR = outputs[self.spec.tower][0][:, self.spec.lead :]
    if not self.is_initializing():
      _check_placeholders(self.spec, is_placeholder_BT, vectors_BSR)
    ids_BT = jnp.where(is_placeholder_BT, 0, inputs['input_ids'])
    start = self.text.start({**inputs, 'input_ids': ids_BT}, outputs, next_B)
    return start._replace(x_BTD=_put(start.x_BTD, is_placeholder_BT, self.project(vectors_BSR)))

  def finish(self, x_BTD: jax.Array, train: bool) -> jax.Array:
    """Apply norm and dropout, and project to d_model."""
    return self.text.finish(x_BTD, train)

  def project_out(self, x_BTD: jax.Array) -> jax.Array:
    """Project the last hidden state to the width of the table, if `text.back`."""
    return self.text.project_out(x_BTD)

  def tied_table(self):
    """Return the token table for a tied head."""
    return self.text.tied_table()


class _Projector(Module):
  spec: Splice
  dims: Dims

  @nn.compact
  def __call__(self, x_BSR: jax.Array) -> jax.Array:
    s, R, D = self.spec, x_BSR.shape[-1], self.dims.d_model
    y_BSD = Dense('RD', (R, D), self.dims, bias=s.bias, name='in')(x_BSR)
    if s.act is None:
      return y_BSD
    return Dense('DD', (D, D), self.dims, bias=s.bias, name='out')(s.act(y_BSD))


def _put(x_BTD: jax.Array, is_placeholder_BT: jax.Array, y_BSD: jax.Array) -> jax.Array:
  """Return `x_BTD` with the vectors `y_BSD` at the placeholders, in order.

  If their numbers differ, the result is NaN.
  """
  D, n = x_BTD.shape[-1], y_BSD.shape[0] * y_BSD.shape[1]
  count_BT = jnp.cumsum(is_placeholder_BT.reshape(-1)).reshape(is_placeholder_BT.shape)
  # An extra vector, so that the lookup is defined for 0 vectors too.
  vectors_SD = jnp.concatenate([y_BSD.reshape(n, D), jnp.zeros((1, D), y_BSD.dtype)])
  put_BTD = jnp.take(vectors_SD, jnp.clip(count_BT - 1, 0, n), axis=0)
  x_BTD = jnp.where(is_placeholder_BT[..., None], put_BTD.astype(x_BTD.dtype), x_BTD)
  return jnp.where(count_BT[-1, -1] == n, x_BTD, jnp.nan)


def _check_placeholders(spec: Splice, is_placeholder_BT: jax.Array, vectors_BSR: jax.Array) -> None:
  """Raise UserError if the numbers of placeholders and vectors differ or cannot be equal."""
  images, each = vectors_BSR.shape[:2]
  tokens, vectors = is_placeholder_BT.size, images * each
  number, bad = f'at most {tokens}', tokens < vectors
  if not bad and not isinstance(is_placeholder_BT, jax.core.Tracer):
    placeholders = int(jnp.sum(is_placeholder_BT))
    number, bad = str(placeholders), placeholders != vectors
  if bad:
    raise errors.UserError(
      f'apply: input_ids has {number} placeholders (id {spec.placeholder}), and tower '
      f'{spec.tower!r} returns {vectors} vectors: {images} inputs of {each} tokens. '
      'Expected a placeholder for each vector.'
    )
