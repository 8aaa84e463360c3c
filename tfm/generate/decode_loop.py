"""The two compiled functions of decoding: `prefill` and `decode_loop`."""

import dataclasses
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp

from tfm.generate.chunked_prefill import chunked_forward
from tfm.generate.drafts import Draft
from tfm.generate.logits_processors import LogitsProcessors, next_tokens
from tfm.generate.penalties import NOTHING
from tfm.generate.prefix_sharing import Expansion
from tfm.generate.prompt_cache import PrefillInputs
from tfm.model.cache import expand_blocks, init_cache, select_sequences
from tfm.model.spec import Model
from tfm.model.stack import Params
from tfm.model.transformer import apply, source_length
from tfm.parts.context import Run


@struct.dataclass
class State:
  """The state of decoding a batch.

  Attributes:
    tokens_BT: New tokens, `NOTHING` after the end of a sequence.
    n_B: The number of new tokens of each sequence.
    last_B: The last token of each sequence, which is not in the cache yet.
    done_B: Whether each sequence has ended.
    passes: The number of forward passes after the prefill.
    cache: The model's cache.
    draft_state: The state of the draft, () without one.
  """

  tokens_BT: jax.Array
  n_B: jax.Array
  last_B: jax.Array
  done_B: jax.Array
  passes: jax.Array
  cache: Any
  draft_state: Any = ()


@functools.partial(jax.jit, static_argnames=('spec', 'run', 'slots', 'new_slots', 'chunk'))
def prefill(
  spec: Model, params: Params, prompts: PrefillInputs, processors: LogitsProcessors, draft: Draft,
  inputs: dict[str, Any], expansion: Expansion | None = None, *,
  run: Run, slots: int, new_slots: int, chunk: int | None = None,
) -> State:  # fmt: skip
  """Compute the prompts and the first new token of each sequence.

  Args:
    spec: The model.
    params: Its parameters.
    prompts: The part of the prompts that is not cached yet, with its caches.
    processors: How tokens are sampled.
    draft: The draft of speculative decoding; `Draft()` for none.
    inputs: All inputs, including the cached prefix, for a draft that has no cache for it.
    expansion: How sequences share the distinct prompts in `prompts`. None: one each.
    run: Kernels and precision.
    slots: Cache slots per sequence.
    new_slots: Slots for new tokens.
    chunk: Prompt tokens per pass. None: all.

  Returns:
    The state with one new token per sequence.
  """
  draft_inputs, draft_cache, B = prompts.inputs, prompts.draft_cache, len(processors.keys_B)
  out = forward_prompts(
    spec, params, prompts, processors, expansion, run=run, slots=slots, chunk=chunk
  )
  if expansion is not None:
    index_B = expansion.prompt_B
    out |= {name: out[name][index_B] for name in ('logits', 'mtp_state') if name in out}
    out['cache'] = expand_blocks(out['cache'], index_B, expansion.source, expansion.table)
    draft_inputs = jax.tree.map(lambda a: jnp.asarray(a)[index_B], draft_inputs)
    if draft_cache is not None:
      draft_cache = select_sequences(draft_cache, run.cache.roomy, index_B)
  if draft_cache is None:
    draft_inputs = inputs
  zeros_B = jnp.zeros(B, jnp.int32)
  empty = State(
    tokens_BT=jnp.full((B, new_slots), NOTHING, jnp.int32),
    n_B=zeros_B,
    last_B=zeros_B,
    done_B=jnp.zeros(B, bool),
    passes=jnp.int32(0),
    cache=out['cache'],
    draft_state=draft.init_state(spec, params, run, slots, draft_inputs, out, draft_cache),
  )
  return _append_tokens(empty, out['logits'][:, -1], processors)


def forward_prompts(
  spec: Model,
  params: Params,
  prompts: PrefillInputs,
  processors: LogitsProcessors,
  expansion: Expansion | None,
  *,
  run: Run,
  slots: int,
  chunk: int | None,
) -> dict[str, Any]:
  """Run the model over prompts.

  Args:
    spec: The model.
    params: Its parameters.
    prompts: The part of the prompts that is not cached yet, with its caches.
    processors: Settings of the batch, for the length of its prompts.
    expansion: How sequences share the prompts. None: one each.
    run: Kernels and precision.
    slots: Cache slots per sequence.
    chunk: Prompt tokens per pass. None: all.

  Returns:
    The outputs of `apply` per distinct prompt: the logits of its last token, and its cache.
  """
  inputs, cache = prompts.inputs, prompts.cache
  if cache is None:
    n_prompts = len(next(iter(inputs.values())))
    source = source_length(spec, params, inputs)
    # With an expansion, blocks for new tokens are allocated when the prompts are expanded.
    slots = slots if expansion is None else processors.prompt_BS.shape[1]
    dtype = run.precision.dtype('compute')
    cache = init_cache(spec, n_prompts, slots, dtype, source, run.cache.roomy)
  return chunked_forward(spec, params, cache, inputs, run=run, chunk=chunk)


@functools.partial(jax.jit, static_argnames=('spec', 'run'), donate_argnames='state')
def decode_loop(
  spec: Model,
  params: Params,
  state: State,
  processors: LogitsProcessors,
  until: jax.Array,
  *,
  run: Run,
) -> State:
  """Generate until every sequence has `until` new tokens or has ended.

  Args:
    spec: The model.
    params: Its parameters.
    state: The state to continue from. Its buffers are donated.
    processors: How tokens are sampled.
    until: The number of new tokens to reach, a scalar.
    run: Kernels and precision.

  Returns:
    The new state.
  """
  name = 'input_ids' if spec.encoder is None else 'decoder_input_ids'

  def one(state: State) -> State:
    tokens: dict[str, Any] = {name: state.last_B[:, None]}
    out = apply(spec, params, run=run, cache=state.cache, logits_to_keep=1, **tokens)
    state = dataclasses.replace(state, cache=out['cache'], passes=state.passes + 1)
    return _append_tokens(state, out['logits'][:, -1], processors)

  return jax.lax.while_loop(lambda s: jnp.any(~s.done_B & (s.n_B < until)), one, state)


def _append_tokens(state: State, logits_BV: jax.Array, processors: LogitsProcessors) -> State:
  """Return the state with one more token in each running sequence."""
  tok_B = next_tokens(processors, logits_BV, state.tokens_BT, state.n_B)
  n_B = state.n_B + ~state.done_B
  place_B = jnp.where(state.done_B, state.tokens_BT.shape[1], state.n_B)
  return dataclasses.replace(
    state,
    tokens_BT=state.tokens_BT.at[jnp.arange(len(place_B)), place_B].set(tok_B, mode='drop'),
    n_B=n_B,
    last_B=tok_B,
    done_B=state.done_B | processors.stop_V[tok_B] | (n_B >= processors.maximum),
  )
