"""The model as pure functions: `init(spec, key)` and `apply(spec, params, **inputs)`.

Read next: `train/loop.py`.
"""

from collections.abc import Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tfm.core import errors
from tfm.model import check_call
from tfm.model import inputs as inputs_lib
from tfm.model import mtp as mtp_lib
from tfm.model import outputs as outputs_lib
from tfm.model import stack as stack_lib
from tfm.model.initial import RUN as RUN
from tfm.model.initial import head_params as head_params
from tfm.model.initial import init as init
from tfm.model.initial import param_letters as param_letters
from tfm.model.initial import param_shapes as param_shapes
from tfm.model.spec import MAIN, Model, Tower, resampled, token_extras
from tfm.model.stack import Params, named_key
from tfm.parts.capture import ATTENTIONS, CROSS, HIDDEN
from tfm.parts.context import Ctx, Dims, Run
from tfm.parts.embed.base import Embedded, Outputs
from tfm.parts.embed.targets import EXTRAS as ORDER
from tfm.parts.head.base import HeadContext
from tfm.parts.head.pick import select_stream
from tfm.parts.tokeninfo import TokenInfo


def apply(
  spec: Model,
  params: Params,
  *,
  run: Run = RUN,
  key: jax.Array | None = None,
  cache: Params | None = None,
  logits_to_keep: int | None = None,
  mtp: bool = False,
  factored_logits: bool = False,
  output_hidden_states: bool = False,
  output_attentions: bool = False,
  tower: str | None = None,
  **inputs: jax.Array | None,
) -> dict[str, Any]:
  """Return the outputs of the model by name.

  The function is pure. To jit it, make all arguments but params, key, cache and inputs static.

  Args:
    spec: The model.
    params: Its parameters.
    run: Kernels, precision and loops, which change results by rounding only.
    key: Turns dropout on. None: evaluation.
    cache: The cache of earlier tokens (`tfm.model.cache.init_cache`), to which these are added.
    logits_to_keep: Compute the logits of the last n tokens only (0: none). None: all.
    mtp: Also compute the logits of multi-token prediction, for a model with `mtp` and no cache.
    factored_logits: Return `tfm.parts.head.factors.LogitFactors` in place of the logits of
      language-model heads that can. A loss computes them in chunks of the vocabulary.
    output_hidden_states: Return `hidden_states`, the input of each layer and the last output.
    output_attentions: Return `attentions`, the weights `[B, N, T, S]` of each attention layer.
    tower: Run only this tower ('': the model's own) and its prerequisites. Heads that read other
      towers are skipped.
    **inputs: The inputs of all towers, under Hugging Face's names. For text: `input_ids`,
      `attention_mask`, `segment_ids`, `position_ids`, `token_type_ids`, `prefix_mask` (see
      `tfm.parts.embed.tokens`), all `[B, T]`. For images: `pixel_values` and so on. The decoder of
      an encoder-decoder takes `decoder_input_ids` and so on. A tower's outputs can replace its
      inputs, as `encoder_outputs`.

  Returns:
    A dict with `last_hidden_state` `[B, T, D]`; the outputs of the heads, such as `logits`
    `[B, T, V]`; `aux`, a scalar to add to the loss; `cache`, if one was given; `load`, the expert
    loads for `tfm.model.balance`; and with mtp `mtp_state` and `mtp_logits`, `[B, T, V]` per depth.
    Outputs of other towers have the tower's name as a prefix (`encoder_last_hidden_state`), unless
    their head has a `name`. Captured activations of a decoder have the prefix `decoder_`.

  Raises:
    UserError: for an input that is unknown, missing or empty, or of another shape or dtype; for
      token ids outside the vocabulary, where they are in host memory; and for parameters of another
      model, naming the first that differs.
  """
  check_call.check_model('apply', spec, params)
  switches = {
    'mtp': mtp,
    'output_hidden_states': output_hidden_states,
    'output_attentions': output_attentions,
  }
  check_call.check_options(run, key, cache, logits_to_keep, switches)
  capture = (HIDDEN,) * output_hidden_states + (ATTENTIONS, CROSS) * output_attentions
  outputs: dict[str, Any] = {}
  out: dict[str, Any] = {}
  aux, load = jnp.zeros((), jnp.float32), dict[str, Any]()
  for name, given in inputs_lib.split_inputs(spec, inputs, cache, tower).items():
    tower_params = params[name] if name else params
    call = _TowerCall(
      spec, name, spec.tower(name), tower_params, params, run, _tower_key(key, name), capture,
      tower is None, factored_logits,
    )  # fmt: skip
    if given.outputs is not None:
      outputs[name] = x_BTD, info = call.computed(given)
      out[f'{name}_last_hidden_state'] = x_BTD
      out = call.heads(out, x_BTD, info, None, given, logits_to_keep)
      continue
    embedded, stack, x_BTD = call.layers(given, outputs, None if name else cache)
    aux += stack.aux
    if stack.load:
      load |= {name: stack.load} if name else stack.load
    out |= call.captured(stack, x_BTD)
    if not name and cache is not None:
      out['cache'] = inputs_lib.advance_cache(cache, embedded.info, stack.caches)
    x_BTD, info = call.returned(x_BTD, stack.info, embedded)
    if not name and spec.mtp is not None:
      later = call.mtp(x_BTD, stack, given, outputs, embedded, mtp and cache is None)
      out, aux, load = out | later.outputs, aux + later.aux, load | later.load
    outputs[name] = x_BTD, info
    out[f'{name}_last_hidden_state' if name else 'last_hidden_state'] = x_BTD
    shape = stack if resampled(call.tower) else embedded
    _, info = call.returned(x_BTD, shape.info, embedded)
    out = call.heads(out, x_BTD, info, shape.grid, given, logits_to_keep)
  return out | {'aux': aux} | ({'load': load} if load else {})


