"""The model as pure functions: `init(spec, key)` and `apply(spec, params, **inputs)`. Next:
`train/loop.py`.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from tfm.core import axes, errors
from tfm.model import inputs as inputs_lib
from tfm.model import mtp as mtp_lib
from tfm.model import outputs as outputs_lib
from tfm.model import stack as stack_lib
from tfm.model.spec import MAIN, Model, Tower, last_width, reads, resampled
from tfm.model.stack import Params, named_key
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.capture import ATTENTIONS, CROSS, HIDDEN
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.base import Embedded, Outputs, whole
from tfm.parts.embed.targets import EXTRAS as ORDER
from tfm.parts.head.base import HeadContext
from tfm.parts.head.pick import of_stream
from tfm.parts.tokeninfo import TokenInfo, with_grid

RUN = Run()
#: Heads whose parameters have names of their own; those of others are under `NAME_head`.
_HEAD_PARAMS = {'lm': 'head', 'classify': 'classifier'}


def init(spec: Model, key: jax.Array, run: Run = RUN) -> Params:
  """Return fresh parameters: nested dicts of arrays, the repeats of a segment stacked on a leading
  axis.
  """
  return nn.unbox(_boxed(spec, key, run))


def param_shapes(spec: Model, run: Run = RUN) -> Params:
  """Return the parameters as `jax.ShapeDtypeStruct`s; no array is made."""
  return nn.unbox(_boxed_shapes(spec, run))


def param_letters(spec: Model) -> Params:
  """Return the letters of each parameter's axes ('LDNH'), a tree like the parameters'."""
  return axes.letters_of(_boxed_shapes(spec, RUN))


def head_params(name: str) -> str:
  """Return the name under which a tower's parameters have those of the head `name`."""
  return _HEAD_PARAMS.get(name, f'{name}_head')


@functools.lru_cache(
  maxsize=512
)  # more than the zoo has: a tree of shapes is small, tracing it is not
def _boxed_shapes(spec: Model, run: Run) -> Params:
  return jax.eval_shape(functools.partial(_boxed, spec, run=run), jax.random.key(0))


def _boxed(spec: Model, key: jax.Array, run: Run) -> Params:
  # A kernel that traces a bias by itself must not be where the bias's parameters are created.
  run = dataclasses.replace(run, attend=DenseAttention())
  outputs: dict[str, Any] = {}
  params: Params = {}
  for name in inputs_lib.order(spec):
    tower, own_key = spec.tower(name), named_key(key, name) if name else key
    own = _boxed_tower(spec, tower, own_key, run, outputs)
    embed_key = named_key(key, 'source') if name == 'encoder' else named_key(own_key, 'embed')
    if embed := _boxed_embed(spec, name, embed_key, run, outputs):
      own['embed'] = embed
    width = _d_out(tower)
    outputs[name] = jnp.zeros((1, 1, width), run.precision.dtype('compute')), whole(1, 1)
    if name:
      params[name] = own
    else:
      params |= own
  if spec.mtp is not None:
    params['mtp'] = mtp_lib.init(
      spec, named_key(key, 'mtp'), stack_lib.tower_dims(spec, spec, run), outputs
    )
  return params


def _boxed_tower(spec: Model, tower: Tower, key: jax.Array, run: Run, outputs: Outputs) -> Params:
  dims = stack_lib.tower_dims(spec, tower, run)
  params = stack_lib.init_stack(key, tower, dims, outputs)
  x_BTD = jnp.zeros((1, 1, _d_out(tower)), run.precision.dtype('compute'))
  table_VR = jnp.zeros((dims.vocab, dims.d_table or dims.d_model), x_BTD.dtype)
  for name, head in tower.heads.items():
    context = HeadContext(
      with_grid(whole(1, 1), (1, 1)), _zeros(tower, 1), head.examples(x_BTD.dtype), table_VR, (1, 1)
    )
    module = head.make(dims.replace(d_model=_d_out(tower)))
    started = module.init(named_key(key, head_params(name)), x_BTD, context)
    params |= {head_params(name): started['params']} if 'params' in started else {}
  return params


def _boxed_embed(spec: Model, name: str, key: jax.Array, run: Run, outputs: Outputs) -> Params:
  """Return the parameters of a tower's input layer that it does not share with the model's."""
  own, tower = (spec if not name else spec.towers[name]).embed, spec.tower(name)
  if own is None:
    return {}
  assert tower.embed is not None
  module = tower.embed.make(stack_lib.tower_dims(spec, tower, run))
  params = module.init(key, _zeros(tower, 1), outputs).get('params', {})
  return {part: p for part, p in params.items() if part != 'table'} if own.shares else params


