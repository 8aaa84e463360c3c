"""A prompt read from a file, or in pieces, is the prompt; a file of something else is refused by
what differs.
"""

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
from tfm.generate.drafts import Draft, MTPDraft, LookupDraft, ModelDraft
from tfm.model import count, transformer
from tfm.parts.cache import TABLE, DenseCache, Int8Cache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.mixer import Attention
from tfm.parts.mtp import SequentialMTP

NEW = 6
PROMPT = [5, 9, 2, 7, 1, 1, 30, 22, 8, 4, 17]
SPEC = MODELS['rope_gqa']
say = functools.partial(decode.generate, max_new_tokens=NEW, temperature=0)
UNROLLED = Run(loop='unroll')


@pytest.mark.parametrize('kind', [row() for row in TABLE.values()], ids=str)
@pytest.mark.parametrize('chunk', [1, 5, 16])
@pytest.mark.large(
  when=lambda kind, chunk: (
    chunk == 1 or (chunk == 16 and not isinstance(kind, RingCache | DenseCache))
  )
)
def test_a_prompt_in_chunks_is_gone_on_with_as_one_read_at_once(kind, chunk):
  prompts, run = [PROMPT * 2, PROMPT[:3], [60]], Run(cache=kind)
  plain = say(SPEC, weights(SPEC), prompts, run=run)
  assert say(SPEC, weights(SPEC), prompts, run=run, prefill_chunk=chunk) == plain
  assert kind.exact is False or plain == say(SPEC, weights(SPEC), prompts, run=Run())


def test_layers_laid_out_one_by_one_read_chunks_too():
  ready = prepare(MODELS['window'], weights(MODELS['window']))
  plain = say(MODELS['window'], ready, [PROMPT, [3]], run=UNROLLED)
  assert say(MODELS['window'], ready, [PROMPT, [3]], run=UNROLLED, prefill_chunk=4) == plain


def test_chunks_bound_the_memory_of_reading():
  spec = decoder(Attention(4, 2, 8))
  shapes = transformer.param_shapes(spec)
  ids = jax.ShapeDtypeStruct((1, 1024), jnp.int32)

  def temporary(chunk):
    from tfm.generate.chunked_prefill import chunked_forward
    from tfm.model.cache import init_cache
    from tfm.parts.attend import DenseAttention

    run = Run(attend=DenseAttention())
    cache = jax.eval_shape(lambda: init_cache(spec, 1, 1024))
    program = jax.jit(
      lambda p, c, x: read(spec, p, c, {'input_ids': x}, run=run, chunk=chunk)['logits']
    )
    return program.lower(shapes, cache, ids).compile().memory_analysis().temp_size_in_bytes

  assert temporary(64) < temporary(None) / 4


@pytest.mark.parametrize('kind', [DenseCache(), Int8Cache(), PagedCache(4)], ids=str)
@pytest.mark.parametrize('name', ['rope_gqa', 'window'])
@pytest.mark.large(
  when=lambda kind, name: (
    isinstance(kind, Int8Cache) == (name == 'window') or isinstance(kind, DenseCache)
  )
)
def test_a_prompt_from_a_file_is_gone_on_with_as_without(tmp_path, kind, name):
  spec, run, file = MODELS[name], Run(cache=kind), tmp_path / 'prompt'
  plain = say(spec, weights(spec), [PROMPT], run=run)
  assert say(spec, weights(spec), [PROMPT], run=run, prompt_cache=file) == plain
  assert file.exists()
  written = file.read_bytes()
  assert say(spec, weights(spec), [PROMPT], run=run, prompt_cache=file) == plain
  # What differs from the file on is read, and only that; rows may have different parts of it.
  others = [PROMPT[:4] + [44, 3], PROMPT + [12, 12, 13], [8, 8]]
  assert say(spec, weights(spec), others, run=run, prompt_cache=file) == say(
    spec, weights(spec), others, run=run
  )
  assert file.read_bytes() == written
  assert [p.name for p in tmp_path.iterdir()] == ['prompt']


DRAFTS = {
  'beams': {'beams': 3},
  'lookup': {'draft': LookupDraft()},
  'smaller': {'draft': ModelDraft(MODELS['alibi_mqa'], weights(MODELS['alibi_mqa']))},
}


