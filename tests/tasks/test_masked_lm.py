import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.tokenizer.folders import SLOW
from tfm import hub
from tfm.core.errors import UserError
from tfm.data import Mixture
from tfm.data.framing import Framing
from tfm.data.tokenizer import Byte, File
from tfm.data.words import word_bounds, word_numbers
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.classify import Classify
from tfm.tasks import MaskedLM, mean, next_sentence


@pytest.fixture(scope='module')
def corpus(data):
  return data.open(MaskedLM())


@pytest.fixture(scope='module')
def batches(corpus):
  task = MaskedLM()
  made = [task.features(corpus.batch('train', 0, step), corpus) for step in range(60)]
  return {k: np.concatenate([b[k] for b in made]) for k in made[0]}


def _within_four_errors(hits, n, rate):
  return abs(hits - n * rate) < 4 * (n * rate * (1 - rate)) ** 0.5


def test_fifteen_percent_of_tokens_are_chosen(corpus, batches):
  ordinary = ~corpus.vocabulary.is_special[batches['labels']]
  assert _within_four_errors(batches['weights'].sum(), ordinary.sum(), 0.15)


def test_chosen_tokens_are_masked_random_or_kept(corpus, batches):
  chosen = batches['weights'] > 0
  inputs, labels = batches['input_ids'][chosen], batches['labels'][chosen]
  n, V = chosen.sum(), corpus.vocabulary.base
  assert _within_four_errors((inputs == corpus.vocabulary.mask).sum(), n, 0.8)
  assert _within_four_errors((inputs == labels).sum(), n, 0.1 + 0.1 / V)
  assert _within_four_errors(
    ((inputs != labels) & (inputs != corpus.vocabulary.mask)).sum(), n, 0.1 * (V - 1) / V
  )


def test_specials_are_neither_chosen_nor_drawn(corpus, batches):
  special = corpus.vocabulary.is_special
  assert special[batches['labels']].any()
  assert not batches['weights'][special[batches['labels']]].any()
  unmasked = batches['input_ids'] != corpus.vocabulary.mask
  assert not special[batches['input_ids'][(batches['weights'] > 0) & unmasked]].any()


def test_other_tokens_are_unchanged(batches):
  rest = batches['weights'] == 0
  np.testing.assert_array_equal(batches['input_ids'][rest], batches['labels'][rest])


def test_masks_are_redrawn_each_epoch(corpus):
  task = MaskedLM()
  raw = corpus.batch('train', 0, 0)
  again = {**raw, 'key': corpus.batch('train', 0, 1000)['key']}
  a, b = (task.features(r, corpus)['weights'] for r in (raw, again))
  assert (a != b).any()


def test_isolated_documents_have_their_own_positions(data):
  task = MaskedLM()
  corpus = dataclasses.replace(data, isolate=True).open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert {'segment_ids', 'position_ids'} <= set(batch)


def test_masked_lm_needs_a_single_tower(model):
  assert not list(MaskedLM().fits(model(causal=False)))
  assert 'masked_lm needs a single tower' in next(MaskedLM().fits(model(encoder=object())))


def test_impossible_shares_are_an_error():
  assert list(MaskedLM(rate=0.0, masked=0.9, random=0.2).check()) == [
    'rate: is 0.0. Expected a share above 0, at most 1.',
    'masked, random: are 0.9 and 0.2. Expected two shares that add up to at most 1.',
  ]


@pytest.fixture(scope='module')
def whole(corpus):
  """Word numbers and chosen tokens of 60 batches with whole-word masking."""
  task, bounds = MaskedLM(whole_word=True), word_bounds(corpus.vocabulary)
  words, chosen, special = [], [], corpus.vocabulary.is_special
  for step in range(60):
    raw = corpus.batch('train', 0, step)
    words.append(word_numbers(raw['tokens'], raw['segments'], bounds))
    chosen.append(task.features(raw, corpus)['weights'] > 0)
    words[-1] = np.where(special[raw['tokens']], -1, words[-1])
  return np.concatenate(words), np.concatenate(chosen)