def _zeros(tower: Tower, length: int) -> dict[str, jax.Array]:
  assert tower.embed is not None
  return {name: jnp.zeros(s.shape, s.dtype) for name, s in tower.embed.shapes(1, length).items()}


def _d_out(tower: Tower) -> int:
  assert tower.embed is not None
  return tower.embed.d_out or last_width(tower)


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
  tower: str | None = None,
  **inputs: jax.Array | None,
) -> dict[str, Any]:
  """Return the outputs of the model by name. Pure, and jit-able with all but params, key, cache and
  inputs static.

  Args:
    spec: the model.
    params: its parameters.
    run: kernels, precision and loops, which do not change the numbers beyond rounding.
    key: turns dropout on.
    cache: earlier tokens of the same rows (`tfm.model.cache.init_cache`); it is returned with these
    added.
    logits_to_keep: compute logits of the last n tokens only (0: none).
    mtp: compute logits of later tokens too, for a model with `mtp` and without a cache.
    output_hidden_states: return `hidden_states`, the input of each layer and the output of the
    last.
    output_attentions: return `attentions`, the weights `[B, N, T, S]` of each attention layer.
    tower: run only this tower ('' is the model's own) and those that it reads. Heads that read
      outputs of others are left out.
    **inputs: what the input layers of the towers read, under Hugging Face's names: of text
      `input_ids`, `attention_mask`, `segment_ids`, `position_ids`, `token_type_ids`, `prefix_mask`
      (see `tfm.parts.embed.tokens`), of images `pixel_values` and so on. The decoder of an
      encoder-decoder takes `decoder_input_ids` ...; instead of its inputs a tower can be given its
      outputs, as `encoder_outputs`.

  Returns:
    `last_hidden_state` `[B, T, D]`; the outputs of the heads, such as `logits` `[B, T, V]`; `aux`,
    a scalar to add to the loss; `cache`, if one was given; `load`, expert loads from which
    `tfm.model.balance` updates parameters that no gradient moves; with mtp `mtp_state` and
    `mtp_logits`, one `[B, T, V]` per depth. Outputs of a tower other than the model's own begin
    with its name (`encoder_last_hidden_state`), unless its head has a `name`. Captured activations
    of an encoder-decoder's own tower begin with `decoder_`.

  Raises:
    UserError: for an unknown, missing or badly shaped input.
  """
  capture = (HIDDEN,) * output_hidden_states + (ATTENTIONS, CROSS) * output_attentions
  outputs: dict[str, Any] = {}
  out: dict[str, Any] = {}
  aux, load = jnp.zeros((), jnp.float32), dict[str, Any]()
  given = inputs_lib.split(spec, inputs, cache, tower)
  for name, own in given.items():
    own_params = params[name] if name else params
    own_key = _tower_key(key, name)
    state = _Run(
      spec, name, spec.tower(name), own_params, params, run, own_key, capture, tower is None
    )
    if own.outputs is not None:
      outputs[name] = x_BTD, info = state.computed(own)
      out[f'{name}_last_hidden_state'] = x_BTD
      out = state.heads(out, x_BTD, info, None, own, logits_to_keep)
      continue
    started, passed, x_BTD = state.layers(own, outputs, None if name else cache)
    aux += passed.aux
    load |= ({name: passed.load} if name else passed.load) if passed.load else {}
    out |= state.captured(passed, x_BTD)
    if not name and cache is not None:
      out['cache'] = inputs_lib.advance(cache, started.info, passed.caches)
    x_BTD, info = state.returned(x_BTD, passed.info, started)
    if not name and spec.mtp is not None:
      found, more, later = state.mtp(x_BTD, passed, own, outputs, started, mtp and cache is None)
      out, aux, load = out | found, aux + more, load | later
    outputs[name] = x_BTD, info
    out[f'{name}_last_hidden_state' if name else 'last_hidden_state'] = x_BTD
    own_info, grid = (
      (passed.info, passed.grid) if resampled(state.tower) else (started.info, started.grid)
    )
    _, info = state.returned(x_BTD, own_info, started)
    out = state.heads(out, x_BTD, info, grid, own, logits_to_keep)
  return out | {'aux': aux} | ({'load': load} if load else {})


