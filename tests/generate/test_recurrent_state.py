"""Decoding a model with recurrent states in any way gives the tokens of full passes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open

from tests.generate.models import MODELS as PLAIN
from tests.generate.models import decoder, weights
from tfm.core.errors import UserError
from tfm.generate import (
  LookupDraft,
  ModelDraft,
  MTPDraft,
  decode,
  prefix_sharing,
  prepare,
  prompt_cache,
)
from tfm.generate.drafts import Draft
from tfm.model import count, transformer
from tfm.model.cache import init_cache, recurrent_states, rewind, with_history
from tfm.model.spec import Block, Segment
from tfm.parts.cache import DenseCache, Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.cross import CrossAttention
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.mask import Prefix
from tfm.parts.mixer import LSTM, Attention, LinearAttention
from tfm.parts.mtp import SequentialMTP
from tfm.parts.relative.rope import RoPE

NEW = 6
PROMPT = [5, 9, 2, 7, 1, 1, 30, 22, 8, 4, 17]
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]]
_block = lambda mixer: Block(mixer, Mlp(48))
MODELS = {
  'linear': decoder(LinearAttention(4)),
  'lstm': decoder(LSTM(24, project=True)),
  'hybrid': dataclasses.replace(
    decoder(Attention(4)),
    segments=(
      Segment((_block(LSTM()), _block(Attention(4, 2, 8, RoPE(base=100.0))))),
      Segment((_block(LinearAttention(2)),), 2),
    ),
  ),
}
generated = functools.partial(decode.generate, max_new_tokens=NEW, temperature=0, run=Run())
UNROLLED = Run(loop='unroll')


@functools.cache
def greedy(spec, prompt, new=NEW):
  """Return the greedy continuation of a prompt, by a full pass per token."""
  length = len(prompt) + new
  logits = jax.jit(lambda p, ids: transformer.apply(spec, p, input_ids=ids)['logits'])
  row = list(prompt)
  for _ in range(new):
    ids = np.asarray([[*row, *[0] * (length - len(row))]], np.int32)
    row.append(int(np.argmax(logits(weights(spec), ids)[0, len(row) - 1])))
  return row[len(prompt) :]


def expected(spec, prompts):
  return [greedy(spec, tuple(prompt)) for prompt in prompts]


@pytest.mark.parametrize('name', MODELS)
def test_batches_and_prepared_weights_give_full_pass_tokens(name):
  spec = MODELS[name]
  found = expected(spec, PROMPTS)
  assert len({token for row in found for token in row}) > 4
  assert generated(spec, weights(spec), PROMPTS) == found
  assert generated(spec, prepare(spec, weights(spec)), PROMPTS, run=UNROLLED) == found


@pytest.mark.parametrize('kind', [RingCache(), PagedCache(4)], ids=str)
def test_cache_kinds_keep_the_greedy_tokens(kind):
  spec, prompts = MODELS['hybrid'], [PROMPT, PROMPT, PROMPT[:5]]
  assert generated(spec, weights(spec), prompts, run=Run(cache=kind)) == expected(spec, prompts)


@pytest.mark.parametrize('name', ['linear', 'hybrid'])
def test_chunked_prefill_keeps_the_greedy_tokens(name):
  spec, prompts = MODELS[name], [PROMPT, [3]]
  assert generated(spec, weights(spec), prompts, prefill_chunk=4) == expected(spec, prompts)


def test_blocks_are_not_shared_without_token_entries():
  batch = decode.prompts_lib.batch(MODELS['lstm'], [PROMPT] * 3, None, decode.options_lib.parse({}))
  assert prefix_sharing.prefix_layout(MODELS['lstm'], PagedCache(4), batch, 1, NEW) is None
  assert prefix_sharing.prefix_layout(MODELS['hybrid'], PagedCache(4), batch, 1, NEW) is not None


def beam_reference(spec, prompt, K):
  """Return the best of K beams after a prompt, by a full pass per token."""
  length = len(prompt) + NEW
  score = jax.jit(
    lambda p, ids: jax.nn.log_softmax(transformer.apply(spec, p, input_ids=ids)['logits'])
  )
  beams = [(0.0, ())]
  for n in range(NEW):
    rows = [[*prompt, *text, *[0] * (length - len(prompt) - n)] for _, text in beams]
    logp = np.asarray(score(weights(spec), np.asarray(rows * (K if n == 0 else 1), np.int32)))[
      :, len(prompt) + n - 1
    ]
    more = [
      (total + logp[i, v], (*text, v))
      for i, (total, text) in enumerate(beams)
      for v in range(spec.vocab)
    ]
    beams = sorted(more, reverse=True)[:K]
  return [int(token) for token in beams[0][1]]


@pytest.mark.parametrize('name', ['hybrid', pytest.param('linear', marks=pytest.mark.large)])
def test_beams_carry_their_recurrent_states(name):
  spec = MODELS[name]
  found = generated(spec, weights(spec), PROMPTS, beams=3)
  assert found == [beam_reference(spec, prompt, 3) for prompt in PROMPTS]
  assert found != expected(spec, PROMPTS)


def perturbed(spec):
  """Return a draft with changed weights in the last layer, which agrees often but not always."""
  params = dict(weights(spec))
  last = f'segment_{len(spec.segments) - 1}'
  return ModelDraft(spec, params | {last: jax.tree.map(lambda a: 0.9 * a, params[last])})


@pytest.mark.parametrize('name', MODELS)
def test_drafts_keep_the_greedy_tokens(name):
  spec = MODELS[name]
  plain = expected(spec, PROMPTS)
  assert generated(spec, weights(spec), PROMPTS, draft=perturbed(spec)) == plain
  assert generated(spec, weights(spec), PROMPTS, draft=LookupDraft(), draft_tokens=2) == plain


def test_draft_and_model_may_keep_different_state():
  for spec, draft in ((MODELS['lstm'], PLAIN['alibi_mqa']), (PLAIN['alibi_mqa'], MODELS['lstm'])):
    plain = generated(spec, weights(spec), PROMPTS)
    assert generated(spec, weights(spec), PROMPTS, draft=ModelDraft(draft, weights(draft))) == plain


def test_perfect_draft_is_always_accepted(monkeypatch):
  from tfm.generate import speculate

  spec, passes, original = MODELS['hybrid'], [], speculate.speculative_loop

  def record(*args, **kwargs):
    passes.append(original(*args, **kwargs))
    return passes[-1]

  monkeypatch.setattr(speculate, 'speculative_loop', record)
  draft = ModelDraft(spec, weights(spec))
  assert generated(spec, weights(spec), PROMPTS, draft=draft, draft_tokens=2) == expected(
    spec, PROMPTS
  )
  assert int(passes[-1].passes) == -(-(NEW - 1) // 3)


def test_mtp_drafts_keep_the_greedy_tokens():
  spec = dataclasses.replace(MODELS['lstm'], mtp=SequentialMTP(2))
  plain = generated(spec, weights(spec), PROMPTS)
  assert generated(spec, weights(spec), PROMPTS, draft=MTPDraft()) == plain


@pytest.mark.parametrize('left', [True, False])
@pytest.mark.parametrize('name', MODELS)
def test_rewound_sequences_continue_exactly(name, left):
  spec = MODELS[name]
  ids = np.random.default_rng(0).integers(1, 61, (3, 9)).astype(np.int32)
  real = np.asarray([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1]], np.int32)
  mask = real if left else real[:, ::-1]
  step = jax.jit(lambda p, cache, **x: transformer.apply(spec, p, cache=cache, **x))
  apply = functools.partial(step, weights(spec))
  before = apply(init_cache(spec, 3, 16), input_ids=ids[:, :2])['cache']
  after = apply(with_history(before), input_ids=ids[:, 2:7], attention_mask=mask)['cache']
  keep_B = np.asarray([2, 5, 0])
  rewound = rewind(after, before['slot'] + keep_B)
  assert jax.tree.structure(rewound) == jax.tree.structure(before)
  found = apply(rewound, input_ids=ids[:, 7:])['logits']
  whole = jax.jit(lambda p, ids: transformer.apply(spec, p, input_ids=ids)['logits'])
  for i, n in enumerate(keep_B):
    row = np.concatenate([ids[i, :2], ids[i, 2:7][mask[i] > 0][:n], ids[i, 7:]])
    np.testing.assert_allclose(
      found[i], whole(weights(spec), row[None])[0, -2:], rtol=1e-4, atol=1e-4
    )


def test_rewind_without_history_is_an_error():
  cache = init_cache(MODELS['lstm'], 1, 4)
  for broken in (cache, with_history(cache)):
    with pytest.raises(
      UserError,
      match=r'rewind: the cache has no recurrent states .* Expected .* with_history\(cache\)',
    ):
      rewind(broken, cache['slot'])


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    ('lstm', DenseCache()),
    ('hybrid', DenseCache()),
    pytest.param('linear', DenseCache(), marks=pytest.mark.large),
    pytest.param('hybrid', RingCache(2), marks=pytest.mark.large),
    pytest.param('hybrid', Int8Cache(), marks=pytest.mark.large),
    pytest.param('hybrid', PagedCache(4), marks=pytest.mark.large),
  ],
  ids=str,
)
def test_prompts_continue_from_a_file(tmp_path, name, kind):
  spec, file = MODELS[name], tmp_path / 'prompt'
  run_with = functools.partial(generated, spec, weights(spec), run=Run(cache=kind))
  # The third prompt shares part of the file, the fourth nothing: both are computed whole.
  others = [PROMPT, [*PROMPT[:-1], 44, 3], PROMPT[:4], [8, 8]]
  plain = run_with([PROMPT]), run_with(others)
  assert [run_with([PROMPT], prompt_cache=file, prefill_chunk=4) for _ in range(2)] == [
    plain[0]
  ] * 2
  written = file.read_bytes()
  assert run_with(others, prompt_cache=file) == plain[1]
  assert restored(spec, others, file, Run(cache=kind)).cache['slot'].tolist() == [10, 10, 0, 0]
  assert file.read_bytes() == written
  with pytest.raises(
    UserError,
    match=r'the prompt has 4 of the 10 tokens of the file, but recurrent states are stored only',
  ):
    run_with([PROMPT[:4]], prompt_cache=file)


def restored(spec, prompts, file, run):
  """The remaining inputs of the prompts and the cache from the file."""
  batch = decode.prompts_lib.batch(
    spec, prompts, None, decode.options_lib.parse({'max_new_tokens': NEW})
  )
  return prompt_cache.restore(file, spec, weights(spec), batch, run, Draft())


def test_file_holds_the_states_before_the_last_token(tmp_path):
  spec, file = MODELS['hybrid'], tmp_path / 'prompt'
  assert generated(spec, weights(spec), [[3]], prompt_cache=file) == expected(spec, [[3]])
  assert not file.exists()
  generated(spec, weights(spec), [PROMPT], prompt_cache=file)
  with safe_open(file, 'numpy') as saved:
    assert saved.get_tensor('tokens').tolist() == PROMPT[:-1]
    assert saved.get_slice('segments.0.pattern.1.k').get_shape() == [1, 10, 2, 8]
    assert saved.get_slice('row.segments.0.pattern.0.c').get_shape() == [1, 32]
    assert saved.get_slice('row.segments.1.pattern.0.sum').get_shape() == [2, 2, 16, 16]


def test_unsupported_prompt_files_are_an_error(tmp_path):
  block = MODELS['lstm'].segments[0].pattern[0]
  prefix = dataclasses.replace(
    MODELS['lstm'], segments=(Segment((block, _block(Attention(4, mask=Prefix())))),)
  )
  with_mtp = dataclasses.replace(MODELS['lstm'], mtp=SequentialMTP(2))
  with pytest.raises(UserError, match=r'the model has a prefix mask and recurrent states'):
    generated(prefix, weights(prefix), [PROMPT], prompt_cache=tmp_path / 'prompt')
  with pytest.raises(
    UserError, match=r"recurrent states continue only after all tokens .* draft's layers"
  ):
    generated(
      with_mtp, weights(with_mtp), [PROMPT], draft=MTPDraft(), prompt_cache=tmp_path / 'prompt'
    )


def test_recurrent_decoder_with_an_encoder(tmp_path):
  base = PLAIN['encdec']
  block = dataclasses.replace(_block(LSTM()), cross=CrossAttention(4))
  spec = dataclasses.replace(base, segments=(Segment((block,), 2),))
  run_with = functools.partial(generated, spec, weights(spec), [PROMPT], decoder_start=(0, 3))
  plain, file = run_with(), tmp_path / 'prompt'

  @jax.jit
  def whole(p, ids):
    return transformer.apply(
      spec, p, input_ids=np.asarray([PROMPT], np.int32), decoder_input_ids=ids
    )['logits']

  row = np.asarray([[0, 3, *plain[0]]], np.int32)
  assert np.argmax(whole(weights(spec), row), -1)[0, 1:-1].tolist() == plain[0]
  assert [run_with(prompt_cache=file) for _ in range(2)] == [plain] * 2
  assert run_with(beams=3) == run_with(beams=3, prompt_cache=file)


def test_counted_bytes_equal_allocated_bytes():
  spec = MODELS['hybrid']
  for kind in (DenseCache(), Int8Cache(), PagedCache(4), RingCache()):
    cache = jax.eval_shape(lambda kind=kind: init_cache(spec, 3, 40, jnp.bfloat16, kind=kind))
    rows = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(recurrent_states(cache)))
    assert rows == 3 * count.state_bytes(spec) == 3 * 4 * (2 * 32 + 1 + 2 * (2 * 16 * 17 + 1))
    tokens = dataclasses.replace(spec, segments=(Segment(spec.segments[0].pattern[1:]),))
    assert count.cache_bytes(spec, 40, kind=kind) - count.state_bytes(spec) == count.cache_bytes(
      tokens, 40, kind=kind
    )
  assert count.cache_bytes_per_token(MODELS['lstm']) == 0
  assert count.cache_bytes(MODELS['lstm'], 8) == count.cache_bytes(MODELS['lstm'], 8000)
