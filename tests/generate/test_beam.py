"""Beams are the best that there are where they are as many as there can be, whatever cache and batch they stand in."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import Lookup, decode
from tfm.model import transformer
from tfm.model.spec import Block, Head, Model, Segment
from tfm.parts.cache import TABLE
from tfm.parts.context import Run
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.mixer.attention import Attention

V, NEW, END = 5, 3, 2
TOY = Model(V, 8, (Segment((Block(Attention(2), Mlp(8)),)),), head=Head(tied=False))
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]]
generate = functools.partial(decode.generate, temperature=0, run=Run())


def every_text(prompt, length_penalty):
  """All texts of up to NEW tokens after the prompt that end with END or at NEW, by what they count, best first."""
  texts = [t for n in range(1, NEW + 1) for t in itertools.product(range(V), repeat=n)]
  texts = [t for t in texts if END not in t[:-1] and (t[-1] == END or len(t) == NEW)]
  padded = [[*prompt, *t, *[0] * (NEW - len(t))] for t in texts]
  logits = transformer.apply(TOY, weights(TOY), input_ids=jnp.asarray(padded, jnp.int32))['logits']
  logp = np.asarray(jax.nn.log_softmax(logits, axis=-1), np.float64)
  at = len(prompt) - 1
  total = [sum(logp[i, at + j, token] for j, token in enumerate(t)) for i, t in enumerate(texts)]
  order = np.argsort([-p / len(t) ** length_penalty for p, t in zip(total, texts, strict=True)])
  return [list(texts[i]) for i in order]


@pytest.mark.parametrize('length_penalty', [-2.0, 0.0, 1.0, 3.0])
def test_as_many_beams_as_there_are_prefixes_find_the_best_text(length_penalty):
  prompts = [[1, 4], [3], [0, 0, 2]]
  options = {'length_penalty': length_penalty, 'early_stopping': 'never', 'eos': END, 'max_new_tokens': NEW}
  found = generate(TOY, weights(TOY), prompts, beams=V**2, **options)
  assert found == [every_text(p, length_penalty)[0] for p in prompts]


def say(spec, prompts=PROMPTS, run=Run(), **options):
  start = {} if spec.encoder is None else {'decoder_start': 0}
  return generate(spec, weights(spec), prompts, max_new_tokens=12, beams=3, run=run, **start, **options)


@pytest.fixture(scope='module', params=['rope_gqa', 'window', 'encdec_t5'])
def found(request):
  spec = MODELS[request.param]
  return spec, say(spec)


def test_a_prompt_is_searched_as_if_alone(found):
  spec, rows = found
  assert [say(spec, [p])[0] for p in PROMPTS] == rows
  assert len({token for row in rows for token in row}) > 2


@pytest.mark.parametrize('cache', sorted(set(TABLE) - {'dense', 'int8'}))
def test_every_cache_follows_its_beams(found, cache):
  spec, rows = found
  assert say(spec, run=Run(cache=TABLE[cache]())) == rows


def test_layers_laid_out_one_by_one_follow_theirs(found):
  spec, rows = found
  assert say(spec, run=Run(loop='unroll')) == rows


def test_beams_obey_penalties_and_a_constrained_vocabulary():
  spec = MODELS['rope_gqa']
  rows = say(spec, allowed=(3, 11, 40), no_repeat_ngram=3, min_new_tokens=4, eos=40)
  for row in rows:
    assert set(row) <= {3, 11, 40}
    assert 40 not in row[:4]
    assert 40 not in row[:-1]
    triples = list(zip(row, row[1:], row[2:], strict=False))
    assert len(set(triples)) == len(triples)


def test_fewer_continuations_than_beams_are_no_trouble():
  assert say(MODELS['rope_gqa'], allowed=(7,)) == [[7] * 12] * 3


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'beams': 0}, 'beams=0 searches nothing. Wanted at least 1'),
    ({'beams': 2, 'temperature': 1.0}, 'beams=2 seek the likeliest text, temperature=1.0 draws. Wanted temperature=0'),
    ({'beams': 2, 'stop': 'a'}, "beams=2 end with a token, not with a text such as stop='a'. Wanted eos, or beams=1"),
    ({'beams': 2, 'draft': Lookup()}, 'beams=2 have no use for a draft. Wanted draft=None, or beams=1'),
    ({'length_penalty': np.nan}, 'length_penalty=nan is no power. Wanted a number: 0 for the sum, 1 for the mean'),
    ({'early_stopping': 'often'}, "early_stopping='often' is not one of True, False, 'never'"),
  ],
)
def test_a_mistake_says_what_was_wanted(options, message):
  with pytest.raises(UserError, match=message):
    generate(TOY, {}, [[1]], **options)


def test_beams_make_no_stream():
  with pytest.raises(UserError, match=r'beams=2 are chosen at the end, no stream. Wanted beams=1'):
    decode.stream(TOY, {}, [[1]], temperature=0, beams=2)