def source_length(spec: Model, params: Params, inputs: Mapping[str, jax.Array]) -> int:
  """Return the length of the encoder's output for these inputs of `apply`, 0 for a model without an
  encoder.
  """
  if spec.encoder is None:
    return 0
  if spec.tower('encoder').vocab and all(s.resample is None for s in spec.encoder.segments):
    return inputs['input_ids'].shape[1]
  run = lambda params, inputs: apply(spec, params, tower='encoder', **inputs)[
    'encoder_last_hidden_state'
  ]
  others = inputs_lib.names(spec)[MAIN].values()
  return jax.eval_shape(
    run, params, {name: x for name, x in inputs.items() if name not in others}
  ).shape[1]


def _tower_key(key: jax.Array | None, name: str) -> jax.Array | None:
  if key is None:
    return None
  fixed = {'encoder': 0, MAIN: 1}
  return jax.random.fold_in(key, fixed[name]) if name in fixed else named_key(key, name)


class _Run(NamedTuple):
  """One tower in one call of `apply`: its spec and parameters, and the steps of the call."""

  model: Model
  name: str
  tower: Tower
  params: Params
  all_params: Params
  run: Run
  key: jax.Array | None
  capture: tuple[str, ...]
  all_towers: bool

  @property
  def dims(self) -> Dims:
    return stack_lib.tower_dims(self.model, self.tower, self.run)

  def embed(self, method: str, *args: Any, dropout: bool = False) -> Any:
    """Call a method of the input layer."""
    own = (self.model.towers[self.name] if self.name else self.model).embed
    params = self.params.get('embed', {}) if own is not None else self.all_params['embed']
    if own is not None and own.shares:
      params = {'table': self.all_params['embed']['table'], **params}
    assert self.tower.embed is not None
    rngs = {'dropout': named_key(self.key, 'embed')} if dropout and self.key is not None else {}
    return self.tower.embed.make(self.dims).apply(
      {'params': params}, *args, method=method, rngs=rngs
    )

  def computed(self, own: inputs_lib.Given) -> tuple[jax.Array, Any]:
    """Return outputs that were computed before, and their token info."""
    assert own.outputs is not None
    assert self.tower.embed is not None
    x_BTD = own.outputs.astype(self.run.precision.dtype('compute'))
    return x_BTD, self.tower.embed.info(own.arrays, (x_BTD.shape[0], x_BTD.shape[1]))

  def layers(
    self, own: inputs_lib.Given, outputs: Outputs, cache: Params | None
  ) -> tuple[Embedded, stack_lib.Passed, jax.Array]:
    """Return the embedded inputs, the result of the layers, and the last hidden state."""
    next_B, slot = (None, None) if cache is None else (cache['next'], cache['slot'])
    start: Embedded = self.embed('start', own.arrays, outputs, next_B, dropout=True)
    dims, train = self.dims, self.key is not None
    x_BTD = stack_lib.add_positions(self.tower, dims, self.params, start.x_BTD, start.info)
    x_BTD = self.embed('finish', x_BTD, train, dropout=True)
    info = start.info.only(reads(self.tower) | {*ORDER})
    ctx = Ctx(
      info,
      outputs,
      slot,
      train=train,
      ordered=start.ordered,
      cond_BD=start.cond_BD,
      grid=start.grid,
    )
    caches = None if cache is None else cache['layers']
    passed = stack_lib.apply_stack(
      self.tower, dims, self.params, x_BTD, ctx, caches, self.key, self.capture
    )
    return start, passed, self.embed('leave', passed.x_BTD)

  def returned(
    self, x_BTD: jax.Array, info: TokenInfo, started: Embedded
  ) -> tuple[jax.Array, TokenInfo]:
    """Return the vectors that leave the tower, and the info without that of prepended vectors."""
    assert self.tower.embed is not None
    if first := self.tower.embed.prepended:
      x_BTD, info = x_BTD[:, first:], jax.tree.map(lambda a: a[:, first:], info)
    return (x_BTD if started.outputs is None else x_BTD[:, -started.outputs :]), info

  def captured(
    self, passed: stack_lib.Passed, x_BTD: jax.Array
  ) -> dict[str, tuple[jax.Array, ...]]:
    """Return the captured activations by name; the hidden states end with the output of the last
    layer.
    """
    prefix = f'{self.name}_' if self.name else 'decoder_' if self.model.encoder is not None else ''
    assert self.tower.embed is not None
    last = x_BTD if self.tower.embed.ends_with_norm else passed.last_BTD
    whole = {
      what: (*found, last) if what == HIDDEN else found for what, found in passed.captured.items()
    }
    if (first := self.tower.embed.prepended) and HIDDEN in whole:
      whole[HIDDEN] = tuple(h_BTD[:, first:] for h_BTD in whole[HIDDEN])
    return {
      what if what == CROSS else prefix + what: found for what, found in whole.items() if found
    }

  def mtp(
    self, x_BTD: jax.Array, passed: stack_lib.Passed, own: inputs_lib.Given, outputs: Outputs,
    start: Embedded,
    ahead: bool,
  ) -> tuple[dict[str, Any], jax.Array, Params]:  # fmt: skip
    """Return what the layers of later tokens read, their logits if `ahead`, an auxiliary loss and
    expert loads.
    """
    assert self.model.mtp is not None
    out: dict[str, Any] = {'mtp_state': x_BTD if self.model.mtp.chained else passed.trunk_BTD}
    if not ahead:
      return out, jnp.zeros((), jnp.float32), {}
    info = start.info.only(reads(self.tower) | {*ORDER})
    ctx = Ctx(info, outputs, train=self.key is not None, ordered=start.ordered)
    ids_BT = own.arrays['input_ids']
    found = mtp_lib.look_ahead(
      self.model, self.dims, self.params, out['mtp_state'], ids_BT, ctx, self.key
    )
    unembed = functools.partial(mtp_lib.unembed, self.model, self.dims, self.params)
    return (
      out | {'mtp_logits': tuple(unembed(h_BTD) for h_BTD in found.hidden)},
      found.aux,
      found.load,
    )

  def heads(
    self, out: dict[str, Any], x_BTD: jax.Array, info: TokenInfo, grid: tuple[int, int] | None,
    own: inputs_lib.Given, logits_to_keep: int | None,
  ) -> dict[str, Any]:  # fmt: skip
    """Return `out` with the outputs of the heads added."""
    assert self.tower.embed is not None
    streams = self.tower.embed.streams
    for name in outputs_lib.head_order(self.model, self.name):
      head = self.tower.heads[name]
      if (head.decodes and logits_to_keep == 0) or not self._computable(name, out):
        continue
      kept_BTD, own_info = x_BTD, info
      if head.stream is not None:
        kept_BTD, own_info = of_stream(x_BTD, info, streams.index(head.stream), len(streams))
      kept_BTD = kept_BTD[:, -logits_to_keep:] if head.decodes and logits_to_keep else kept_BTD
      found = self._head(name, kept_BTD, own_info, grid, own, out)
      if twice := sorted(set(found) & set(out)):
        raise errors.UserError(
          f'apply: head {name!r} returns {twice[0]!r}, as another does. Expected another name.'
        )
      out = out | found
    return out

  def _computable(self, name: str, out: dict[str, Any]) -> bool:
    """Return whether the outputs that a head reads are there; without them all towers are expected
    to have run.
    """
    missing = [read for read in self.tower.heads[name].reads if read not in out]
    if missing and self.all_towers:
      raise errors.UserError(
        f'apply: head {name!r} reads {missing[0]!r}, which was not computed. Expected the inputs '
        f'of all towers, or '
        f'tower={self.name!r} for the outputs of one.'
      )
    return not missing

  def _head(
    self, name: str, x_BTD: jax.Array, info: TokenInfo, grid: tuple[int, int] | None,
    own: inputs_lib.Given,
    out: dict[str, Any],
  ) -> dict[str, Any]:  # fmt: skip
    """Return the outputs of one head, by the names that `apply` returns."""
    head, dims = self.tower.heads[name], self.dims.replace(d_model=x_BTD.shape[-1])
    table = self.embed('words') if head.tied else None
    alone = outputs_lib.alone(self.tower)
    context = HeadContext(info, own.arrays, out, table, grid, alone, self.key is not None)
    rngs = {} if self.key is None else {'dropout': named_key(self.key, head_params(name))}
    params = {'params': self.params.get(head_params(name), {})}
    found = head.make(dims).apply(params, x_BTD, context, rngs=rngs)
    return {outputs_lib.name_of(self.name, head, output): value for output, value in found.items()}