def test_fifteen_percent_of_words_are_chosen_whole(whole):
  words, chosen = whole
  hits = total = 0
  for row_words, row_chosen in zip(words, chosen, strict=True):
    size = np.bincount(row_words[row_words >= 0], minlength=64)
    count = np.bincount(row_words[row_chosen], minlength=64)
    assert ((count == 0) | (count == size)).all()
    hits, total = hits + (count > 0).sum(), total + (size > 0).sum()
  assert _within_four_errors(hits, total, 0.15)
  assert not chosen[words < 0].any()


@pytest.mark.parametrize(
  ('folder', 'starts'),
  [
    ('bert', 'the quick brown fox , ju over la .'),
    ('bart', 'The quick brown fox ju over laz'),
    ('barthez', 'T qu b f j o l'),
  ],
)
def test_words_follow_the_marks_of_the_tokenizer(tmp_path, folder, starts):
  SLOW[folder](tmp_path)
  vocabulary = File(str(tmp_path)).fixed()
  tokens = vocabulary.encode('The quick brown foxes, jumping over lazily.')[None]
  numbers = word_numbers(tokens, np.ones_like(tokens), word_bounds(vocabulary))[0]
  found = []
  for word in range(numbers.max() + 1):
    pieces = (vocabulary.decode([i]).strip() for i in tokens[0, numbers == word])
    found.append(next(piece for piece in pieces if piece))
  assert ' '.join(found) == starts


def test_words_need_marks_of_the_tokenizer(corpus):
  plain = types.SimpleNamespace(size=3, token_bytes=lambda: None, is_special=np.zeros(3, bool))
  with pytest.raises(UserError, match='whole_word: the tokens have no marks of words'):
    word_bounds.__wrapped__(plain)


