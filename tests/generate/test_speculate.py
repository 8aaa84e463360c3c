"""Drafts save passes, and change neither greedy tokens nor the sampling distribution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.generate.models import MODELS, VOCAB, weights
from tfm.core.errors import UserError
from tfm.generate import LookupDraft, ModelDraft, MTPDraft, decode, speculate
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
def perturbed(spec, by=0.02):
  """Return a draft with slightly changed weights, which agrees often but not always."""
  return ModelDraft(spec, _add_noise(weights(spec), by))


@jax.jit
def _add_noise(tree, by):
  params, treedef = jax.tree.flatten(tree)
  keys = jax.random.split(jax.random.key(5), len(params))
  noisy = [
    a + by * jnp.std(a) * jax.random.normal(k, a.shape) for a, k in zip(params, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, noisy)


def generated(spec, prompts=PROMPTS, new=NEW, **options):
  start = {} if spec.encoder is None else {'decoder_start': 0}
  return generate(
    spec, weights(spec), prompts, max_new_tokens=new, temperature=0, **start, **options
  )


@pytest.fixture
def passes(monkeypatch):
  """Yield the list of the number of passes after each call of the compiled loop."""
  counts = []
  original = speculate.speculative_loop

  def counted(*args, **kwargs):
    state = original(*args, **kwargs)
    counts.append(int(state.passes))
    return state

  monkeypatch.setattr(speculate, 'speculative_loop', counted)
  return counts


@pytest.mark.parametrize('name', ['rope_gqa', 't5_shared', 'prefix', 'encdec'])
@pytest.mark.large(when=lambda name: name != 'rope_gqa')
def test_draft_keeps_the_greedy_tokens(name, passes):
  spec = MODELS[name]
  plain = generated(spec)
  assert generated(spec, draft=perturbed(spec)) == plain
  assert (NEW - 1) / 5 < passes[-1] < NEW - 1


@pytest.mark.parametrize('draft_tokens', [1, 3, 7])
def test_perfect_draft_takes_one_pass_per_round(draft_tokens, passes):
  spec = MODELS['rope_gqa']
  own = ModelDraft(spec, weights(spec))
  assert generated(spec, draft=own, draft_tokens=draft_tokens) == generated(spec)
  assert passes[-1] == -(-(NEW - 1) // (draft_tokens + 1))


def test_lookup_saves_passes_on_repeated_text(passes):
  spec = MODELS['rope_gqa']
  bias = {'logit_bias': dict.fromkeys((7, 8), 1000.0), 'no_repeat_ngram': 6}
  for options in ({}, bias):
    assert generated(spec, draft=LookupDraft(), **options) == generated(spec, **options)
  # The model repeats token 11.
  assert generated(spec, logit_bias={11: 1000.0}, draft=LookupDraft()) == [[11] * NEW] * 3
  assert passes[-1] <= NEW / 5 + 1


def test_lookup_prefers_the_longest_then_the_latest_match():
  row = jnp.asarray([-1, -1, 1, 2, 3, 9, 2, 3, 8, 1, 2, 3, 0, 0, 0])
  after = lambda end, longest=3, G=4: LookupDraft(longest)._lookup(row, end, G).tolist()
  assert after(12) == [9, 2, 3, 8]
  assert after(12, longest=2) == [8, 1, 2, 3]
  assert after(12, longest=2, G=6) == [8, 1, 2, 3, 8, 1]
  assert after(9) == [8, 8, 8, 8]


@pytest.mark.parametrize('draft', ['perturbed', 'lookup'])
@pytest.mark.large(when=lambda draft: draft == 'perturbed')
def test_drafts_keep_eos_penalties_and_streams(draft):
  spec = MODELS['rope_gqa']
  draft = perturbed(spec) if draft == 'perturbed' else LookupDraft()
  options = {
    'repetition_penalty': 1.2,
    'frequency_penalty': 0.3,
    'no_repeat_ngram': 3,
    'min_new_tokens': 3,
  }
  free = generated(spec, **options)
  options['eos'] = (free[0][7], free[1][4])
  plain = generated(spec, **options)
  assert min(map(len, plain)) < max(map(len, plain))
  assert generated(spec, draft=draft, **options) == plain
  steps = stream(
    spec, weights(spec), PROMPTS, max_new_tokens=NEW, temperature=0, draft=draft, **options
  )
  rows = np.stack(list(steps), axis=1)
  assert [row[row >= 0].tolist() for row in rows] == plain


@pytest.mark.large
def test_sampled_tokens_do_not_depend_on_the_batch():
  spec, draft = MODELS['rope_gqa'], perturbed(MODELS['rope_gqa'])
  options = {'max_new_tokens': 9, 'temperature': 1.3, 'top_p': 0.9, 'draft': draft}
  keys = jax.random.split(jax.random.key(7), 3)
  together = generate(spec, weights(spec), PROMPTS, key=keys, **options)
  for i, prompt in enumerate(PROMPTS):
    assert (
      generate(spec, weights(spec), [prompt], key=keys[i : i + 1], **options) == together[i : i + 1]
    )


@pytest.mark.parametrize('cache', [DenseCache(), PagedCache(block=20)], ids=['dense', 'paged'])
@pytest.mark.large
def test_drafts_beyond_the_position_table_are_rejected(cache):
  spec, run = MODELS['learned'], Run(cache=cache)
  prompts = [[3] * 39, [4]]
  options = {'max_new_tokens': 9, 'temperature': 0}
  plain = generate(spec, weights(spec), prompts, **options)
  assert generate(spec, weights(spec), prompts, run=run, draft=perturbed(spec), **options) == plain
  # The proposals of a draft with a shorter position table are rejected there.
  short = dataclasses.replace(spec, absolute=Learned(40))
  cut = jax.tree.map(
    lambda a, shape: a[: len(shape)], weights(spec), transformer.param_shapes(short)
  )
  assert (
    generate(spec, weights(spec), prompts, run=run, draft=ModelDraft(short, cut), **options)
    == plain
  )
  options = {
    'max_new_tokens': 9,
    'allowed': (3, 5, 11),
    'draft': ModelDraft(short, cut),
    'run': run,
  }
  assert {t for row in generate(spec, weights(spec), prompts, **options) for t in row} == {3, 5, 11}


LAYER = Segment((Block(Attention(2, relative=RoPE()), Mlp(24)),))
MTP_SPECS = {
  'parallel': Model(
    Tokens(VOCAB), 16, (LAYER, LAYER), heads={'lm': Lm(tied=False)}, mtp=ParallelMTP(3)
  ),
  'sequential': Model(
    Tokens(VOCAB), 16, (LAYER, LAYER), heads={'lm': Lm(tied=False)}, mtp=SequentialMTP(2)
  ),
}


@pytest.mark.parametrize('run', [Run(), Run(loop='unroll')], ids=['scan', 'unroll'])
@pytest.mark.parametrize('name', MTP_SPECS)
@pytest.mark.large(when=lambda name, run: (name, run.loop) != ('parallel', 'scan'))
def test_mtp_draft_keeps_the_greedy_tokens(name, run):
  spec = MTP_SPECS[name]
  generated = functools.partial(
    decode.generate, spec, weights(spec), PROMPTS, max_new_tokens=NEW, temperature=0, run=run
  )
  plain = generated()
  assert len({token for row in plain for token in row}) > 5
  assert generated(draft=MTPDraft()) == plain
  eos = (plain[0][7], plain[1][4])
  assert generated(draft=MTPDraft(), draft_tokens=1, eos=eos) == generated(eos=eos)


def test_perfect_mtp_draft_takes_one_pass_per_round(passes):
  spec = MTP_SPECS['parallel']
  assert generated(spec, draft=MTPDraft(), logit_bias={7: 1e4}) == [[7] * NEW] * 3
  assert passes[-1] == -(-(NEW - 1) // 4)


def test_mtp_drafts_equal_the_mtp_logits_of_training(monkeypatch):
  # Drafts equal the result of one pass over the whole sequence, as in training. Chained depths are
  # excluded, since their caches depend on drafted tokens.
  spec = MTP_SPECS['parallel']
  drafted = []
  original = MTPDraft.propose

  def record(self, *args):
    out = original(self, *args)
    jax.debug.callback(
      lambda d, n: drafted.append((np.asarray(d), np.asarray(n))), out[0], args[4].n_B
    )
    return out

  monkeypatch.setattr(MTPDraft, 'propose', record)
  rows = np.asarray(
    generate(spec, weights(spec), [[5, 9, 2]], max_new_tokens=12, temperature=0, draft=MTPDraft())
  )
  jax.effects_barrier()
  whole = np.concatenate([[[5, 9, 2]], rows], axis=1).astype(np.int32)
  ahead = jax.jit(lambda p: transformer.apply(spec, p, input_ids=whole, mtp=True)['mtp_logits'])(
    weights(spec)
  )
  assert drafted
  for tokens, n in drafted:
    # The last token computed is at index 3 + n - 2; depth k predicts the token k + 1 places later.
    assert tokens[0].tolist() == [
      int(np.argmax(logits[0, 1 + n[0]])) for logits in map(np.asarray, ahead)
    ]


def test_ring_limits_the_draft_length():
  spec = MODELS['window']
  run = Run(cache=RingCache(margin=5))
  options = {'max_new_tokens': NEW, 'temperature': 0}
  plain = generate(spec, weights(spec), PROMPTS, **options)
  assert generate(spec, weights(spec), PROMPTS, draft=perturbed(spec), run=run, **options) == plain
  with pytest.raises(
    UserError, match=r'the draft proposes 5 tokens, but the cache can be rewound by fewer than 5'
  ):
    generate(
      spec, weights(spec), PROMPTS, draft=perturbed(spec), draft_tokens=5, run=run, **options
    )


SMALL = Segment((Block(Attention(2), Mlp(8)),))
TOY = Model(Tokens(6), 8, (SMALL,), heads={'lm': Lm(tied=False)})
TOY_MTP = Model(Tokens(6), 8, (SMALL, SMALL), heads={'lm': Lm(tied=False)}, mtp=ParallelMTP(2))
FILTERS = {'temperature': 1.4, 'top_k': 5, 'top_p': 0.95}


def exact_pairs(spec, filters):
  """Return the probabilities [6, 6] of the first two tokens after the prompt 1 2."""
  from tfm.generate.sampling import Sampling, warp

  sampling = Sampling(**filters).sampling_values()
  rows = np.asarray([[1, 2, t] for t in range(6)], np.int32)

  @jax.jit
  def pairs(params):
    logits = transformer.apply(spec, params, input_ids=rows)['logits']
    return [jax.nn.softmax(warp(logits[:, i], sampling), axis=-1) for i in (1, 2)]

  first, second = (np.asarray(p, np.float64) for p in pairs(weights(spec)))
  return first[0][:, None] * second


@pytest.mark.parametrize('draft', ['perturbed', 'other', 'lookup', 'mtp'])
@pytest.mark.large(when=lambda draft: draft != 'perturbed')
def test_drafts_keep_the_distribution_of_two_tokens(draft):
  spec = TOY_MTP if draft == 'mtp' else TOY
  n, expected = 6000, exact_pairs(spec, FILTERS)
  drafts = {
    'perturbed': lambda: perturbed(TOY, 0.3),
    'other': lambda: ModelDraft(TOY, weights(TOY, seed=9)),
    'lookup': LookupDraft,
    'mtp': MTPDraft,
  }
  draft = drafts[draft]()
  # With three tokens, the second may be drafted or resampled, and does not end the sequence.
  rows = generate(
    spec, weights(spec), [[1, 2]] * n, max_new_tokens=3, draft=draft, draft_tokens=2, **FILTERS
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
def test_drafts_keep_stop_texts(passes):
  class Digits:
    def encode(self, text):
      return [ord(c) - 48 for c in text]

    def decode(self, ids):
      return ''.join(chr(48 + i) for i in ids)

  spec = MODELS['rope_gqa']
  texts = ['59', '7119', 'l']
  plain = generated(spec, texts, tokenizer=Digits())
  stop = plain[0][5:8]
  assert generated(spec, texts, tokenizer=Digits(), draft=perturbed(spec), stop=stop) == [
    t.partition(stop)[0] for t in plain
  ]


@pytest.mark.parametrize(
  ('draft', 'options', 'message'),
  [
    (
      LookupDraft(0),
      {},
      'generate: draft: longest=0 is too small. Expected at least 1',
    ),
    (
      MTPDraft(),
      {},
      'draft: the model has no mtp. Expected a model with mtp, or another draft',
    ),
    (LookupDraft(), {'draft_tokens': 0}, 'draft_tokens=0 is too small. Expected at least 1'),
    (
      ModelDraft(MODELS['encdec'], {}),
      {},
      'draft: the draft has an encoder, but the model has none. Expected both or neither',
    ),
    (
      ModelDraft(TOY, {}),
      {},
      rf'draft: vocabularies differ \(draft 6, model {VOCAB}\). Expected the same tokens',
    ),
  ],
)
def test_unsupported_drafts_name_the_expected_value(draft, options, message):
  with pytest.raises(UserError, match=message):
    generate(MODELS['rope_gqa'], {}, [[1]], draft=draft, **options)