@pytest.mark.parametrize('options', DRAFTS.values(), ids=DRAFTS)
@pytest.mark.large(when=lambda options: options in (DRAFTS['smaller'], DRAFTS['lookup']))
def test_beams_and_drafts_go_on_from_a_file_too(tmp_path, options):
  others = [PROMPT[:4] + [44, 3], PROMPT + [12, 12, 13], [8, 8]]
  here = functools.partial(say, SPEC, weights(SPEC), run=Run(), **options)
  plain = here([PROMPT]), here(others)
  file = tmp_path / 'prompt'
  assert (here([PROMPT], prompt_cache=file), here(others, prompt_cache=file)) == plain
  assert here(others, prefill_chunk=4) == plain[1]


def test_only_what_is_new_of_a_prompt_is_read(tmp_path):
  file, run = tmp_path / 'prompt', Run()
  say(SPEC, weights(SPEC), [PROMPT * 4], run=run, prompt_cache=file)
  start = started(SPEC, [PROMPT * 4 + [3]], file, run)
  assert start.inputs['input_ids'].shape == (1, 16)
  assert start.inputs['attention_mask'].sum() == 1
  assert start.cache['slot'].tolist() == [44]


def test_layers_laid_out_one_by_one_keep_and_find_the_prompt(tmp_path):
  ready, file = prepare(SPEC, weights(SPEC)), tmp_path / 'prompt'
  plain = say(SPEC, ready, [PROMPT], run=UNROLLED)
  assert say(SPEC, ready, [PROMPT], run=UNROLLED, prompt_cache=file) == plain
  assert say(SPEC, ready, [PROMPT], run=UNROLLED, prompt_cache=file) == plain


def test_the_file_has_the_bytes_of_the_formula(tmp_path):
  for dtype, kind in (
    ('bfloat16', DenseCache()),
    ('float32', DenseCache()),
    ('bfloat16', Int8Cache()),
  ):
    run, file = Run(Precision(compute=dtype), cache=kind), tmp_path / f'{dtype}{kind.exact}'
    say(SPEC, weights(SPEC), [PROMPT], run=run, prompt_cache=file)
    header = int.from_bytes(file.read_bytes()[:8], 'little')
    each = count.cache_bytes_per_token(SPEC, dtype, kind) + 8
    assert file.stat().st_size == 8 + header + each * len(PROMPT)
    assert say(SPEC, weights(SPEC), [PROMPT], run=run, prompt_cache=file) == say(
      SPEC, weights(SPEC), [PROMPT], run=run
    )


@pytest.fixture(scope='module')
def kept(tmp_path_factory):
  file = tmp_path_factory.mktemp('kept') / 'prompt'
  say(SPEC, weights(SPEC), [PROMPT], run=Run(), prompt_cache=file)
  return file


OTHER = jax.tree.map(lambda a: a + 1e-3, weights(SPEC))
SMALLER = SPEC.with_heads(lm=dataclasses.replace(SPEC.lm, scale=0.5))


@pytest.mark.parametrize(
  ('spec', 'params', 'prompt', 'run', 'message'),
  [
    (SPEC, OTHER, PROMPT, Run(), 'weights differ. Expected the same, or another file.'),
    (SMALLER, weights(SPEC), PROMPT, Run(), r'spec differs \(heads.lm.scale: 1.0 -> 0.5\). Expected'),
    (SPEC, weights(SPEC), [7, 7], Run(), r'tokens differ: the file begins with \[5, 9, 2, 7, 1, 1, 30, 22, ...\]'),
    (
      SPEC, weights(SPEC), PROMPT, Run(Precision(compute='bfloat16')),
      r'dtype differs \(the file: float32, this run: bfloat16\)',
    ),
    (SPEC, weights(SPEC), PROMPT, Run(cache=Int8Cache()), r'cache kind differs \(the file: dense, this run: int8\)'),
  ],
  ids=['weights', 'spec', 'tokens', 'dtype', 'cache'],
)  # fmt: skip
def test_a_file_of_something_else_says_what_differs(kept, spec, params, prompt, run, message):
  with pytest.raises(UserError, match=message):
    say(spec, params, [prompt], run=run, prompt_cache=kept)


