"""A draft makes decoding take fewer passes, and changes neither greedy rows nor the distribution of
drawn ones.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, VOCAB, weights
from tfm.core.errors import UserError
from tfm.generate import MTPDraft, LookupDraft, ModelDraft, decode, speculate
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.absolute.learned import Learned
from tfm.parts.cache import DenseCache, PagedCache, RingCache
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.mixer.attention import Attention
from tfm.parts.mtp import ParallelMTP, SequentialMTP
from tfm.parts.relative.rope import RoPE

generate = functools.partial(decode.generate, run=Run())
stream = functools.partial(decode.stream, run=Run())
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8, 4], [60]]
NEW = 20


@functools.cache
def near(spec, by=0.02):
  """The model itself with its weights moved a little: it agrees with it often, not always."""
  return ModelDraft(spec, _moved(weights(spec), by))


@jax.jit
def _moved(tree, by):
  params, treedef = jax.tree.flatten(tree)
  keys = jax.random.split(jax.random.key(5), len(params))
  moved = [
    a + by * jnp.std(a) * jax.random.normal(k, a.shape) for a, k in zip(params, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, moved)


def say(spec, prompts=PROMPTS, new=NEW, **options):
  start = {} if spec.encoder is None else {'decoder_start': 0}
  return generate(
    spec, weights(spec), prompts, max_new_tokens=new, temperature=0, **start, **options
  )


@pytest.fixture
def passes(monkeypatch):
  """How many passes each call of the compiled loop took."""
  taken = []
  original = speculate.speculative_loop

  def counted(*args, **kwargs):
    state = original(*args, **kwargs)
    taken.append(int(state.passes))
    return state

  monkeypatch.setattr(speculate, 'decode_loop', counted)
  return taken


@pytest.mark.parametrize('name', ['rope_gqa', 't5_shared', 'prefix', 'encdec'])
@pytest.mark.large(when=lambda name: name != 'rope_gqa')
def test_greedy_rows_are_what_they_are_without_a_draft(name, passes):
  spec = MODELS[name]
  plain = say(spec)
  assert say(spec, draft=near(spec)) == plain
  assert (NEW - 1) / 5 < passes[-1] < NEW - 1


@pytest.mark.parametrize('draft_tokens', [1, 3, 7])
def test_a_draft_that_is_right_takes_one_pass_for_all_it_guesses(draft_tokens, passes):
  spec = MODELS['rope_gqa']
  own = ModelDraft(spec, weights(spec))
  assert say(spec, draft=own, draft_tokens=draft_tokens) == say(spec)
  assert passes[-1] == -(-(NEW - 1) // (draft_tokens + 1))


def test_lookup_guesses_what_followed_before(passes):
  spec = MODELS['rope_gqa']
  bias = {'logit_bias': dict.fromkeys((7, 8), 1000.0), 'no_repeat_ngram': 6}
  for options in ({}, bias):
    assert say(spec, draft=LookupDraft(), **options) == say(spec, **options)
  # The model says what it has said: 11 again and again.
  assert say(spec, logit_bias={11: 1000.0}, draft=LookupDraft()) == [[11] * NEW] * 3
  assert passes[-1] <= NEW / 5 + 1


def test_lookup_finds_the_longest_match_then_the_latest_and_goes_round():
  row = jnp.asarray([-1, -1, 1, 2, 3, 9, 2, 3, 8, 1, 2, 3, 0, 0, 0])
  after = lambda end, longest=3, G=4: LookupDraft(longest)._after(row, end, G).tolist()
  assert after(12) == [9, 2, 3, 8]
  assert after(12, longest=2) == [8, 1, 2, 3]
  assert after(12, longest=2, G=6) == [8, 1, 2, 3, 8, 1]
  assert after(9) == [8, 8, 8, 8]


@pytest.mark.parametrize('draft', ['near', 'lookup'])
@pytest.mark.large(when=lambda draft: draft == 'near')
def test_ends_penalties_and_streams_are_the_same_too(draft):
  spec = MODELS['rope_gqa']
  draft = near(spec) if draft == 'near' else LookupDraft()
  options = {
    'repetition_penalty': 1.2,
    'frequency_penalty': 0.3,
    'no_repeat_ngram': 3,
    'min_new_tokens': 3,
  }
  free = say(spec, **options)
  options['eos'] = (free[0][7], free[1][4])
  plain = say(spec, **options)
  assert min(map(len, plain)) < max(map(len, plain))
  assert say(spec, draft=draft, **options) == plain
  steps = stream(
    spec, weights(spec), PROMPTS, max_new_tokens=NEW, temperature=0, draft=draft, **options
  )
  rows = np.stack(list(steps), axis=1).tolist()
  assert [[t for t in row if t >= 0] for row in rows] == plain


@pytest.mark.large
def test_a_drawn_row_does_not_depend_on_its_fellows():
  spec, draft = MODELS['rope_gqa'], near(MODELS['rope_gqa'])
  drawn = {'max_new_tokens': 9, 'temperature': 1.3, 'top_p': 0.9, 'draft': draft}
  keys = jax.random.split(jax.random.key(7), 3)
  together = generate(spec, weights(spec), PROMPTS, key=keys, **drawn)
  for i, prompt in enumerate(PROMPTS):
    assert (
      generate(spec, weights(spec), [prompt], key=keys[i : i + 1], **drawn) == together[i : i + 1]
    )


@pytest.mark.parametrize('cache', [DenseCache(), PagedCache(block=20)], ids=['dense', 'paged'])
@pytest.mark.large
def test_guesses_beyond_the_last_position_harm_nothing(cache):
  spec, run = MODELS['learned'], Run(cache=cache)
  prompts = [[3] * 39, [4]]
  options = {'max_new_tokens': 9, 'temperature': 0}
  plain = generate(spec, weights(spec), prompts, **options)
  assert generate(spec, weights(spec), prompts, run=run, draft=near(spec), **options) == plain
  # A draft whose own table is shorter still: it guesses, and is not believed.
  short = dataclasses.replace(spec, absolute=Learned(40))
  cut = jax.tree.map(lambda a, like: a[: len(like)], weights(spec), transformer.param_shapes(short))
  assert (
    generate(spec, weights(spec), prompts, run=run, draft=ModelDraft(short, cut), **options) == plain
  )
  options = {'max_new_tokens': 9, 'allowed': (3, 5, 11), 'draft': ModelDraft(short, cut), 'run': run}
  assert {t for row in generate(spec, weights(spec), prompts, **options) for t in row} == {3, 5, 11}


LAYER = Segment((Block(Attention(2, relative=RoPE()), Mlp(24)),))
HEADS = {
  'parallel': Model(
    Tokens(VOCAB), 16, (LAYER, LAYER), heads={'lm': Lm(tied=False)}, mtp=ParallelMTP(3)
  ),
  'sequential': Model(
    Tokens(VOCAB), 16, (LAYER, LAYER), heads={'lm': Lm(tied=False)}, mtp=SequentialMTP(2)
  ),
}


@pytest.mark.parametrize('run', [Run(), Run(loop='unroll')], ids=['scan', 'unroll'])
@pytest.mark.parametrize('name', HEADS)
@pytest.mark.large(when=lambda name, run: (name, run.loop) != ('parallel', 'scan'))
def test_heads_for_later_tokens_change_no_greedy_row(name, run):
  spec = HEADS[name]
  say = functools.partial(
    decode.generate, spec, weights(spec), PROMPTS, max_new_tokens=NEW, temperature=0, run=run
  )
  plain = say()
  assert len({token for row in plain for token in row}) > 5
  assert say(draft=MTPDraft()) == plain
  eos = (plain[0][7], plain[1][4])
  assert say(draft=MTPDraft(), draft_tokens=1, eos=eos) == say(eos=eos)


def test_heads_that_are_right_take_one_pass_for_all_they_guess(passes):
  spec = HEADS['parallel']
  assert say(spec, draft=MTPDraft(), logit_bias={7: 1e4}) == [[7] * NEW] * 3
  assert passes[-1] == -(-(NEW - 1) // 4)


def test_heads_draft_what_the_model_looked_ahead_to(monkeypatch):
  # The drafts of each round are those of whole rows read at once, as in training; chained depths
  # remember guesses.
  spec = HEADS['parallel']
  drafted = []
  original = MTPDraft.propose

  def watched(self, *args):
    out = original(self, *args)
    jax.debug.callback(
      lambda d, n: drafted.append((np.asarray(d), np.asarray(n))), out[0], args[4].n_B
    )
    return out

  monkeypatch.setattr(MTPDraft, 'propose', watched)
  rows = np.asarray(
    generate(spec, weights(spec), [[5, 9, 2]], max_new_tokens=12, temperature=0, draft=MTPDraft())
  )
  jax.effects_barrier()
  whole = np.concatenate([[[5, 9, 2]], rows], axis=1).astype(np.int32)
  ahead = jax.jit(lambda p: transformer.apply(spec, p, input_ids=whole, mtp=True)['mtp_logits'])(
    weights(spec)
  )
  assert drafted
  for guess, n in drafted:
    # The last token read stands at place 3 + n - 2; its depth k says the token k + 1 places on.
    assert guess[0].tolist() == [
      int(np.argmax(logits[0, 1 + n[0]])) for logits in map(np.asarray, ahead)
    ]


def test_a_ring_takes_as_many_guesses_as_it_can_be_cut_back_by():
  spec = MODELS['window']
  run = Run(cache=RingCache(margin=5))
  options = {'max_new_tokens': NEW, 'temperature': 0}
  plain = generate(spec, weights(spec), PROMPTS, **options)
  assert generate(spec, weights(spec), PROMPTS, draft=near(spec), run=run, **options) == plain
  with pytest.raises(
    UserError, match=r'the cache can be cut back by fewer than 5 tokens, but the draft guesses 5'
  ):
    generate(spec, weights(spec), PROMPTS, draft=near(spec), draft_tokens=5, run=run, **options)


SMALL = Segment((Block(Attention(2), Mlp(8)),))
TOY = Model(Tokens(6), 8, (SMALL,), heads={'lm': Lm(tied=False)})
TOY_HEADS = Model(Tokens(6), 8, (SMALL, SMALL), heads={'lm': Lm(tied=False)}, mtp=ParallelMTP(2))
KNOBS = {'temperature': 1.4, 'top_k': 5, 'top_p': 0.95}


def exact_pairs(spec, filters):
  """The probabilities [6, 6] of the first two tokens after the prompt 1 2, a pass for each."""
  from tfm.generate.sampling import Sampling, warp

  sampling = Sampling(**filters).sampling_values()
  rows = np.asarray([[1, 2, t] for t in range(6)], np.int32)

  @jax.jit
  def asked(params):
    logits = transformer.apply(spec, params, input_ids=rows)['logits']
    return [jax.nn.softmax(warp(logits[:, i], sampling), axis=-1) for i in (1, 2)]

  first, second = (np.asarray(p, np.float64) for p in asked(weights(spec)))
  return first[0][:, None] * second


@pytest.mark.parametrize('draft', ['near', 'other', 'lookup', 'heads'])
@pytest.mark.large(when=lambda draft: draft != 'near')
def test_the_first_two_tokens_are_distributed_as_without_a_draft(draft):
  spec = TOY_HEADS if draft == 'heads' else TOY
  n, expected = 6000, exact_pairs(spec, KNOBS)
  drafts = {
    'near': lambda: near(TOY, 0.3),
    'other': lambda: ModelDraft(TOY, weights(TOY, seed=9)),
    'lookup': LookupDraft,
    'heads': MTPDraft,
  }
  draft = drafts[draft]()
  # Three tokens: the second may be a draft's or come in its place, and is no end.
  rows = generate(
    spec, weights(spec), [[1, 2]] * n, max_new_tokens=3, draft=draft, draft_tokens=2, **KNOBS
  )
  counts = np.zeros((6, 6))
  for first, second, _ in rows:
    counts[first, second] += 1
  assert counts[expected == 0].sum() == 0
  often = expected * n > 5
  chi2 = np.sum((counts - n * expected)[often] ** 2 / (n * expected)[often])
  # Degrees of freedom plus four standard deviations of a chi-square.
  freedom = often.sum() - 1
  assert freedom > 8
  assert chi2 < freedom + 4 * np.sqrt(2 * freedom), (chi2, freedom)


@pytest.mark.large
def test_a_stop_text_ends_the_same_rows(passes):
  class Digits:
    def encode(self, text):
      return [ord(c) - 48 for c in text]

    def decode(self, ids):
      return ''.join(chr(48 + i) for i in ids)

  spec = MODELS['rope_gqa']
  texts = ['59', '7119', 'l']
  plain = say(spec, texts, tokenizer=Digits())
  stop = plain[0][5:8]
  assert say(spec, texts, tokenizer=Digits(), draft=near(spec), stop=stop) == [
    t.partition(stop)[0] for t in plain
  ]


@pytest.mark.parametrize(
  ('draft', 'options', 'message'),
  [
    (
      LookupDraft(0),
      {},
      'generate: draft: longest=0 is no number of tokens to look up. Expected at least 1',
    ),
    (
      MTPDraft(),
      {},
      'draft: the model predicts the next token only. Expected one with mtp, or another draft',
    ),
    (LookupDraft(), {'draft_tokens': 0}, 'draft_tokens=0 guesses nothing. Expected at least 1'),
    (
      ModelDraft(MODELS['encdec'], {}),
      {},
      'draft: it has an encoder, the model has none. Expected both or neither',
    ),
    (
      ModelDraft(TOY, {}),
      {},
      f'draft: it has a vocabulary of 6, the model one of {VOCAB}. Expected the same tokens',
    ),
  ],
)
def test_mistakes_name_the_expected_value(draft, options, message):
  with pytest.raises(UserError, match=message):
    generate(MODELS['rope_gqa'], {}, [[1]], draft=draft, **options)