def source_length(spec: Model, params: Params, inputs: Mapping[str, jax.Array]) -> int:
  """Return the length of the encoder output.

  Args:
    spec: The model.
    params: Its parameters.
    inputs: Inputs of `apply` by name.

  Returns:
    The length, 0 for a model without an encoder.
  """
  if spec.encoder is None:
    return 0
  if spec.tower('encoder').vocab and all(s.resample is None for s in spec.encoder.segments):
    return inputs['input_ids'].shape[1]
  encode = lambda params, inputs: apply(spec, params, tower='encoder', **inputs)
  of_decoder = inputs_lib.input_names(spec)[MAIN].values()
  of_encoder = {name: x for name, x in inputs.items() if name not in of_decoder}
  out = jax.eval_shape(encode, params, of_encoder)
  length: int = out['encoder_last_hidden_state'].shape[1]
  return length


def _tower_key(key: jax.Array | None, name: str) -> jax.Array | None:
  if key is None:
    return None
  fixed = {'encoder': 0, MAIN: 1}
  return jax.random.fold_in(key, fixed[name]) if name in fixed else named_key(key, name)


class _MTPResult(NamedTuple):
  """Outputs of multi-token prediction by name, an auxiliary loss, and expert loads."""

  outputs: dict[str, Any]
  aux: jax.Array
  load: Params


