"""The model as pure functions: `init(spec, key)` and `apply(spec, params, **inputs)`. Next: `train/loop.py`."""

import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import axes
from tfm.model import inputs as inputs_lib
from tfm.model import mtp as mtp_lib
from tfm.model import stack as stack_lib
from tfm.model import targets
from tfm.model.classify import Classify, named
from tfm.model.embedding import Embedding, Unembedding
from tfm.model.spec import Encoder, Model, reads
from tfm.model.stack import Params, named_key
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.tell import ATTENTIONS, CROSS, HIDDEN
from tfm.parts.tokeninfo import TokenInfo

RUN = Run()


def init(spec: Model, key: jax.Array, run: Run = RUN) -> Params:
  """Fresh parameters: nested dicts of arrays, the repeats of a segment stacked on a leading axis."""
  return nn.unbox(_boxed(spec, key, run))


def param_shapes(spec: Model, run: Run = RUN) -> Params:
  """The parameters as `jax.ShapeDtypeStruct`s; no array is made."""
  return nn.unbox(_boxed_shapes(spec, run))


def param_letters(spec: Model) -> Params:
  """The letters of each parameter's axes ('LDNH'), a tree like the parameters'."""
  return axes.letters_of(_boxed_shapes(spec, RUN))


@functools.lru_cache(maxsize=512)  # more than the zoo has: a tree of shapes is small, tracing it is not
def _boxed_shapes(spec: Model, run: Run) -> Params:
  return jax.eval_shape(functools.partial(_boxed, spec, run=run), jax.random.key(0))


def _boxed(spec: Model, key: jax.Array, run: Run) -> Params:
  # A kernel that traces a bias by itself must not be where the bias's parameters begin.
  run = dataclasses.replace(run, attend=DenseAttention())
  dims = stack_lib.stack_dims(spec, spec, run)
  tok_BT = jnp.zeros((1, 1), jnp.int32)
  x_BTD = jnp.zeros((1, 1, spec.d_out), run.precision.dtype('compute'))
  table_VR = jnp.zeros((spec.vocab, spec.embed.dim or spec.d_model), x_BTD.dtype)
  m_BSD = jnp.zeros((1, 1, spec.source.d_model), x_BTD.dtype)
  memory = (m_BSD, TokenInfo(tok_BT, tok_BT + 1)) if spec.encoder is not None else None
  params = {'embed': Embedding(spec, dims).init(named_key(key, 'embed'), tok_BT)['params']}
  params |= stack_lib.init_stack(key, spec, dims, memory)
  if spec.head is not None:
    head = Unembedding(spec, dims).init(named_key(key, 'head'), x_BTD, table_VR)
    params |= {'head': head['params']} if 'params' in head else {}
  if spec.classifier is not None:
    classify = Classify(spec.classifier, dims.replace(d_model=spec.d_out))
    params['classifier'] = classify.init(named_key(key, 'classifier'), x_BTD, tok_BT + 1)['params']
  if spec.encoder is not None:
    encoder_dims = stack_lib.stack_dims(spec.source, spec.encoder, run)
    params['encoder'] = stack_lib.init_stack(named_key(key, 'encoder'), spec.encoder, encoder_dims, None)
    if own := _own_embedding(spec, spec.encoder, named_key(key, 'source'), encoder_dims, tok_BT):
      params['encoder']['embed'] = own
  if spec.mtp is not None:
    params['mtp'] = mtp_lib.init(spec, named_key(key, 'mtp'), dims, memory)
  return params