def test_a_broken_file_is_refused_and_left_as_it_is(kept, tmp_path):
  whole = kept.read_bytes()
  damaged = bytearray(whole)
  damaged[-9] ^= 4
  for name, content, message in (
    ('cut', whole[:-10], 'cannot be read'),
    ('short', whole[:5], 'cannot be read'),
    ('empty', b'', 'cannot be read'),
    (
      'flipped',
      bytes(damaged),
      'its contents are damaged. Expected it removed: it is then made anew',
    ),
  ):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(UserError, match=f'prompt_cache: .*{name}: .*{message}'):
      say(SPEC, weights(SPEC), [PROMPT], run=Run(), prompt_cache=file)
    assert file.read_bytes() == content
  save_file({'a': np.ones(2)}, tmp_path / 'other')
  with pytest.raises(
    UserError, match='is no prompt cache, it lacks cache, digest, dtype, spec, weights'
  ):
    say(SPEC, weights(SPEC), [PROMPT], run=Run(), prompt_cache=tmp_path / 'other')


def test_a_prefix_lm_takes_the_whole_prompt_or_nothing(tmp_path):
  spec, file = MODELS['prefix'], tmp_path / 'prompt'
  plain = say(spec, weights(spec), [PROMPT], run=Run())
  assert say(spec, weights(spec), [PROMPT], run=Run(), prompt_cache=file) == plain
  assert say(spec, weights(spec), [PROMPT], run=Run(), prompt_cache=file) == plain
  with pytest.raises(
    UserError, match=r'tokens differ: the file is \[5, 9, .*, the prompt is \[5, 9, 2, 7\]'
  ):
    say(spec, weights(spec), [PROMPT[:4]], run=Run(), prompt_cache=file)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    (
      'encdec',
      {'decoder_start': 0, 'prefill_chunk': 4},
      'a prompt whose tokens see later ones is read at once',
    ),
    (
      'prefix',
      {'prefill_chunk': 4},
      'prefill_chunk=4: a prompt whose tokens see later ones is read at once',
    ),
    (
      'rope_gqa',
      {'prefill_chunk': 0},
      'prefill_chunk=0 reads nothing. Expected at least 1, or None',
    ),
  ],
)
def test_what_has_no_meaning_is_refused(name, options, message):
  with pytest.raises(UserError, match=message):
    say(MODELS[name], weights(MODELS[name]), [PROMPT], **({'run': Run()} | options))


@pytest.mark.parametrize('kind', [RingCache(2), Int8Cache(RingCache(2))], ids=str)
@pytest.mark.large(when=lambda kind: isinstance(kind, Int8Cache))
def test_a_ring_goes_on_from_a_file_as_far_as_it_can_be_cut_back(tmp_path, kind):
  spec, run, file = MODELS['window'], Run(cache=kind), tmp_path / 'prompt'
  here = functools.partial(say, spec, weights(spec), run=run)
  plain = here([PROMPT])
  assert [here([PROMPT], prompt_cache=file) for _ in range(2)] == [plain] * 2
  with safe_open(file, 'numpy') as kept:
    assert kept.get_slice('segments.0.pattern.0.k').get_shape()[:2] == [2, 5]
  # The second has all but two tokens of the file, the third has too few and is read whole.
  others = [PROMPT + [12, 12, 13], PROMPT[:9] + [44, 3], PROMPT[:8] + [44, 3], [8, 8]]
  held = lambda prompts: started(spec, prompts, file, run).cache['slot'].tolist()
  assert here(others, prompt_cache=file) == here(others)
  assert held(others) == [11, 9, 0, 0]
  message = (
    r'tokens differ: the prompt has 8 of the 11 tokens of the file, but .*ring.* has forgotten '
    r'what stood before the '
    r'last 2. Expected a prompt that goes on from all of them, another file, or a cache that keeps '
    r'every token'
  )
  with pytest.raises(UserError, match=message):
    here(others[2:], prompt_cache=file)