class _TowerCall(NamedTuple):
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
  factored: bool

  @property
  def dims(self) -> Dims:
    return stack_lib.tower_dims(self.model, self.tower, self.run)

  def embed(self, method: str, *args: Any, dropout: bool = False) -> Any:
    """Call a method of the input layer."""
    embed = (self.model.towers[self.name] if self.name else self.model).embed
    params = self.params.get('embed', {}) if embed is not None else self.all_params['embed']
    if embed is not None and embed.shares:
      params = {'table': self.all_params['embed']['table'], **params}
    assert self.tower.embed is not None
    rngs = {'dropout': named_key(self.key, 'embed')} if dropout and self.key is not None else {}
    module = self.tower.embed.make(self.dims)
    return module.apply({'params': params}, *args, method=method, rngs=rngs)

  def computed(self, given: inputs_lib.TowerInputs) -> tuple[jax.Array, TokenInfo]:
    """Return outputs that were computed before, and their token info."""
    assert given.outputs is not None
    assert self.tower.embed is not None
    x_BTD = given.outputs.astype(self.run.precision.dtype('compute'))
    return x_BTD, self.tower.embed.info(given.arrays, (x_BTD.shape[0], x_BTD.shape[1]))

  def layers(
    self, given: inputs_lib.TowerInputs, outputs: Outputs, cache: Params | None
  ) -> tuple[Embedded, stack_lib.StackOutput, jax.Array]:
    """Return the embedded inputs, the result of the layers, and the last hidden state."""
    next_B, slot = (None, None) if cache is None else (cache['next'], cache['slot'])
    embedded: Embedded = self.embed('start', given.arrays, outputs, next_B, dropout=True)
    dims, train = self.dims, self.key is not None
    x_BTD = stack_lib.add_positions(self.tower, dims, self.params, embedded.x_BTD, embedded.info)
    x_BTD = self.embed('finish', x_BTD, train, dropout=True)
    info = embedded.info.only(token_extras(self.tower) | {*ORDER})
    ctx = Ctx(
      info,
      outputs,
      slot,
      train=train,
      ordered=embedded.ordered,
      cond_BD=embedded.cond_BD,
      grid=embedded.grid,
      layered_BTLR=embedded.layered_BTLR,
    )
    caches = None if cache is None else cache['layers']
    stack = stack_lib.apply_stack(
      self.tower, dims, self.params, x_BTD, ctx, caches, self.key, self.capture
    )
    return embedded, stack, self.embed('project_out', stack.x_BTD)

  def returned(
    self, x_BTD: jax.Array, info: TokenInfo, started: Embedded
  ) -> tuple[jax.Array, TokenInfo]:
    """Return the vectors that leave the tower, and the info without that of prepended vectors."""
    assert self.tower.embed is not None
    if first := self.tower.embed.prepended:
      x_BTD, info = x_BTD[:, first:], jax.tree.map(lambda a: a[:, first:], info)
    return (x_BTD if started.outputs is None else x_BTD[:, -started.outputs :]), info

  def captured(
    self, stack: stack_lib.StackOutput, x_BTD: jax.Array
  ) -> dict[str, tuple[jax.Array, ...]]:
    """Return the captured activations by name; hidden states end with the last layer's output."""
    prefix = f'{self.name}_' if self.name else ''
    if not self.name and self.model.encoder is not None:
      prefix = 'decoder_'
    assert self.tower.embed is not None
    last = x_BTD if self.tower.embed.ends_with_norm else stack.last_BTD
    captured: dict[str, tuple[jax.Array, ...]] = {}
    for name, layers in stack.captured.items():
      activations = (*layers, last) if name == HIDDEN else layers
      if name == HIDDEN and (first := self.tower.embed.prepended):
        activations = tuple(h_BTD[:, first:] for h_BTD in activations)
      if activations:
        captured[name if name == CROSS else prefix + name] = activations
    return captured

  def mtp(
    self, x_BTD: jax.Array, stack: stack_lib.StackOutput, given: inputs_lib.TowerInputs,
    outputs: Outputs, embedded: Embedded, with_logits: bool,
  ) -> _MTPResult:  # fmt: skip
    """Return the input of the multi-token prediction layers, and optionally their logits."""
    assert self.model.mtp is not None
    state_BTD = x_BTD if self.model.mtp.chained else stack.trunk_BTD
    if not with_logits:
      return _MTPResult({'mtp_state': state_BTD}, jnp.zeros((), jnp.float32), {})
    info = embedded.info.only(token_extras(self.tower) | {*ORDER})
    ctx = Ctx(info, outputs, train=self.key is not None, ordered=embedded.ordered)
    ids_BT = given.arrays['input_ids']
    depths = mtp_lib.forward_depths(
      self.model, self.dims, self.params, state_BTD, ids_BT, ctx, self.key
    )
    unembed = functools.partial(mtp_lib.unembed, self.model, self.dims, self.params)
    logits = tuple(unembed(h_BTD, self.factored) for h_BTD in depths.hidden)
    out = {'mtp_state': state_BTD, 'mtp_logits': logits}
    return _MTPResult(out, depths.aux, depths.load)

  def heads(
    self, out: dict[str, Any], x_BTD: jax.Array, info: TokenInfo, grid: tuple[int, int] | None,
    given: inputs_lib.TowerInputs, logits_to_keep: int | None,
  ) -> dict[str, Any]:  # fmt: skip
    """Return `out` with the outputs of the heads added."""
    assert self.tower.embed is not None
    streams = self.tower.embed.streams
    for name in outputs_lib.head_order(self.model, self.name):
      head = self.tower.heads[name]
      if (head.decodes and logits_to_keep == 0) or not self._computable(name, out):
        continue
      head_BTD, head_info = x_BTD, info
      if head.stream is not None:
        head_BTD, head_info = select_stream(x_BTD, info, streams.index(head.stream), len(streams))
      if head.decodes and logits_to_keep:
        head_BTD = head_BTD[:, -logits_to_keep:]
      new = self._head(name, head_BTD, head_info, grid, given, out)
      if twice := sorted(set(new) & set(out)):
        raise errors.UserError(
          f'apply: head {name!r} returns {twice[0]!r}, as another head does. Expected another name.'
        )
      out = out | new
    return out

  def _computable(self, name: str, out: dict[str, Any]) -> bool:
    """Return whether the outputs that a head reads exist; raise if all towers have run."""
    missing = [read for read in self.tower.heads[name].reads if read not in out]
    if missing and self.all_towers:
      raise errors.UserError(
        f'apply: head {name!r} reads {missing[0]!r}, which was not computed. '
        f'Expected the inputs of all towers, or tower={self.name!r} for the outputs of one.'
      )
    return not missing

  def _head(
    self, name: str, x_BTD: jax.Array, info: TokenInfo, grid: tuple[int, int] | None,
    given: inputs_lib.TowerInputs, out: dict[str, Any],
  ) -> dict[str, Any]:  # fmt: skip
    """Return the outputs of one head, under the names of `apply`."""
    head, dims = self.tower.heads[name], self.dims.replace(d_model=x_BTD.shape[-1])
    table = self.embed('tied_table') if head.tied else None
    alone = outputs_lib.without_lm(self.tower)
    context = HeadContext(
      info, given.arrays, out, table, grid, alone, self.key is not None, self.factored
    )
    rngs = {} if self.key is None else {'dropout': named_key(self.key, head_params(name))}
    params = {'params': self.params.get(head_params(name), {})}
    values = head.make(dims).apply(params, x_BTD, context, rngs=rngs)
    name_of = functools.partial(outputs_lib.output_name, self.name, head)
    return {name_of(output): value for output, value in values.items()}