def apply(
  spec: Model,
  params: Params,
  *,
  run: Run = RUN,
  key: jax.Array | None = None,
  cache: Params | None = None,
  logits_to_keep: int | None = None,
  mtp: bool = False,
  output_hidden_states: bool = False,
  output_attentions: bool = False,
  **inputs: jax.Array | None,
) -> dict[str, Any]:
  """What the model says of its inputs. Pure, and jit-able with `spec`, `run` and `logits_to_keep` static.

  Inputs (int32 `[B, T]`, names as Hugging Face's): `input_ids`; `attention_mask` (1 = token, 0 = padding) or
  `segment_ids` (0 = padding, 1.. = documents packed in a row, each out of the others' sight); `position_ids` (default:
  each token's place in its document); `token_type_ids`; `prefix_mask` for a prefix mask that reads it; `order_ids`, an
  order of prediction in which each token sees those up to its own place, and beside it `target_positions` `[B, P]`,
  places of the row (-1: none) of which is asked what stands there, told those before it in the order (see
  `tfm.model.targets`). An encoder-decoder reads these in its encoder, and `decoder_input_ids`,
  `decoder_attention_mask`, `decoder_segment_ids`, `decoder_position_ids` in its decoder; with `encoder_outputs` (or a
  cache that has read them) the encoder is not run. It has no order.

  `key` turns dropout on. `cache` (`tfm.model.cache.init_cache`) holds earlier tokens of the same rows, and comes back
  with these ones added. `logits_to_keep` asks for the logits of the last so many tokens only (0: none). `mtp` asks a
  model that has some for those of later tokens too, without a cache.

  Returns `logits` `[B, T, V]` in the compute dtype, `last_hidden_state` `[B, T, D]`, `aux` (a scalar to add to the
  loss); with an encoder `encoder_last_hidden_state`; with a cache `cache`; `load`, where parts have seen some, from
  which `tfm.model.balance` makes parameters that no gradient moves.
  With `target_positions` these are of the targets, `[B, P, ...]`; what layers say has them after the row's tokens.
  Without a head there are no `logits`, unless a classifier's: `[B, labels]`, or `[B, T, labels]` for each token. Beside
  a head those are `class_logits`. `pooler_output` is what came before the labels.
  A model with `mtp` returns `mtp_state`, which `tfm.model.mtp.draft` reads, and where asked `mtp_logits`, one
  `[B, T, V]` a depth, of x_{t+2} and on.
  `output_hidden_states` asks for `hidden_states`, what enters each layer and what leaves the last; `output_attentions`
  for `attentions`, the weights `[B, N, T, S]` of each layer that has some. With an encoder they are named
  `encoder_...`, `decoder_...` and `cross_attentions`. For looking at, not for training.

  Raises: UserError for an unknown or missing input, or rows longer than a learned table.
  """
  source, target = inputs_lib.split(spec, inputs, cache)
  out: dict[str, Any] = {}
  memory, aux, load = None, jnp.zeros((), jnp.float32), {}
  keys = (None, None) if key is None else (jax.random.fold_in(key, 0), jax.random.fold_in(key, 1))
  asked = (HIDDEN,) * output_hidden_states + (ATTENTIONS, CROSS) * output_attentions
  if spec.encoder is not None and source is not None:
    m_BSD, m_info, aux, load, told = _encode(spec, spec.encoder, params, source, run, keys[0], asked)
    memory, out['encoder_last_hidden_state'] = (m_BSD, m_info), m_BSD
    out |= _told(told, m_BSD, 'encoder_')

  dims = stack_lib.stack_dims(spec, spec, run)
  embed = functools.partial(_embedding, spec, dims, params)
  slot = None if cache is None else cache['slot']
  info = inputs_lib.info(target, cache, 'type' in reads(spec))
  x_BTD = embed('lookup', target.input_ids, target.token_type_ids)
  T, asked_BP, ordered = x_BTD.shape[1], target.target_positions, target.position_ids is None
  if asked_BP is not None:
    type_BT = jnp.zeros_like(info.positions) if target.token_type_ids is None else target.token_type_ids
    type_BP = jnp.take_along_axis(type_BT, jnp.maximum(asked_BP, 0), 1)
    x_BTD, info = targets.joined((x_BTD, info), (embed('asked', type_BP), targets.asking(info, asked_BP)))
    ordered = False
  x_BTD = stack_lib.add_positions(spec, dims, params, x_BTD, info)
  x_BTD = embed('finish', x_BTD, key is not None, key=keys[1])
  ctx = Ctx(info, memory, slot, train=key is not None, ordered=ordered)
  caches = None if cache is None else cache['layers']
  passed = stack_lib.apply_stack(spec, dims, params, x_BTD, ctx, caches, keys[1], asked)
  x_BTD, aux = embed('leave', passed.x_BTD) if spec.embed.back else passed.x_BTD, aux + passed.aux
  out |= _told(passed.told, x_BTD, '' if spec.encoder is None else 'decoder_')
  x_BTD = x_BTD if asked_BP is None else x_BTD[:, T:]
  load = passed.load | ({'encoder': load} if load else {})
  if cache is not None:
    out['cache'] = inputs_lib.advance(cache, info, passed.caches)
  if spec.mtp is not None:
    out['mtp_state'] = x_BTD if spec.mtp.chained else passed.trunk_BTD
    if mtp and cache is None and target.input_ids is not None:
      ahead = mtp_lib.look_ahead(spec, dims, params, out['mtp_state'], target.input_ids, ctx, keys[1])
      out['mtp_logits'] = tuple(mtp_lib.unembed(spec, dims, params, h_BTD) for h_BTD in ahead.hidden)
      aux, load = aux + ahead.aux, load | ahead.load
  out |= {'last_hidden_state': x_BTD, 'aux': aux} | ({'load': load} if load else {})
  if spec.classifier is not None:
    rngs = {} if keys[1] is None else {'dropout': named_key(keys[1], 'classifier')}
    classify = Classify(spec.classifier, dims.replace(d_model=spec.d_out))
    found = classify.apply({'params': params['classifier']}, x_BTD, info.segment_ids, key is not None, rngs=rngs)
    out |= named(found, spec.head is None)
  if spec.head is not None and logits_to_keep != 0:
    kept_BTD = x_BTD if logits_to_keep is None else x_BTD[:, -logits_to_keep:]
    out['logits'] = mtp_lib.unembed(spec, dims, params, kept_BTD)
  return out