def test_a_ring_that_has_not_gone_round_is_as_good_as_a_slot_for_every_token(tmp_path):
  spec, run, file = MODELS['window'], Run(cache=RingCache()), tmp_path / 'prompt'
  others = [PROMPT[:4] + [44, 3], PROMPT + [12, 12, 13], [8, 8]]
  say(spec, weights(spec), [PROMPT], run=run, prompt_cache=file)
  assert say(spec, weights(spec), others, run=run, prompt_cache=file) == say(
    spec, weights(spec), others, run=run
  )
  assert started(spec, others, file, run).cache['slot'].tolist() == [4, 11, 0]


@pytest.mark.parametrize('options', [{}, {'beams': 3}], ids=['greedy', 'beams'])
def test_an_encoder_need_not_read_again_what_a_file_has(tmp_path, options):
  spec, file = MODELS['encdec'], tmp_path / 'prompt'
  here = functools.partial(say, spec, weights(spec), run=Run(), decoder_start=(0, 3), **options)
  plain = here([PROMPT, PROMPT])
  assert here([PROMPT, PROMPT], prompt_cache=file) == plain
  assert here([PROMPT, PROMPT], prompt_cache=file) == plain
  # What is left of the inputs has nothing for an encoder.
  start = started(spec, [PROMPT, PROMPT], file, Run(), decoder_start=(0, 3))
  assert [*start.inputs] == ['decoder_input_ids']
  with safe_open(file, 'numpy') as kept:
    assert kept.get_slice('segments.0.pattern.0.cross.k').get_shape() == [2, 4, len(PROMPT), 8]
  with pytest.raises(
    UserError,
    match=r'tokens differ: the file is \[5, 9, .*, the prompt is \[5, 9, 2\]. Expected the same',
  ):
    here([PROMPT, PROMPT[:3]], prompt_cache=file)


@pytest.fixture(scope='module')
def later():
  spec = dataclasses.replace(MODELS['window'], mtp=SequentialMTP(depth=2))
  return spec, weights(spec)


@pytest.mark.large
def test_a_draft_of_the_models_own_heads_goes_on_from_the_file_with_the_same_guesses(
  later, tmp_path
):
  (spec, params), run, file = later, Run(cache=RingCache(3)), tmp_path / 'prompt'

  def drawn(prompts, **options):
    """Drawn tokens: what is drawn depends on each guess that was made."""
    options |= {'max_new_tokens': NEW, 'draft': MTPDraft(), 'key': jax.random.key(3)}
    return decode.generate(spec, params, prompts, run=run, **options)

  others = [PROMPT + [12, 12, 13], PROMPT[:10] + [4, 4], [8, 8]]
  plain = drawn([PROMPT]), drawn(others)
  assert drawn(others, prefill_chunk=4) == plain[1]
  assert drawn([PROMPT], prompt_cache=file) == plain[0]
  assert drawn([PROMPT], prompt_cache=file) == plain[0]
  assert drawn(others, prompt_cache=file) == plain[1]


def test_a_file_without_what_a_draft_goes_on_from_is_refused(later, tmp_path):
  (spec, params), file = later, tmp_path / 'prompt'
  say(spec, params, [PROMPT], run=Run(), prompt_cache=file)
  with pytest.raises(
    UserError,
    match=r"drafts differ: the file has nothing of the model's own heads for later tokens",
  ):
    say(spec, params, [PROMPT], run=Run(), draft=MTPDraft(), prompt_cache=file)


def started(spec, prompts, file, run, **options):
  """What is left to read of the prompts, and the cache of the others."""
  options = decode.options_lib.parse({'max_new_tokens': NEW} | options)
  batch = decode.prompts_lib.batch(spec, prompts, None, options)
  return prompt_cache.start(file, spec, weights(spec), batch, run, Draft())


def test_a_file_says_what_it_is_of(kept):
  with safe_open(kept, 'numpy') as file:
    assert file.get_tensor('tokens').tolist() == PROMPT
    assert file.get_tensor('positions').tolist() == list(range(len(PROMPT)))
    assert file.get_slice('segments.0.pattern.0.k').get_shape() == [2, len(PROMPT), 2, 8]
    assert {'weights', 'spec', 'dtype', 'cache', 'digest'} <= {*file.metadata()}
