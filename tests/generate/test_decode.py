"""Cached decoding gives the tokens of one full pass per token."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, VOCAB, weights
from tfm.generate import decode
from tfm.generate.prompts import bucket
from tfm.model import transformer
from tfm.parts.context import Run

# Prepared parameters give the same tokens (test_prepare), but take longer to compile.
generate = functools.partial(decode.generate, run=Run())
stream = functools.partial(decode.stream, run=Run())
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]]
NEW = 9
WIDTH = 24
MAIN = 'rope_gqa'
FILTERS = {'temperature': 1.3, 'top_k': 20, 'top_p': 0.9, 'min_p': 0.01}


def start(spec):
  return {} if spec.encoder is None else {'decoder_start': 0}


@functools.partial(jax.jit, static_argnums=0)
def logits(spec, params, inputs):
  return transformer.apply(spec, params, **inputs)['logits']


def by_full_passes(spec, prompt):
  """Return the greedy continuation without a cache, by a full pass per token."""
  row, known = ([0], 1) if spec.encoder else (list(prompt), len(prompt))
  pad = lambda ids: jnp.asarray([ids + [0] * (WIDTH - len(ids))], jnp.int32)
  mask = lambda n: pad([1] * n)
  for _ in range(NEW):
    inputs = {'input_ids': pad(row), 'attention_mask': mask(len(row))}
    if spec.encoder is not None:
      inputs = {f'decoder_{name}': value for name, value in inputs.items()}
      inputs |= {'input_ids': pad(prompt), 'attention_mask': mask(len(prompt))}
    elif spec.reads_prefix:
      inputs['prefix_mask'] = mask(known)
    row.append(int(jnp.argmax(logits(spec, weights(spec), inputs)[0, len(row) - 1])))
  return row[known:]


@pytest.fixture(scope='module')
def sampled():
  spec = MODELS[MAIN]
  return generate(
    spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=jax.random.key(7), **FILTERS
  )


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.large(
  when=lambda name: (
    name in ('alibi_mqa', 't5', 'sinusoidal', 'learned', 'encdec', 'prefix', 'shared')
  )
)
def test_batched_decoding_matches_full_passes(name):
  spec = MODELS[name]
  tokens = generate(spec, weights(spec), PROMPTS, max_new_tokens=NEW, temperature=0, **start(spec))
  assert tokens == [by_full_passes(spec, prompt) for prompt in PROMPTS]
  assert len({tuple(row) for row in tokens}) > 1
  assert max(len(set(row)) for row in tokens) > 1


def test_sampled_tokens_do_not_depend_on_the_batch(sampled):
  spec = MODELS[MAIN]
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(7), jnp.arange(3))
  alone = [
    generate(spec, weights(spec), [p], max_new_tokens=NEW, key=keys[i : i + 1], **FILTERS)[0]
    for i, p in enumerate(PROMPTS)
  ]
  assert alone == sampled
  first = generate(
    spec, weights(spec), PROMPTS[:1], max_new_tokens=NEW, key=jax.random.key(7), **FILTERS
  )
  assert first == sampled[:1]


def test_key_determines_the_sampled_tokens(sampled):
  spec = MODELS[MAIN]
  again = lambda key: generate(spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=key, **FILTERS)
  assert again(jax.random.key(7)) == sampled
  assert again(jax.random.PRNGKey(7)) == sampled
  assert again(jax.random.key(8)) != sampled


@pytest.mark.parametrize('chunk', [1, 4, 100])
def test_stream_yields_the_same_tokens_in_any_chunks(sampled, chunk):
  spec = MODELS[MAIN]
  steps = stream(
    spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=jax.random.key(7), chunk=chunk, **FILTERS
  )
  assert np.stack(list(steps)).T.tolist() == sampled


def test_sequence_ends_with_its_first_eos(sampled):
  spec = MODELS[MAIN]
  stop = next(t for t in sampled[0][1:-1] if t not in sampled[1])
  cut = sampled[0].index(stop) + 1
  options = {'max_new_tokens': NEW, 'key': jax.random.key(7), 'eos': (stop, VOCAB - 1), **FILTERS}
  tokens = generate(spec, weights(spec), PROMPTS, **options)
  assert tokens[:2] == [sampled[0][:cut], sampled[1]]
  steps = np.stack(list(stream(spec, weights(spec), PROMPTS, **options)))
  assert steps[cut:, 0].tolist() == [-1] * (NEW - cut)


def test_decoding_stops_once_every_sequence_has_ended(sampled):
  spec = MODELS[MAIN]
  stop = sampled[0][2]
  options = {'max_new_tokens': NEW, 'key': jax.random.key(7), 'eos': stop, **FILTERS}
  assert (
    len(list(stream(spec, weights(spec), PROMPTS[:1], **options)))
    == sampled[0].index(stop) + 1
    < NEW
  )


def test_no_sequence_ends_before_min_new_tokens(sampled):
  spec = MODELS[MAIN]
  everything = tuple(range(VOCAB - 1))  # all tokens but one end the sequence
  tokens = generate(
    spec,
    weights(spec),
    PROMPTS,
    max_new_tokens=NEW,
    min_new_tokens=4,
    temperature=0,
    eos=everything,
  )
  assert all(row[:4] == [VOCAB - 1] * 4 and len(row) >= 4 for row in tokens)
  assert any(len(row) == 5 for row in tokens)


def test_buckets_are_large_enough_and_waste_at_most_half():
  sizes = [bucket(n) for n in range(1, 3000)]
  assert all(n <= size < max(2 * n, 17) for n, size in enumerate(sizes, 1))
  assert sorted(set(sizes))[:6] == [16, 24, 32, 48, 64, 96]


def test_prompt_may_fill_the_position_table():
  spec = MODELS['learned']
  tokens = generate(spec, weights(spec), [[3] * 39, [4]], max_new_tokens=9, temperature=0)
  assert list(map(len, tokens)) == [9, 9]
  assert tokens[1] == by_full_passes(spec, [4])


class Letters:
  """A vocabulary of one letter per id; `!` is the end of text."""

  alphabet = 'abcdefghijklmnopqrstuvwxyz !'
  eos = alphabet.index('!')

  def encode(self, text):
    return [self.alphabet.index(c) for c in text]

  def decode(self, ids):
    return ''.join(self.alphabet[i % len(self.alphabet)] for i in ids)


def test_text_prompts_give_text_without_eos():
  spec, letters = MODELS[MAIN], Letters()
  texts = ['ab', 'hello', 'you']
  ids = [letters.encode(text) for text in texts]
  options = {'max_new_tokens': NEW, **FILTERS}
  unstopped = generate(spec, weights(spec), ids, **options)
  letters.eos = unstopped[0][3]
  cut = unstopped[0].index(letters.eos)
  tokens = generate(spec, weights(spec), texts, tokenizer=letters, **options)
  assert tokens[0] == letters.decode(unstopped[0][:cut])
  whole = generate(spec, weights(spec), texts, tokenizer=letters, eos=(), **options)
  assert whole == [letters.decode(row) for row in unstopped]


def test_ids_beyond_the_tokenizer_are_never_sampled(sampled):
  spec, letters = MODELS[MAIN], Letters()
  letters.size, letters.eos = 28, None
  tokens = generate(
    spec, weights(spec), [[5, 9], [7], [3]], tokenizer=letters, max_new_tokens=NEW, **FILTERS
  )
  assert max(map(max, tokens)) < 28 <= max(map(max, sampled))


def test_package_is_callable_as_generate(sampled):
  import tfm.generate.sampling

  spec = MODELS[MAIN]
  tokens = tfm.generate(
    spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=jax.random.key(7), run=Run(), **FILTERS
  )
  assert tokens == sampled
