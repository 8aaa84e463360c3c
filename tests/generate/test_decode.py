"""Decoding through a cache says what one full pass after another would say."""

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

# Layers laid out one by one say the same (test_prepare) and take longer to compile.
generate = functools.partial(decode.generate, run=Run())
stream = functools.partial(decode.stream, run=Run())
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]]
NEW = 9
WIDTH = 24
MAIN = 'rope_gqa'
DRAWN = {'temperature': 1.3, 'top_k': 20, 'top_p': 0.9, 'min_p': 0.01}


def start(spec):
  return {} if spec.encoder is None else {'decoder_start': 0}


@functools.partial(jax.jit, static_argnums=0)
def logits(spec, params, inputs):
  return transformer.apply(spec, params, **inputs)['logits']


def by_full_passes(spec, prompt):
  """The likeliest continuation without a cache: a full pass over everything so far for each token."""
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
def drawn():
  spec = MODELS[MAIN]
  return generate(spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=jax.random.key(7), **DRAWN)


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.large(
  when=lambda name: (
    name in ('alibi_mqa', 't5', 'sinusoidal', 'learned', 'encdec', 'prefix', 'shared')
  )
)
def test_a_batch_of_different_lengths_says_what_full_passes_over_each_prompt_say(name):
  spec = MODELS[name]
  said = generate(spec, weights(spec), PROMPTS, max_new_tokens=NEW, temperature=0, **start(spec))
  assert said == [by_full_passes(spec, prompt) for prompt in PROMPTS]
  assert len({tuple(row) for row in said}) > 1
  assert max(len(set(row)) for row in said) > 1


def test_a_drawn_row_does_not_depend_on_its_fellows(drawn):
  spec = MODELS[MAIN]
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(7), jnp.arange(3))
  alone = [
    generate(spec, weights(spec), [p], max_new_tokens=NEW, key=keys[i : i + 1], **DRAWN)[0]
    for i, p in enumerate(PROMPTS)
  ]
  assert alone == drawn
  first = generate(
    spec, weights(spec), PROMPTS[:1], max_new_tokens=NEW, key=jax.random.key(7), **DRAWN
  )
  assert first == drawn[:1]


def test_the_same_key_draws_the_same_tokens_and_another_key_others(drawn):
  spec = MODELS[MAIN]
  again = lambda key: generate(spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=key, **DRAWN)
  assert again(jax.random.key(7)) == drawn
  assert again(jax.random.PRNGKey(7)) == drawn
  assert again(jax.random.key(8)) != drawn


@pytest.mark.parametrize('chunk', [1, 4, 100])
def test_a_stream_is_the_same_tokens_in_any_chunks(drawn, chunk):
  spec = MODELS[MAIN]
  steps = stream(
    spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=jax.random.key(7), chunk=chunk, **DRAWN
  )
  assert np.stack(list(steps)).T.tolist() == drawn


def test_a_row_ends_with_its_first_stop_token_and_the_others_go_on(drawn):
  spec = MODELS[MAIN]
  stop = next(t for t in drawn[0][1:-1] if t not in drawn[1])
  cut = drawn[0].index(stop) + 1
  options = {'max_new_tokens': NEW, 'key': jax.random.key(7), 'eos': (stop, VOCAB - 1), **DRAWN}
  said = generate(spec, weights(spec), PROMPTS, **options)
  assert said[:2] == [drawn[0][:cut], drawn[1]]
  steps = np.stack(list(stream(spec, weights(spec), PROMPTS, **options)))
  assert steps[cut:, 0].tolist() == [-1] * (NEW - cut)


def test_decoding_stops_early_once_every_row_has_ended(drawn):
  spec = MODELS[MAIN]
  stop = drawn[0][2]
  options = {'max_new_tokens': NEW, 'key': jax.random.key(7), 'eos': stop, **DRAWN}
  assert (
    len(list(stream(spec, weights(spec), PROMPTS[:1], **options))) == drawn[0].index(stop) + 1 < NEW
  )


def test_no_row_stops_before_min_new_tokens(drawn):
  spec = MODELS[MAIN]
  everything = tuple(range(VOCAB - 1))  # all but one token stop
  said = generate(
    spec,
    weights(spec),
    PROMPTS,
    max_new_tokens=NEW,
    min_new_tokens=4,
    temperature=0,
    eos=everything,
  )
  assert all(row[:4] == [VOCAB - 1] * 4 and len(row) >= 4 for row in said)
  assert any(len(row) == 5 for row in said)


def test_buckets_hold_what_they_must_and_waste_at_most_half():
  sizes = [bucket(n) for n in range(1, 3000)]
  assert all(n <= size < max(2 * n, 17) for n, size in enumerate(sizes, 1))
  assert sorted(set(sizes))[:6] == [16, 24, 32, 48, 64, 96]


def test_a_prompt_may_fill_a_learned_table_up_to_its_last_row():
  spec = MODELS['learned']
  said = generate(spec, weights(spec), [[3] * 39, [4]], max_new_tokens=9, temperature=0)
  assert list(map(len, said)) == [9, 9]
  assert said[1] == by_full_passes(spec, [4])


class Letters:
  """One id a letter; `!` is the end of text."""

  alphabet = 'abcdefghijklmnopqrstuvwxyz !'
  eos = alphabet.index('!')

  def encode(self, text):
    return [self.alphabet.index(c) for c in text]

  def decode(self, ids):
    return ''.join(self.alphabet[i % len(self.alphabet)] for i in ids)


def test_strings_come_back_as_strings_without_their_end_of_text():
  spec, letters = MODELS[MAIN], Letters()
  texts = ['ab', 'hello', 'you']
  ids = [letters.encode(text) for text in texts]
  options = {'max_new_tokens': NEW, **DRAWN}
  plain = generate(spec, weights(spec), ids, **options)
  letters.eos = plain[0][3]
  cut = plain[0].index(letters.eos)
  said = generate(spec, weights(spec), texts, tokenizer=letters, **options)
  assert said[0] == letters.decode(plain[0][:cut])
  whole = generate(spec, weights(spec), texts, tokenizer=letters, eos=(), **options)
  assert whole == [letters.decode(row) for row in plain]


def test_rows_of_the_table_that_stand_for_no_word_are_never_chosen(drawn):
  spec, letters = MODELS[MAIN], Letters()
  letters.size, letters.eos = 28, None
  said = generate(
    spec, weights(spec), [[5, 9], [7], [3]], tokenizer=letters, max_new_tokens=NEW, **DRAWN
  )
  assert max(map(max, said)) < 28 <= max(map(max, drawn))


def test_the_package_is_callable_as_the_function(drawn):
  import tfm.generate.sampling

  spec = MODELS[MAIN]
  said = tfm.generate(
    spec, weights(spec), PROMPTS, max_new_tokens=NEW, key=jax.random.key(7), run=Run(), **DRAWN
  )
  assert said == drawn
