"""The two compiled functions of decoding: `prefill` reads the prompts, `go_on` appends tokens until told to stop."""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.penalties import NOTHING
from tfm.generate.rules import Rules, choose
from tfm.model.cache import init_cache
from tfm.model.spec import Model
from tfm.model.transformer import apply
from tfm.parts.context import Run


@struct.dataclass
class State:
  """Where decoding stands: new tokens `[B, room]` (`NOTHING` after a row's end), how many steps, who is done."""

  tokens_BT: jax.Array
  last_B: jax.Array
  done_B: jax.Array
  step: jax.Array
  cache: Any


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'room'))
def prefill(
  spec: Model, params: Any, inputs: dict[str, jax.Array], rules: Rules, *, run: Run, slots: int, room: int
) -> State:
  """The state after one pass over the prompts, with the first new token of each row."""
  B, source = inputs['input_ids'].shape
  cache = init_cache(spec, B, slots, run.precision.dtype('compute'), source)
  out = apply(spec, params, run=run, cache=cache, logits_to_keep=1, **inputs)
  empty = State(
    tokens_BT=jnp.full((B, room), NOTHING, jnp.int32),
    last_B=jnp.zeros(B, jnp.int32),
    done_B=jnp.zeros(B, bool),
    step=jnp.zeros((), jnp.int32),
    cache=out['cache'],
  )
  return _choose(empty, out['logits'][:, -1], rules)


@functools.partial(jax.jit, static_argnames=('spec', 'run'), donate_argnames='state')
def go_on(spec: Model, params: Any, state: State, rules: Rules, until: jax.Array, *, run: Run) -> State:
  """The state after `until` steps in all, or after as many as it took every row to reach a stop token."""
  name = 'input_ids' if spec.encoder is None else 'decoder_input_ids'

  def one(state):
    tokens = {name: state.last_B[:, None]}
    out = apply(spec, params, run=run, cache=state.cache, logits_to_keep=1, **tokens)
    return _choose(dataclasses.replace(state, cache=out['cache']), out['logits'][:, -1], rules)

  return jax.lax.while_loop(lambda s: (s.step < until) & ~jnp.all(s.done_B), one, state)


def _choose(state: State, logits_BV: jax.Array, rules: Rules) -> State:
  """The state with one more token a row."""
  n_B = jnp.broadcast_to(state.step, state.last_B.shape)
  tok_B = choose(rules, logits_BV, state.tokens_BT, n_B)
  new_B = jnp.where(state.done_B, NOTHING, tok_B)
  return dataclasses.replace(
    state,
    tokens_BT=jax.lax.dynamic_update_slice_in_dim(state.tokens_BT, new_B[:, None], state.step, 1),
    last_B=tok_B,
    done_B=state.done_B | rules.stop_V[tok_B],
    step=state.step + 1,
  )
