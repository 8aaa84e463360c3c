"""The two compiled functions of decoding: `prefill` reads the prompts, `go_on` appends tokens until told to stop."""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.chunks import read
from tfm.generate.drafts import Draft
from tfm.generate.penalties import NOTHING
from tfm.generate.prompt_cache import Start
from tfm.generate.rules import Rules, choose
from tfm.model.cache import init_cache
from tfm.model.spec import Model
from tfm.model.transformer import apply
from tfm.parts.context import Run


@struct.dataclass
class State:
  """Where decoding stands: new tokens `[B, room]` (`NOTHING` after a row's end), how many each row has, who is done.

  `last_B` is each row's last token, in no cache yet; `passes` counts those of the model after the prompts'. `memory`
  is a draft's.
  """

  tokens_BT: jax.Array
  n_B: jax.Array
  last_B: jax.Array
  done_B: jax.Array
  passes: jax.Array
  cache: Any
  memory: Any = ()


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'room', 'chunk'))
def prefill(
  spec: Model, params: Any, begin: Start, rules: Rules, draft: Draft, whole: dict[str, Any], *,
  run: Run, slots: int, room: int, chunk: int | None = None,
) -> State:  # fmt: skip
  """The state after one pass over the prompts (or `chunk` tokens at a time), with the first new token of each row.

  `whole` are the inputs with what stands before those of `begin`, for a draft that reads them by itself.
  """
  inputs, cache, B = begin.inputs, begin.cache, len(rules.keys_B)
  if cache is None:
    source = inputs['input_ids'].shape[1]
    cache = init_cache(spec, B, slots, run.precision.dtype('compute'), source, run.cache)
  out = read(spec, params, cache, inputs, run=run, chunk=chunk)
  zeros_B = jnp.zeros(B, jnp.int32)
  empty = State(
    tokens_BT=jnp.full((B, room), NOTHING, jnp.int32),
    n_B=zeros_B,
    last_B=zeros_B,
    done_B=jnp.zeros(B, bool),
    passes=jnp.int32(0),
    cache=out['cache'],
    memory=draft.begin(spec, params, run, slots, whole if begin.draft is None else inputs, out, begin.draft),
  )
  return _choose(empty, out['logits'][:, -1], rules)


@functools.partial(jax.jit, static_argnames=('spec', 'run'), donate_argnames='state')
def go_on(spec: Model, params: Any, state: State, rules: Rules, until: jax.Array, *, run: Run) -> State:
  """The state once every row has `until` tokens or has ended."""
  name = 'input_ids' if spec.encoder is None else 'decoder_input_ids'

  def one(state):
    tokens = {name: state.last_B[:, None]}
    out = apply(spec, params, run=run, cache=state.cache, logits_to_keep=1, **tokens)
    state = dataclasses.replace(state, cache=out['cache'], passes=state.passes + 1)
    return _choose(state, out['logits'][:, -1], rules)

  return jax.lax.while_loop(lambda s: jnp.any(~s.done_B & (s.n_B < until)), one, state)


def _choose(state: State, logits_BV: jax.Array, rules: Rules) -> State:
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