def _own_embedding(spec: Model, encoder: Encoder, key: jax.Array, dims: Dims, tok_BT: jax.Array) -> Params:
  """What an encoder does not share of the decoder's embedding."""
  if encoder.vocab is None and encoder.embed is None:
    return {}
  params = Embedding(spec.source, dims).init(key, tok_BT)['params']
  return {name: p for name, p in params.items() if name != 'table' or encoder.vocab is not None}


def _embedding(spec, dims, params, method, *args, key=None):
  rngs = {} if key is None else {'dropout': named_key(key, 'embed')}
  return Embedding(spec, dims).apply({'params': params['embed']}, *args, method=method, rngs=rngs)


def _source_embedding(encoder: Encoder, params: Params) -> Params:
  """The parameters that embed an encoder's source."""
  if encoder.vocab is None and encoder.embed is None:
    return params['embed']
  return {'table': params['embed']['table'], **params['encoder'].get('embed', {})}


def _told(told: dict[str, tuple[jax.Array, ...]], x_BTD: jax.Array, prefix: str) -> dict[str, tuple[jax.Array, ...]]:
  """What the layers of a stack have said, by its name; the hidden states end with what leaves the stack."""
  whole = {what: (*said, x_BTD) if what == HIDDEN else said for what, said in told.items()}
  return {what if what == CROSS else prefix + what: said for what, said in whole.items() if said}


def _encode(spec: Model, encoder: Encoder, params: Params, source, run: Run, key, asked=()):
  """(memory, its infos, aux, load, what was asked for) of an encoder-decoder's source."""
  dims = stack_lib.stack_dims(spec.source, encoder, run)
  info = inputs_lib.info(source, None, 'type' in reads(encoder))
  if source.outputs is not None:
    return source.outputs.astype(run.precision.dtype('compute')), info, jnp.zeros((), jnp.float32), {}, {}
  own = params['encoder']
  embed = functools.partial(_embedding, spec.source, dims, {'embed': _source_embedding(encoder, params)})
  x_BTD = embed('lookup', source.input_ids, source.token_type_ids)
  x_BTD = stack_lib.add_positions(encoder, dims, own, x_BTD, info)
  x_BTD = embed('finish', x_BTD, key is not None, key=key)
  ctx = Ctx(info, train=key is not None, ordered=source.position_ids is None)
  passed = stack_lib.apply_stack(encoder, dims, own, x_BTD, ctx, None, key, asked)
  return passed.x_BTD, info, passed.aux, passed.load, passed.told
