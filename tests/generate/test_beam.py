"""Beam search finds the best text with enough beams, in every cache and batch."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.generate import LookupDraft, decode
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.cache import TABLE, PagedCache
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.mixer.attention import Attention

V, NEW, END = 5, 3, 2
TOY = Model(Tokens(V), 8, (Segment((Block(Attention(2), Mlp(8)),)),), heads={'lm': Lm(tied=False)})
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]]
generate = functools.partial(decode.generate, temperature=0, run=Run())


@functools.cache
def logp_of_all(prompt):
  """Return log p `[NEW, V]` for every text of NEW tokens after the prompt."""
  texts = list(itertools.product(range(V), repeat=NEW))
  ids = jnp.asarray([[*prompt, *t] for t in texts], jnp.int32)
  logits = jax.jit(lambda ids: transformer.apply(TOY, weights(TOY), input_ids=ids)['logits'])(ids)
  logp = np.asarray(jax.nn.log_softmax(logits, axis=-1), np.float64)[:, len(prompt) - 1 :]
  return dict(zip(texts, logp, strict=True))


def every_text(prompt, length_penalty, ends=lambda text: END in text):
  """Return all texts that end at their first possible end or after NEW tokens, best first."""
  texts = [t for n in range(1, NEW + 1) for t in itertools.product(range(V), repeat=n)]
  texts = [t for t in texts if not ends(t[:-1]) and (ends(t) or len(t) == NEW)]
  logp = logp_of_all(tuple(prompt))
  scores = []
  for text in texts:
    per_token = logp[(*text, *[0] * (NEW - len(text)))]
    total = sum(per_token[j, token] for j, token in enumerate(text))
    scores.append(total / len(text) ** length_penalty)
  order = np.argsort(-np.asarray(scores))
  return [list(texts[i]) for i in order]


@pytest.mark.parametrize('length_penalty', [-2.0, 0.0, 1.0, 3.0])
def test_exhaustive_beams_find_the_best_text(length_penalty):
  prompts = [[1, 4], [3], [0, 0, 2]]
  options = {
    'length_penalty': length_penalty,
    'early_stopping': 'never',
    'eos': END,
    'max_new_tokens': NEW,
  }
  found = generate(TOY, weights(TOY), prompts, beams=V**2, **options)
  assert found == [every_text(p, length_penalty)[0] for p in prompts]


class Letters:
  """A vocabulary of one to three letters per id, with a period of five ids."""

  pieces = ('a', 'b', 'ba', 'cab', 'd')

  def encode(self, text):
    return [self.pieces.index(letter) for letter in text]

  def decode(self, ids):
    return ''.join(self.pieces[i % len(self.pieces)] for i in ids)


@pytest.mark.parametrize('length_penalty', [-2.0, 1.0])
@pytest.mark.parametrize('stop', ['bc', ('ab', 'da'), ('a', 'b', 'd')])
def test_beam_ends_at_a_stop_text(stop, length_penalty):
  prompts = [[1, 4], [3], [0, 0, 2]]
  options = {
    'length_penalty': length_penalty,
    'early_stopping': 'never',
    'max_new_tokens': NEW,
    'stop': stop,
  }
  found = generate(TOY, weights(TOY), prompts, beams=V**2, tokenizer=Letters(), **options)
  stops = (stop,) if isinstance(stop, str) else stop
  ends = lambda ids: any(text in Letters().decode(ids) for text in stops)
  assert found == [every_text(p, length_penalty, ends)[0] for p in prompts]


def test_beam_text_excludes_the_stop_text():
  spec = MODELS['encdec_t5']
  rows = generated(spec)
  assert generated(spec, tokenizer=Letters(), stop='xyz') == rows
  unstopped = [Letters().decode(row) for row in rows]
  first, second = stops = unstopped[0][3:7], unstopped[1][5:7]
  ids = generated(spec, tokenizer=Letters(), stop=stops)
  assert ids != rows
  ended = [Letters().decode(row) for row in ids]
  assert any((first in text) or (second in text) for text in ended)
  prompts = [[0, 1], [4], [1, 1, 0]]
  texts = generated(spec, [Letters().decode(p) for p in prompts], tokenizer=Letters(), stop=stops)
  rows = generated(spec, prompts, tokenizer=Letters(), stop=stops)
  whole = map(Letters().decode, rows)
  assert texts == [
    min(text.partition(first)[0], text.partition(second)[0], key=len) for text in whole
  ]


def generated(spec, prompts=PROMPTS, run=Run(), **options):
  start = {} if spec.encoder is None else {'decoder_start': 0}
  return generate(
    spec, weights(spec), prompts, max_new_tokens=12, beams=3, run=run, **start, **options
  )


@pytest.fixture(scope='module', params=['rope_gqa', 'window', 'encdec_t5'])
def found(request):
  spec = MODELS[request.param]
  return spec, generated(spec)


@pytest.mark.large(when=lambda found: found == 'window')
def test_beams_do_not_depend_on_the_batch(found):
  spec, rows = found
  assert [generated(spec, [p])[0] for p in PROMPTS] == rows
  assert len({token for row in rows for token in row}) > 2


@pytest.mark.parametrize('cache', sorted(set(TABLE) - {'dense', 'int8'}))
@pytest.mark.large(when=lambda found: found == 'window')
def test_beams_are_equal_in_every_cache(found, cache):
  spec, rows = found
  # With blocks of 4 tokens, beams allocate new blocks during the search.
  kind = PagedCache(4) if cache == 'paged' else TABLE[cache]()
  assert generated(spec, run=Run(cache=kind)) == rows


def test_beams_are_equal_with_prepared_parameters(found):
  spec, rows = found
  assert generated(spec, run=Run(loop='unroll')) == rows


def test_beams_apply_penalties_and_allowed_tokens():
  spec = MODELS['rope_gqa']
  rows = generated(spec, allowed=(3, 11, 40), no_repeat_ngram=3, min_new_tokens=4, eos=40)
  for row in rows:
    assert set(row) <= {3, 11, 40}
    assert 40 not in row[:4]
    assert 40 not in row[:-1]
    triples = list(zip(row, row[1:], row[2:], strict=False))
    assert len(set(triples)) == len(triples)


def test_fewer_continuations_than_beams_are_supported():
  assert generated(MODELS['rope_gqa'], allowed=(7,)) == [[7] * 12] * 3


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'beams': 0}, 'beams=0 is too small. Expected at least 1'),
    (
      {'beams': 2, 'temperature': 1.0},
      r'beams=2 cannot be combined with sampling \(temperature=1.0\). Expected temperature=0',
    ),
    (
      {'beams': 2, 'stop': 'a'},
      "stop='a' is text, but there is no tokenizer. Expected tokenizer=, or eos= for token ids",
    ),
    (
      {'beams': 2, 'draft': LookupDraft()},
      'beams=2 does not support a draft. Expected draft=None, or beams=1',
    ),
    (
      {'length_penalty': np.nan},
      'length_penalty=nan is not a finite exponent. Expected a number: 0 for the sum of log p',
    ),
    (
      {'early_stopping': 'often'},
      "early_stopping='often' is unknown. Expected True, False or 'never'",
    ),
  ],
)
def test_invalid_options_name_the_expected_value(options, message):
  with pytest.raises(UserError, match=message):
    generate(TOY, {}, [[1]], **options)


def test_beams_cannot_be_streamed():
  with pytest.raises(UserError, match=r'beams=2 cannot be streamed, .* Expected beams=1'):
    decode.stream(TOY, {}, [[1]], temperature=0, beams=2)
