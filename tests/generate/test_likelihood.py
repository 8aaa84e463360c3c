"""Log-probabilities of given texts, and ranked choices."""

import functools

import jax
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import generate, log_likelihoods, rank
from tfm.model.transformer import apply

PAIRS = [([3, 4, 5], [6, 7]), ([9], [1, 2, 3]), (list(range(20)), [8])]


class Letters:
  """One id a letter, and 'XY' is one token."""

  eos = None

  def encode(self, text):
    return [min(ord(c) - 60, 60) for c in text.replace('XY', '|')]

  def decode(self, ids):
    return ''.join(chr(60 + i) for i in ids)


def _direct(spec, context, continuation):
  """Return log p and greediness of a continuation by one pass without padding."""
  if spec.encoder is not None:
    inputs = {'input_ids': [context], 'decoder_input_ids': [[0, *continuation[:-1]]]}
    at = 0
  else:
    inputs, at = {'input_ids': [[*context, *continuation]]}, len(context) - 1
    if spec.reads_prefix:
      inputs['prefix_mask'] = [[1] * len(context) + [0] * len(continuation)]
  arrays = {name: np.array(value, np.int32) for name, value in inputs.items()}
  forward = jax.jit(functools.partial(apply, spec))
  logits = np.asarray(forward(weights(spec), **arrays)['logits'][0], np.float64)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  rows = range(at, at + len(continuation))
  total = sum(log_p[row, token] for row, token in zip(rows, continuation, strict=True))
  return total, all(log_p[row].argmax() == t for row, t in zip(rows, continuation, strict=True))


@pytest.mark.parametrize('name', ['rope_gqa', 'prefix', 'encdec'])
def test_batched_likelihoods_equal_direct_ones(name):
  spec = MODELS[name]
  start = 0 if name == 'encdec' else None
  found = log_likelihoods(spec, weights(spec), PAIRS, batch=2, decoder_start=start)
  for (context, continuation), (log_prob, greedy) in zip(PAIRS, found, strict=True):
    expected = _direct(spec, context, continuation)
    assert log_prob == pytest.approx(expected[0], rel=1e-5)
    assert greedy == expected[1]
  if name == 'rope_gqa':
    (best,) = generate(spec, weights(spec), [[3, 4, 5]], temperature=0, max_new_tokens=3)
    assert log_likelihoods(spec, weights(spec), [([3, 4, 5], best)], batch=2)[0].greedy


def test_rank_normalises_by_tokens_or_bytes():
  spec, choices = MODELS['rope_gqa'], [['A', 'XYé', 'BCD'], ['AB']]
  call = lambda how: rank(spec, weights(spec), ['ab', 'c'], choices, Letters(), how, batch=4)
  plain, tokens, size = call('none'), call('tokens'), call('bytes')
  assert plain[0].scores == plain[0].log_probs == tokens[0].log_probs
  np.testing.assert_allclose(tokens[0].scores, np.array(plain[0].log_probs) / [1, 2, 3])
  np.testing.assert_allclose(size[0].scores, np.array(plain[0].log_probs) / [1, 4, 3])
  for ranked in (*plain, *tokens, *size):
    assert ranked.best == int(np.argmax(ranked.scores))
  same = rank(spec, weights(spec), [[37, 38]], [[[5]]], batch=4)
  assert same[0].log_probs == plain[0].log_probs[:1]


def test_prompt_tokens_that_change_belong_to_the_choice():
  spec = MODELS['rope_gqa']
  (merged,) = rank(spec, weights(spec), ['aX'], [['Y']], Letters(), batch=4)
  context, continuation = [37], [60]
  assert merged.log_probs[0] == pytest.approx(_direct(spec, context, continuation)[0], rel=1e-5)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((['a'], []), '0 lists of choices for 1 prompts'),
    ((['a'], [[]]), 'at least one choice'),
    (([[1]], [['a']]), 'is text, but prompt 0 has token ids'),
    ((['a'], [['b']], Letters(), 'token'), "unknown normalise 'token'. Did you mean 'tokens'"),
    (([[1]], [[[2]]], None, 'bytes'), "'bytes' needs texts"),
    (([[1] * 50], [[[2]]]), 'has 50 tokens, but the position table has 48'),
  ],
)
def test_wrong_choices_are_errors(arguments, message):
  spec = MODELS['learned']
  with pytest.raises(UserError, match=message):
    rank(spec, weights(spec), *arguments)
  with pytest.raises(UserError, match='decoder_start is missing'):
    log_likelihoods(MODELS['encdec'], weights(MODELS['encdec']), PAIRS)
