"""The two compiled functions of decoding: `prefill` reads the prompts, `go_on` appends tokens until
told to stop.
"""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.chunks import read
from tfm.generate.drafts import Draft
from tfm.generate.logits_processors import LogitsProcessors, choose
from tfm.generate.penalties import NOTHING
from tfm.generate.prefix_sharing import Fan
from tfm.generate.prompt_cache import Start
from tfm.model.cache import fanned, init_cache, rows
from tfm.model.spec import Model
from tfm.model.transformer import apply, source_length
from tfm.parts.context import Run


@struct.dataclass
class State:
  """Where decoding stands: new tokens `[B, room]` (`NOTHING` after a row's end), how many each row
  has, who is done.

  `last_B` is each row's last token, in no cache yet; `passes` counts those of the model after the
  prompts'. `memory` is a draft's."""

  tokens_BT: jax.Array
  n_B: jax.Array
  last_B: jax.Array
  done_B: jax.Array
  passes: jax.Array
  cache: Any
  memory: Any = ()


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'room', 'chunk'))
def prefill(
  spec: Model, params: Any, begin: Start, rules: LogitsProcessors, draft: Draft,
  whole: dict[str, Any], fan: Fan | None = None, *,
  run: Run, slots: int, room: int, chunk: int | None = None,
) -> State:  # fmt: skip
  """The state after one pass over the prompts (or `chunk` tokens at a time), with the first new
  token of each row.

  `whole` are the inputs with what stands before those of `begin`, for a draft that reads them by
  itself. With `fan` those of `begin` are the prompts that differ, of which the rows are made."""
  inputs, kept, B = begin.inputs, begin.draft, len(rules.keys_B)
  out = first_pass(spec, params, begin, rules, fan, run=run, slots=slots, chunk=chunk)
  if fan is not None:
    out |= {name: out[name][fan.each] for name in ('logits', 'mtp_state') if name in out}
    out['cache'] = fanned(out['cache'], fan.each, fan.origin, fan.table)
    inputs = jax.tree.map(lambda a: jnp.asarray(a)[fan.each], inputs)
    kept = None if kept is None else rows(kept, run.cache.roomy, fan.each)
  zeros_B = jnp.zeros(B, jnp.int32)
  empty = State(
    tokens_BT=jnp.full((B, room), NOTHING, jnp.int32),
    n_B=zeros_B,
    last_B=zeros_B,
    done_B=jnp.zeros(B, bool),
    passes=jnp.int32(0),
    cache=out['cache'],
    memory=draft.begin(spec, params, run, slots, whole if kept is None else inputs, out, kept),
  )
  return _choose(empty, out['logits'][:, -1], rules)


def first_pass(
  spec: Model,
  params: Any,
  begin: Start,
  rules: LogitsProcessors,
  fan: Fan | None,
  *,
  run: Run,
  slots: int,
  chunk: int | None,
) -> dict[str, Any]:
  """What the model says of the prompts that `begin` has, with their last token's logits and a
  cache, a row each.
  """
  inputs, cache = begin.inputs, begin.cache
  if cache is None:
    U = len(next(iter(inputs.values())))
    source = source_length(spec, params, inputs)
    # Rows that are fanned out of these get blocks for their new tokens then.
    slots = slots if fan is None else rules.prompt_BS.shape[1]
    cache = init_cache(spec, U, slots, run.precision.dtype('compute'), source, run.cache.roomy)
  return read(spec, params, cache, inputs, run=run, chunk=chunk)


@functools.partial(jax.jit, static_argnames=('spec', 'run'), donate_argnames='state')
def go_on(
  spec: Model, params: Any, state: State, rules: LogitsProcessors, until: jax.Array, *, run: Run
) -> State:
  """The state once every row has `until` tokens or has ended."""
  name = 'input_ids' if spec.encoder is None else 'decoder_input_ids'

  def one(state):
    tokens = {name: state.last_B[:, None]}
    out = apply(spec, params, run=run, cache=state.cache, logits_to_keep=1, **tokens)
    state = dataclasses.replace(state, cache=out['cache'], passes=state.passes + 1)
    return _choose(state, out['logits'][:, -1], rules)

  return jax.lax.while_loop(lambda s: jnp.any(~s.done_B & (s.n_B < until)), one, state)


def _choose(state: State, logits_BV: jax.Array, rules: LogitsProcessors) -> State:
  """The state with one more token in each row that goes on."""
  tok_B = choose(rules, logits_BV, state.tokens_BT, state.n_B)
  n_B = state.n_B + ~state.done_B
  place_B = jnp.where(state.done_B, state.tokens_BT.shape[1], state.n_B)
  return dataclasses.replace(
    state,
    tokens_BT=state.tokens_BT.at[jnp.arange(len(place_B)), place_B].set(tok_B, mode='drop'),
    n_B=n_B,
    last_B=tok_B,
    done_B=state.done_B | rules.stop_V[tok_B] | (n_B >= rules.maximum),
  )
