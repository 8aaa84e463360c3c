"""From named inputs to token infos: padding, packed documents, positions, and where a cache goes on."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.model import targets
from tfm.model.spec import Encoder, Model, max_positions, reads
from tfm.parts.tokeninfo import TokenInfo, positions

_SOURCE = ('input_ids', 'attention_mask', 'segment_ids', 'position_ids', 'token_type_ids', 'prefix_mask')
_DECODER = ('input_ids', 'attention_mask', 'segment_ids', 'position_ids')
_ASKED = ('order_ids', 'target_positions')
NAMES = (*_SOURCE, *_ASKED, 'encoder_outputs', *(f'decoder_{n}' for n in _DECODER))


@dataclasses.dataclass(frozen=True)
class Inputs:
  """The inputs of one stack; absent ones are None. `outputs` are an encoder's, computed before."""

  input_ids: jax.Array | None = None
  attention_mask: jax.Array | None = None
  segment_ids: jax.Array | None = None
  position_ids: jax.Array | None = None
  token_type_ids: jax.Array | None = None
  prefix_mask: jax.Array | None = None
  order_ids: jax.Array | None = None
  target_positions: jax.Array | None = None
  outputs: jax.Array | None = None

  def shape(self) -> tuple[int, int]:
    """(B, T)."""
    array = self.input_ids if self.outputs is None else self.outputs
    assert array is not None
    return array.shape[0], array.shape[1]


def split(spec: Model, inputs: dict[str, Any], cache: Any) -> tuple[Inputs | None, Inputs]:
  """(the encoder's inputs or None, the decoder's), checked by name and shape."""
  given = {name: value for name, value in inputs.items() if value is not None}
  for name in given:
    if name not in NAMES:
      raise errors.UserError(f'apply: {errors.unknown("input", name, NAMES)}')
  both = [n for n in ('', 'decoder_') if f'{n}attention_mask' in given and f'{n}segment_ids' in given]
  if both:
    raise errors.UserError('apply: attention_mask and segment_ids are both given. Wanted one: segment 0 is padding.')
  for why in targets.unfit(spec, given, cache):
    raise errors.UserError(f'apply: {why}')
  if spec.encoder is None:
    if odd := sorted(n for n in given if n.startswith(('decoder_', 'encoder_'))):
      raise errors.UserError(
        f'apply: the model has no encoder, so it does not take {", ".join(odd)}. Wanted input_ids.'
      )
    if cache is not None and 'token_type_ids' in given and 'type' in reads(spec):
      raise errors.UserError(
        'apply: a cache keeps no token types, and layers of the model ask for them. '
        'Wanted whole rows, or no token_type_ids.'
      )
    return None, _checked(spec, spec, Inputs(**given), 'input_ids')
  decoder = Inputs(**{n: given.pop(f'decoder_{n}', None) for n in _DECODER}, prefix_mask=given.pop('prefix_mask', None))
  decoder = _checked(spec, spec, decoder, 'decoder_input_ids')
  outputs = given.pop('encoder_outputs', None)
  if outputs is None and 'input_ids' not in given and cache is not None:
    return None, decoder
  source = Inputs(**given, outputs=outputs)
  return source if outputs is not None else _checked(spec.source, spec.encoder, source, 'input_ids'), decoder


def _checked(spec: Model, stack: Model | Encoder, inputs: Inputs, name: str) -> Inputs:
  if inputs.input_ids is None:
    raise errors.UserError(f'apply: {name} is missing. Wanted int32 [B, T] token ids.')
  if inputs.input_ids.ndim != 2:
    raise errors.UserError(f'apply: {name} has shape {inputs.input_ids.shape}. Wanted [B, T].')
  B, T = inputs.input_ids.shape
  for field in dataclasses.fields(inputs):
    value = getattr(inputs, field.name)
    wanted = (B, *value.shape[1:2]) if field.name == 'target_positions' and value is not None else (B, T)
    if value is not None and field.name != 'outputs' and value.shape != wanted:
      raise errors.UserError(f'apply: {field.name} has shape {value.shape}. Wanted that of {name}, {wanted}.')
  limit = max_positions(stack)
  if limit is not None and limit < T:
    raise errors.UserError(
      f'apply: {name} is {T} tokens long, the position table has {limit} rows. Wanted at most {limit}.'
    )
  if inputs.token_type_ids is not None and not (spec.embed.types or 'type' in reads(stack)):
    raise errors.UserError('apply: token_type_ids are given, but the model has no token types (embed.types=0).')
  return inputs


def info(inputs: Inputs, cache: Any, types: bool = False) -> TokenInfo:
  """Where each token stands; positions go on where the cache's rows ended. Layers are told token types if `types`."""
  B, T = inputs.shape()
  if inputs.segment_ids is not None:
    segment_BT, pos_BT = inputs.segment_ids.astype(jnp.int32), positions(inputs.segment_ids)
  elif inputs.attention_mask is not None:
    segment_BT = (inputs.attention_mask != 0).astype(jnp.int32)
    pos_BT = jnp.maximum(jnp.cumsum(segment_BT, axis=1) - 1, 0)
  else:
    segment_BT = jnp.ones((B, T), jnp.int32)
    pos_BT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32), (B, T))
  if cache is not None:
    pos_BT = pos_BT + cache['next'][:, None]
  if inputs.position_ids is not None:
    pos_BT = inputs.position_ids.astype(jnp.int32)
  prefix_BT = None if inputs.prefix_mask is None else inputs.prefix_mask != 0
  if prefix_BT is None and cache is not None:
    prefix_BT = jnp.zeros((B, T), bool)
  found = TokenInfo(pos_BT, segment_BT).with_extras(prefix=prefix_BT, type=inputs.token_type_ids if types else None)
  return found if inputs.order_ids is None else targets.ordered(found, inputs.order_ids)


def advance(cache: dict[str, Any], info: TokenInfo, layers: Any) -> dict[str, Any]:
  """The cache once the tokens at `info` are in it."""
  real_BT = info.segment_ids > 0
  last_B = jnp.max(jnp.where(real_BT, info.positions + 1, 0), axis=1)
  slot_B = cache['slot'] + jnp.sum(real_BT, axis=1, dtype=jnp.int32)
  return cache | {'slot': slot_B, 'next': jnp.maximum(cache['next'], last_B), 'layers': layers}
