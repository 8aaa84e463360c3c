"""Chunked prefill and prompt files keep the tokens; a file of another run is an error."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from tests.generate.models import MODELS, decoder, weights
from tfm.core.errors import UserError
from tfm.core.precision import Precision
from tfm.generate import decode, prepare, prompt_cache
from tfm.generate.drafts import Draft, LookupDraft, ModelDraft, MTPDraft
from tfm.model import count, transformer
from tfm.parts.cache import TABLE, DenseCache, Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.mixer import Attention
from tfm.parts.mtp import SequentialMTP

NEW = 6
PROMPT = [5, 9, 2, 7, 1, 1, 30, 22, 8, 4, 17]
SPEC = MODELS['rope_gqa']
generated = functools.partial(decode.generate, max_new_tokens=NEW, temperature=0)
UNROLLED = Run(loop='unroll')


@pytest.mark.parametrize('kind', [row() for row in TABLE.values()], ids=str)
@pytest.mark.parametrize('chunk', [1, 5, 16])
@pytest.mark.large(
  when=lambda kind, chunk: (
    chunk == 1 or (chunk == 16 and not isinstance(kind, RingCache | DenseCache))
  )
)
def test_chunked_prefill_keeps_the_tokens(kind, chunk):
  prompts, run = [PROMPT * 2, PROMPT[:3], [60]], Run(cache=kind)
  plain = generated(SPEC, weights(SPEC), prompts, run=run)
  assert generated(SPEC, weights(SPEC), prompts, run=run, prefill_chunk=chunk) == plain
  assert kind.exact is False or plain == generated(SPEC, weights(SPEC), prompts, run=Run())


def test_chunked_prefill_works_with_prepared_parameters():
  ready = prepare(MODELS['window'], weights(MODELS['window']))
  plain = generated(MODELS['window'], ready, [PROMPT, [3]], run=UNROLLED)
  assert generated(MODELS['window'], ready, [PROMPT, [3]], run=UNROLLED, prefill_chunk=4) == plain


def test_chunked_prefill_bounds_memory():
  spec = decoder(Attention(4, 2, 8))
  shapes = transformer.param_shapes(spec)
  ids = jax.ShapeDtypeStruct((1, 1024), jnp.int32)

  def temporary(chunk):
    from tfm.generate.chunked_prefill import chunked_forward
    from tfm.model.cache import init_cache
    from tfm.parts.attend import DenseAttention

    run = Run(attend=DenseAttention())
    cache = jax.eval_shape(lambda: init_cache(spec, 1, 1024))

    def logits(params, cache, ids):
      inputs = {'input_ids': ids}
      return chunked_forward(spec, params, cache, inputs, run=run, chunk=chunk)['logits']

    return jax.jit(logits).lower(shapes, cache, ids).compile().memory_analysis().temp_size_in_bytes

  assert temporary(64) < temporary(None) / 4


@pytest.mark.parametrize('kind', [DenseCache(), Int8Cache(), PagedCache(4)], ids=str)
@pytest.mark.parametrize('name', ['rope_gqa', 'window'])
@pytest.mark.large(
  when=lambda kind, name: (
    isinstance(kind, Int8Cache) == (name == 'window') or isinstance(kind, DenseCache)
  )
)
def test_prompt_file_keeps_the_tokens(tmp_path, kind, name):
  spec, run, file = MODELS[name], Run(cache=kind), tmp_path / 'prompt'
  plain = generated(spec, weights(spec), [PROMPT], run=run)
  assert generated(spec, weights(spec), [PROMPT], run=run, prompt_cache=file) == plain
  assert file.exists()
  written = file.read_bytes()
  assert generated(spec, weights(spec), [PROMPT], run=run, prompt_cache=file) == plain
  # Only tokens after the common prefix are computed, which differs between prompts.
  others = [PROMPT[:4] + [44, 3], PROMPT + [12, 12, 13], [8, 8]]
  assert generated(spec, weights(spec), others, run=run, prompt_cache=file) == generated(
    spec, weights(spec), others, run=run
  )
  assert file.read_bytes() == written
  assert [p.name for p in tmp_path.iterdir()] == ['prompt']


DRAFTS = {
  'beams': {'beams': 3},
  'lookup': {'draft': LookupDraft()},
  'model': {'draft': ModelDraft(MODELS['alibi_mqa'], weights(MODELS['alibi_mqa']))},
}


@pytest.mark.parametrize('options', DRAFTS.values(), ids=DRAFTS)
@pytest.mark.large(when=lambda options: options in (DRAFTS['model'], DRAFTS['lookup']))
def test_beams_and_drafts_continue_from_a_file(tmp_path, options):
  others = [PROMPT[:4] + [44, 3], PROMPT + [12, 12, 13], [8, 8]]
  run_with = functools.partial(generated, SPEC, weights(SPEC), run=Run(), **options)
  plain = run_with([PROMPT]), run_with(others)
  file = tmp_path / 'prompt'
  assert (run_with([PROMPT], prompt_cache=file), run_with(others, prompt_cache=file)) == plain
  assert run_with(others, prefill_chunk=4) == plain[1]


def test_only_tokens_after_the_common_prefix_are_computed(tmp_path):
  file, run = tmp_path / 'prompt', Run()
  generated(SPEC, weights(SPEC), [PROMPT * 4], run=run, prompt_cache=file)
  left = restored(SPEC, [PROMPT * 4 + [3]], file, run)
  assert left.inputs['input_ids'].shape == (1, 16)
  assert left.inputs['attention_mask'].sum() == 1
  assert left.cache['slot'].tolist() == [44]


def test_prepared_parameters_save_and_load_the_prompt(tmp_path):
  ready, file = prepare(SPEC, weights(SPEC)), tmp_path / 'prompt'
  plain = generated(SPEC, ready, [PROMPT], run=UNROLLED)
  assert generated(SPEC, ready, [PROMPT], run=UNROLLED, prompt_cache=file) == plain
  assert generated(SPEC, ready, [PROMPT], run=UNROLLED, prompt_cache=file) == plain


def test_file_size_follows_cache_bytes_per_token(tmp_path):
  for dtype, kind in (
    ('bfloat16', DenseCache()),
    ('float32', DenseCache()),
    ('bfloat16', Int8Cache()),
  ):
    run, file = Run(Precision(compute=dtype), cache=kind), tmp_path / f'{dtype}{kind.exact}'
    generated(SPEC, weights(SPEC), [PROMPT], run=run, prompt_cache=file)
    header = int.from_bytes(file.read_bytes()[:8], 'little')
    each = count.cache_bytes_per_token(SPEC, dtype, kind) + 8
    assert file.stat().st_size == 8 + header + each * len(PROMPT)
    assert generated(SPEC, weights(SPEC), [PROMPT], run=run, prompt_cache=file) == generated(
      SPEC, weights(SPEC), [PROMPT], run=run
    )


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  file = tmp_path_factory.mktemp('saved') / 'prompt'
  generated(SPEC, weights(SPEC), [PROMPT], run=Run(), prompt_cache=file)
  return file


OTHER = jax.tree.map(lambda a: a + 1e-3, weights(SPEC))
SMALLER = SPEC.with_heads(lm=dataclasses.replace(SPEC.lm, scale=0.5))


@pytest.mark.parametrize(
  ('spec', 'params', 'prompt', 'run', 'message'),
  [
    (SPEC, OTHER, PROMPT, Run(), 'weights differ. Expected the same, or another file.'),
    (
      SMALLER, weights(SPEC), PROMPT, Run(),
      r'spec differs \(heads.lm.scale: 1.0 -> 0.5\). Expected',
    ),
    (
      SPEC, weights(SPEC), [7, 7], Run(),
      r'tokens differ: the file begins with \[5, 9, 2, 7, 1, 1, 30, 22, ...\]',
    ),
    (
      SPEC, weights(SPEC), PROMPT, Run(Precision(compute='bfloat16')),
      r'dtype differs \(the file: float32, this run: bfloat16\)',
    ),
    (
      SPEC, weights(SPEC), PROMPT, Run(cache=Int8Cache()),
      r'cache kind differs \(the file: dense, this run: int8\)',
    ),
  ],
  ids=['weights', 'spec', 'tokens', 'dtype', 'cache'],
)  # fmt: skip
def test_file_of_another_run_is_an_error(saved, spec, params, prompt, run, message):
  with pytest.raises(UserError, match=message):
    generated(spec, params, [prompt], run=run, prompt_cache=saved)


def test_damaged_file_is_an_error_and_unchanged(saved, tmp_path):
  whole = saved.read_bytes()
  damaged = bytearray(whole)
  damaged[-9] ^= 4
  for name, content, message in (
    ('cut', whole[:-10], 'cannot be read'),
    ('short', whole[:5], 'cannot be read'),
    ('empty', b'', 'cannot be read'),
    (
      'flipped',
      bytes(damaged),
      r'the contents are damaged \(wrong digest\). Expected a valid file, or none',
    ),
  ):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=f'prompt_cache: .*{name}: .*{message}'):
      generated(SPEC, weights(SPEC), [PROMPT], run=Run(), prompt_cache=file)
    assert file.read_bytes() == content
  save_file({'a': np.ones(2)}, tmp_path / 'other')
  with pytest.raises(
    UserError, match='is not a prompt cache, it lacks cache, digest, dtype, spec, weights'
  ):
    generated(SPEC, weights(SPEC), [PROMPT], run=Run(), prompt_cache=tmp_path / 'other')


def test_prefix_lm_uses_the_whole_prompt_or_nothing(tmp_path):
  spec, file = MODELS['prefix'], tmp_path / 'prompt'
  plain = generated(spec, weights(spec), [PROMPT], run=Run())
  assert generated(spec, weights(spec), [PROMPT], run=Run(), prompt_cache=file) == plain
  assert generated(spec, weights(spec), [PROMPT], run=Run(), prompt_cache=file) == plain
  with pytest.raises(
    UserError, match=r'tokens differ: the file has \[5, 9, .*, the prompt is \[5, 9, 2, 7\]'
  ):
    generated(spec, weights(spec), [PROMPT[:4]], run=Run(), prompt_cache=file)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    (
      'encdec',
      {'decoder_start': 0, 'prefill_chunk': 4},
      'prefill_chunk=4 is not possible, because prompt tokens attend to later ones',
    ),
    (
      'prefix',
      {'prefill_chunk': 4},
      'prefill_chunk=4 is not possible, because prompt tokens attend to later ones',
    ),
    (
      'rope_gqa',
      {'prefill_chunk': 0},
      'prefill_chunk=0 is too small. Expected at least 1, or None',
    ),
  ],
)
def test_unsupported_prefill_chunk_is_an_error(name, options, message):
  with pytest.raises(UserError, match=message):
    generated(MODELS[name], weights(MODELS[name]), [PROMPT], **({'run': Run()} | options))


@pytest.mark.parametrize('kind', [RingCache(2), Int8Cache(RingCache(2))], ids=str)
@pytest.mark.large(when=lambda kind: isinstance(kind, Int8Cache))
def test_ring_continues_from_a_file_within_its_margin(tmp_path, kind):
  spec, run, file = MODELS['window'], Run(cache=kind), tmp_path / 'prompt'
  run_with = functools.partial(generated, spec, weights(spec), run=run)
  plain = run_with([PROMPT])
  assert [run_with([PROMPT], prompt_cache=file) for _ in range(2)] == [plain] * 2
  with safe_open(file, 'numpy') as saved:
    assert saved.get_slice('segments.0.pattern.0.k').get_shape()[:2] == [2, 5]
  # The second has all but two tokens of the file; the third has too few and is computed whole.
  others = [PROMPT + [12, 12, 13], PROMPT[:9] + [44, 3], PROMPT[:8] + [44, 3], [8, 8]]
  cached = lambda prompts: restored(spec, prompts, file, run).cache['slot'].tolist()
  assert run_with(others, prompt_cache=file) == run_with(others)
  assert cached(others) == [11, 9, 0, 0]
  message = (
    r'tokens differ: the prompt has 8 of the 11 tokens of the file, but .*ring.* can be rewound '
    r'by 2 at most. Expected a prompt that continues all of them, another file, or a cache of all'
  )
  with pytest.raises(UserError, match=message):
    run_with(others[2:], prompt_cache=file)


def test_ring_that_is_not_full_continues_from_any_prefix(tmp_path):
  spec, run, file = MODELS['window'], Run(cache=RingCache()), tmp_path / 'prompt'
  others = [PROMPT[:4] + [44, 3], PROMPT + [12, 12, 13], [8, 8]]
  generated(spec, weights(spec), [PROMPT], run=run, prompt_cache=file)
  assert generated(spec, weights(spec), others, run=run, prompt_cache=file) == generated(
    spec, weights(spec), others, run=run
  )
  assert restored(spec, others, file, run).cache['slot'].tolist() == [4, 11, 0]


@pytest.mark.parametrize('options', [{}, {'beams': 3}], ids=['greedy', 'beams'])
def test_encoder_output_is_reused_from_a_file(tmp_path, options):
  spec, file = MODELS['encdec'], tmp_path / 'prompt'
  run_with = functools.partial(
    generated, spec, weights(spec), run=Run(), decoder_start=(0, 3), **options
  )
  plain = run_with([PROMPT, PROMPT])
  assert run_with([PROMPT, PROMPT], prompt_cache=file) == plain
  assert run_with([PROMPT, PROMPT], prompt_cache=file) == plain
  # Only decoder inputs are left.
  left = restored(spec, [PROMPT, PROMPT], file, Run(), decoder_start=(0, 3))
  assert [*left.inputs] == ['decoder_input_ids']
  with safe_open(file, 'numpy') as saved:
    assert saved.get_slice('segments.0.pattern.0.cross.k').get_shape() == [2, 4, len(PROMPT), 8]
  with pytest.raises(
    UserError,
    match=r'tokens differ: the file has \[5, 9, .*, the prompt is \[5, 9, 2\]. Expected the same',
  ):
    run_with([PROMPT, PROMPT[:3]], prompt_cache=file)


@pytest.fixture(scope='module')
def with_mtp():
  spec = dataclasses.replace(MODELS['window'], mtp=SequentialMTP(depth=2))
  return spec, weights(spec)


@pytest.mark.large
def test_mtp_draft_continues_from_a_file(with_mtp, tmp_path):
  (spec, params), run, file = with_mtp, Run(cache=RingCache(3)), tmp_path / 'prompt'

  def sampled(prompts, **options):
    """Return sampled tokens, which depend on every drafted token."""
    options |= {'max_new_tokens': NEW, 'draft': MTPDraft(), 'key': jax.random.key(3)}
    return decode.generate(spec, params, prompts, run=run, **options)

  others = [PROMPT + [12, 12, 13], PROMPT[:10] + [4, 4], [8, 8]]
  plain = sampled([PROMPT]), sampled(others)
  assert sampled(others, prefill_chunk=4) == plain[1]
  assert sampled([PROMPT], prompt_cache=file) == plain[0]
  assert sampled([PROMPT], prompt_cache=file) == plain[0]
  assert sampled(others, prompt_cache=file) == plain[1]


def test_file_without_a_draft_cache_is_an_error(with_mtp, tmp_path):
  (spec, params), file = with_mtp, tmp_path / 'prompt'
  generated(spec, params, [PROMPT], run=Run(), prompt_cache=file)
  with pytest.raises(
    UserError,
    match=r"drafts differ: the file has no cache of the model's multi-token prediction layers",
  ):
    generated(spec, params, [PROMPT], run=Run(), draft=MTPDraft(), prompt_cache=file)


def restored(spec, prompts, file, run, **options):
  """Return the remaining inputs of the prompts, and the cache from the file."""
  options = decode.options_lib.parse({'max_new_tokens': NEW} | options)
  batch = decode.prompts_lib.batch(spec, prompts, None, options)
  return prompt_cache.restore(file, spec, weights(spec), batch, run, Draft())


def test_file_holds_tokens_and_metadata(saved):
  with safe_open(saved, 'numpy') as file:
    assert file.get_tensor('tokens').tolist() == PROMPT
    assert file.get_tensor('positions').tolist() == list(range(len(PROMPT)))
    assert file.get_slice('segments.0.pattern.0.k').get_shape() == [2, len(PROMPT), 2, 8]
    assert {'weights', 'spec', 'dtype', 'cache', 'digest'} <= {*file.metadata()}
