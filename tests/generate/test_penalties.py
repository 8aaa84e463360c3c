"""Biases and penalties do to logits what transformers' processors of the same names do, and nothing
to padding.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, VOCAB, weights
from tfm.core.errors import UserError
from tfm.generate import generate
from tfm.generate.penalties import NOTHING, Penalties, apply_penalties
from tfm.parts.context import Run

V = 12
LOGITS = np.random.default_rng(0).normal(size=(3, V)).astype(np.float32) * 3
#: Two tokens of prompt (the last row has one), then new ones; the 11 at the end has not been said
#: yet.
SAID = np.array([[4, 7, 4, 7, 1, 4, 11], [1, 2, 3, 2, 3, 2, 11], [NOTHING, 5, 5, 5, 0, 5, 11]])
END = 6
jitted = jax.jit(apply_penalties)


def ours(said=SAID, end=END, start=2, **fields):
  said, logits = jnp.asarray(said), jnp.asarray(LOGITS[: len(said)])
  new = jnp.broadcast_to((jnp.arange(said.shape[1]) >= start)[None], said.shape)
  return np.asarray(
    jitted(logits, said, new, jnp.full(len(said), end), Penalties(**fields).penalty_values())
  )


def theirs(name, *args):
  import torch
  from transformers.generation import logits_process

  processor = getattr(logits_process, f'{name}LogitsProcessor')(*args)
  # One row at a time, each without its padding.
  rows = [[t for t in row[:END] if t != NOTHING] for row in SAID.tolist()]
  given = zip(rows, torch.tensor(LOGITS), strict=True)
  return np.concatenate(
    [processor(torch.tensor([row]), scores[None].clone()).numpy() for row, scores in given]
  )


@pytest.mark.oracle
@pytest.mark.parametrize('penalty', [1.3, 0.5])
def test_the_repetition_penalty_is_that_of_transformers(penalty):
  np.testing.assert_allclose(
    ours(repetition_penalty=penalty), theirs('RepetitionPenalty', penalty), rtol=1e-6
  )


@pytest.mark.oracle
@pytest.mark.parametrize('n', [1, 2, 3, 5, 9])
def test_ngrams_are_forbidden_as_in_transformers(n):
  out = ours(no_repeat_ngram=n)
  np.testing.assert_array_equal(out, theirs('NoRepeatNGram', n))
  assert np.isneginf(out).any() == (n < 5)


def test_frequency_is_counted_and_presence_is_not_among_new_tokens():
  taken = LOGITS - ours(frequency_penalty=0.5, presence_penalty=2.0)
  counts = np.stack([np.bincount(row[2:END], minlength=V) for row in SAID])
  np.testing.assert_allclose(taken, 0.5 * counts + 2.0 * (counts > 0), atol=1e-5)


def test_a_row_that_has_nothing_else_left_repeats():
  everything = np.arange(2 * V)[None] % V
  np.testing.assert_array_equal(ours(everything, 2 * V, no_repeat_ngram=1), LOGITS[:1])


PROMPTS, SPEC = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]], MODELS['rope_gqa']


def say(spec=SPEC, **options):
  return generate(
    spec, weights(spec), PROMPTS, max_new_tokens=12, temperature=0, run=Run(), **options
  )


def test_a_constrained_vocabulary_is_all_that_is_said():
  said = say(allowed=(3, 11, 40), logit_bias={40: -np.inf})
  assert {token for row in said for token in row} <= {3, 11}
  assert say(logit_bias={17: 1e6}) == [[17] * 12] * 3


@pytest.mark.parametrize('name', ['rope_gqa', 'encdec'])
def test_no_ngram_is_said_twice_whatever_the_padding(name):
  spec = MODELS[name]
  start = {'decoder_start': 0} if spec.encoder is not None else {}
  befores = [[0]] * 3 if start else PROMPTS
  said = say(spec, no_repeat_ngram=2, logit_bias={7: 20.0, 8: 20.0}, **start)
  for before, row in zip(befores, said, strict=True):
    pairs = list(itertools.pairwise(before + row))
    assert len(set(pairs)) == len(pairs)


def test_penalties_are_taken_step_by_step():
  # Tokens 7 and 8 are far ahead of the rest; each time one is said it falls behind the other.
  said = say(logit_bias={7: 1000.0, 8: 1000.0}, frequency_penalty=100.0)
  assert all(abs(row.count(7) - row.count(8)) <= 1 and set(row) == {7, 8} for row in said)
  once = say(logit_bias={7: 1e4}, presence_penalty=1e5)
  assert all(row[0] == 7 and 7 not in row[1:] for row in once)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'repetition_penalty': 0}, 'repetition_penalty=0 is not one. Expected more than 0: 1 is none'),
    ({'frequency_penalty': np.nan}, 'frequency_penalty=nan is no number to take off a logit'),
    (
      {'no_repeat_ngram': 0},
      'no_repeat_ngram=0 is no number of tokens. Expected at least 1, or None',
    ),
    ({'logit_bias': {3: np.inf}}, r'logit_bias\[3\]=inf cannot be added to a logit'),
    ({'logit_bias': {VOCAB: 1.0}}, 'logit_bias has token 61, outside the vocabulary of 61'),
    ({'allowed': [1, -1]}, 'allowed has token -1, outside the vocabulary of 61'),
    ({'allowed': ()}, 'allowed and logit_bias leave no token to choose. Expected at least one'),
    (
      {'allowed': [3], 'logit_bias': {3: -np.inf}},
      'allowed and logit_bias leave no token to choose',
    ),
    (
      {'allowed': [3], 'eos': 3, 'min_new_tokens': 1},
      'every token left to choose ends a row, but min_new_tokens=1',
    ),
    (
      {'stop': 3},
      'stop=3 is no text to end a row before. Expected a string or several; ids that end a row are '
      'eos',
    ),
    ({'stop': ''}, "stop='' is in every text. Expected at least one character"),
    (
      {'stop': 'END'},
      "stop='END' is text, but there is no tokenizer. Expected tokenizer=, or eos= for token ids",
    ),
  ],
)
def test_mistakes_name_the_expected_value(options, message):
  with pytest.raises(UserError, match=message):
    generate(SPEC, {}, [[1]], **options)