def _repeated(corpus, task):
  """Return the features of one sequence in two epochs of training, and their raw batches."""
  size, by_text = corpus.size('train'), {}
  for step in range(2 * size // 32 + 2):
    raw = corpus.batch('train', 0, step)
    out = task.features(raw, corpus)
    for row, sample in enumerate(raw['sample']):
      text = raw['tokens'][row].tobytes()
      by_text.setdefault(text, {})[int(sample) // size] = out['input_ids'][row]
  return [epochs for epochs in by_text.values() if {0, 1} <= epochs.keys()]


def test_static_masks_are_equal_in_every_epoch(data):
  task = MaskedLM(static=True)
  corpus = data.open(task)
  pairs = _repeated(corpus, task)
  assert len(pairs) > corpus.size('train') // 2
  assert all(np.array_equal(epochs[0], epochs[1]) for epochs in pairs)
  dynamic = _repeated(corpus, MaskedLM())
  assert not any(np.array_equal(epochs[0], epochs[1]) for epochs in dynamic)


@pytest.fixture(scope='module')
def paired(data):
  task = MaskedLM(next_sentence=True)
  corpus = data.open(task)
  made = []
  for step in range(40):
    raw = corpus.batch('train', 0, step)
    made.append(task.features(raw, corpus) | {'tokens': raw['tokens']})
  return corpus, {k: np.concatenate([b[k] for b in made]) for k in made[0]}


def test_half_of_the_second_texts_follow_the_first(paired):
  corpus, batch = paired
  random = batch['next_sentence_label'] == 1
  assert _within_four_errors(random.sum(), len(random), 0.5)
  begin, separator = corpus.vocabulary.special('cls'), corpus.vocabulary.eos
  lengths = []
  for row, labels in enumerate(batch['labels']):
    kinds = batch['token_type_ids'][row]
    first, second = labels[kinds == 0], labels[kinds == 1]
    assert (first[0], first[-1], second[-1]) == (begin, separator, separator)
    text = batch['tokens'][row]
    assert first[1:-1].tolist() == text[: len(first) - 2].tolist()
    follows = second[:-1].tolist() == text[len(first) - 2 :].tolist()
    assert follows or random[row]
    lengths.append(len(first) - 2)
  assert min(lengths) == 1
  assert max(lengths) == 60
  assert not batch['weights'][np.isin(batch['labels'], [begin, separator])].any()


def test_short_and_padding_sequences_of_pairs_are_valid(data):
  task = MaskedLM(next_sentence=True)
  corpus = data.open(task)
  for raw in corpus.eval_batches('val', 64):
    out = task.features(raw, corpus)
    size = (raw['segments'] > 0).sum(1)
    np.testing.assert_array_equal(out['segment_ids'].sum(1), np.where(size, size + 3, 0))
    assert not out['labels'][out['segment_ids'] == 0].any()


def test_next_sentence_needs_its_head_types_and_a_stream(data):
  task = MaskedLM(next_sentence=True)
  head = {'classify': Classify(2)}
  assert not list(task.fits(Model(Tokens(8, types=2)).with_heads(**head)))
  lacking = list(task.fits(Model(Tokens(8))))
  assert 'needs a head that classifies pairs' in lacking[0]
  assert 'needs two token types, and the model has 0' in lacking[1]
  isolate, short = task.fits_data(dataclasses.replace(data, isolate=True, length=4))
  assert 'data.isolate: is True, but a pair has text of two places' in isolate
  assert 'data.length: is 4, too short for two texts' in short


def test_next_sentence_needs_one_token_around_texts(paired):
  task, (corpus, _) = MaskedLM(next_sentence=True, whole_word=True), paired
  assert not list(task.suits(Model(Tokens(999)), corpus))
  framed = types.SimpleNamespace(frame=Framing((1, 2), ()))
  (message,) = next_sentence.suits(framed)
  assert 'puts [1, 2] before a text and [] after it' in message


def test_empty_mask_has_no_loss_and_is_counted():
  segments = jnp.array([[1, 1], [1, 1], [0, 0]])
  batch = {
    'input_ids': jnp.zeros((3, 2), int),
    'labels': jnp.zeros((3, 2), int),
    'segment_ids': segments,
  }
  loss = lambda weights: MaskedLM().loss(
    lambda **inputs: {'logits': jnp.zeros((3, 2, 5))},
    batch | {'weights': jnp.array(weights)},
    jax.random.key(0),
  )
  none = loss([[0.0, 0], [0, 0], [0, 0]])
  assert mean(*none['loss']) == 0
  assert tuple(map(float, none['unmasked'])) == (2, 2)
  one = loss([[0.0, 1], [0, 0], [0, 0]])
  assert float(mean(*one['loss'])) == pytest.approx(np.log(5))
  assert tuple(map(float, one['unmasked'])) == (1, 2)


@pytest.mark.oracle
def test_next_sentence_loss_matches_bert_for_pretraining(tmp_path, data):
  import torch
  import transformers

  torch.manual_seed(0)
  config = transformers.BertConfig(
    vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    intermediate_size=32, max_position_embeddings=64,
  )  # fmt: skip
  theirs = transformers.BertForPreTraining(config).eval()
  theirs.save_pretrained(tmp_path)
  ours = hub.load(tmp_path)
  task = MaskedLM(next_sentence=True)
  corpus = dataclasses.replace(data, tokenizer=Byte(), batch=4).open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  forward = lambda **inputs: transformer.apply(
    ours.spec, ours.params, **{k: v for k, v in inputs.items() if k in batch}
  )
  ratios = jax.jit(lambda batch: task.loss(forward, batch, None))(jax.tree.map(jnp.asarray, batch))
  tensor = lambda name: torch.tensor(batch[name]).long()
  labels = torch.where(torch.tensor(batch['weights']) > 0, tensor('labels'), -100)
  expected = theirs(
    input_ids=tensor('input_ids'), attention_mask=tensor('segment_ids'),
    token_type_ids=tensor('token_type_ids'), labels=labels,
    next_sentence_label=tensor('next_sentence_label'),
  )  # fmt: skip
  assert float(mean(*ratios['loss'])) == pytest.approx(expected.loss.item(), rel=1e-5)
  sums = {name: (float(r.sum), float(r.weight)) for name, r in ratios.items()}
  scores = task.score(sums | {'bytes': (1.0, 1.0)})
  assert {'loss_nats', 'next_sentence_nats', 'next_sentence_accuracy'} <= set(scores)


def test_static_mixtures_keep_the_windows_of_every_part(data):
  corpus = Mixture(parts=(data, data), length=64, batch=8, cache=data.cache).open(
    MaskedLM(static=True)
  )
  assert not any(part.shifts for part in corpus.corpora.values())
