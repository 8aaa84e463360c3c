"""Biases and penalties equal the logits processors of transformers, and ignore padding."""

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
#: Two prompt tokens (one in the last row), then new ones. The 11 is beyond the end.
TOKENS = np.array([[4, 7, 4, 7, 1, 4, 11], [1, 2, 3, 2, 3, 2, 11], [NOTHING, 5, 5, 5, 0, 5, 11]])
END = 6
jitted = jax.jit(apply_penalties)


def ours(tokens=TOKENS, end=END, start=2, **fields):
  tokens, logits = jnp.asarray(tokens), jnp.asarray(LOGITS[: len(tokens)])
  new = jnp.broadcast_to((jnp.arange(tokens.shape[1]) >= start)[None], tokens.shape)
  return np.asarray(
    jitted(logits, tokens, new, jnp.full(len(tokens), end), Penalties(**fields).penalty_values())
  )


def theirs(name, *args):
  import torch
  from transformers.generation import logits_process

  processor = getattr(logits_process, f'{name}LogitsProcessor')(*args)
  # One sequence at a time, each without its padding.
  rows = [row[:END][row[:END] != NOTHING].tolist() for row in TOKENS]
  given = zip(rows, torch.tensor(LOGITS), strict=True)
  return np.concatenate(
    [processor(torch.tensor([row]), scores[None].clone()).numpy() for row, scores in given]
  )


@pytest.mark.oracle
@pytest.mark.parametrize('penalty', [1.3, 0.5])
def test_repetition_penalty_equals_transformers(penalty):
  np.testing.assert_allclose(
    ours(repetition_penalty=penalty), theirs('RepetitionPenalty', penalty), rtol=1e-6
  )


@pytest.mark.oracle
@pytest.mark.parametrize('n', [1, 2, 3, 5, 9])
def test_no_repeat_ngram_equals_transformers(n):
  out = ours(no_repeat_ngram=n)
  np.testing.assert_array_equal(out, theirs('NoRepeatNGram', n))
  assert np.isneginf(out).any() == (n < 5)


def test_frequency_and_presence_count_new_tokens_only():
  subtracted = LOGITS - ours(frequency_penalty=0.5, presence_penalty=2.0)
  counts = np.stack([np.bincount(row[2:END], minlength=V) for row in TOKENS])
  np.testing.assert_allclose(subtracted, 0.5 * counts + 2.0 * (counts > 0), atol=1e-5)


def test_ngram_may_repeat_if_no_other_token_is_left():
  everything = np.arange(2 * V)[None] % V
  np.testing.assert_array_equal(ours(everything, 2 * V, no_repeat_ngram=1), LOGITS[:1])


PROMPTS, SPEC = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]], MODELS['rope_gqa']


def generated(spec=SPEC, **options):
  return generate(
    spec, weights(spec), PROMPTS, max_new_tokens=12, temperature=0, run=Run(), **options
  )


def test_only_allowed_tokens_are_generated():
  tokens = generated(allowed=(3, 11, 40), logit_bias={40: -np.inf})
  assert {token for row in tokens for token in row} <= {3, 11}
  assert generated(logit_bias={17: 1e6}) == [[17] * 12] * 3


@pytest.mark.parametrize('name', ['rope_gqa', 'encdec'])
def test_no_ngram_repeats_with_padding(name):
  spec = MODELS[name]
  start = {'decoder_start': 0} if spec.encoder is not None else {}
  befores = [[0]] * 3 if start else PROMPTS
  tokens = generated(spec, no_repeat_ngram=2, logit_bias={7: 20.0, 8: 20.0}, **start)
  for before, row in zip(befores, tokens, strict=True):
    pairs = list(itertools.pairwise(before + row))
    assert len(set(pairs)) == len(pairs)


def test_penalties_are_applied_at_each_step():
  # Tokens 7 and 8 dominate; each occurrence lowers one below the other.
  tokens = generated(logit_bias={7: 1000.0, 8: 1000.0}, frequency_penalty=100.0)
  assert all(abs(row.count(7) - row.count(8)) <= 1 and set(row) == {7, 8} for row in tokens)
  once = generated(logit_bias={7: 1e4}, presence_penalty=1e5)
  assert all(row[0] == 7 and 7 not in row[1:] for row in once)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (
      {'repetition_penalty': 0},
      'repetition_penalty=0 is out of range. Expected more than 0: 1 for none',
    ),
    (
      {'frequency_penalty': np.nan},
      'frequency_penalty=nan is not finite. Expected a number, 0 for none',
    ),
    (
      {'no_repeat_ngram': 0},
      'no_repeat_ngram=0 is too small. Expected at least 1, or None',
    ),
    ({'logit_bias': {3: np.inf}}, r'logit_bias\[3\]=inf is not a bias. Expected a number, or -inf'),
    ({'logit_bias': {VOCAB: 1.0}}, 'logit_bias has token 61, outside the vocabulary of 61'),
    ({'allowed': [1, -1]}, 'allowed has token -1, outside the vocabulary of 61'),
    ({'allowed': ()}, 'allowed and logit_bias forbid every token. Expected at least one'),
    (
      {'allowed': [3], 'logit_bias': {3: -np.inf}},
      'allowed and logit_bias forbid every token',
    ),
    (
      {'allowed': [3], 'eos': 3, 'min_new_tokens': 1},
      'every allowed token ends the sequence, but min_new_tokens=1',
    ),
    (
      {'stop': 3},
      'stop=3 is not text. Expected one or more strings; use eos for token ids',
    ),
    ({'stop': ''}, "stop='' is empty. Expected at least one character"),
    (
      {'stop': 'END'},
      "stop='END' is text, but there is no tokenizer. Expected tokenizer=, or eos= for token ids",
    ),
  ],
)
def test_invalid_options_name_the_expected_value(options, message):
  with pytest.raises(UserError, match=message):
    generate(SPEC, weights(SPEC), [[1]], **options)
