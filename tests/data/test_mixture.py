import dataclasses
import hashlib

import numpy as np
import pytest

from tests.data.published import vocabulary, word_pieces
from tfm.core import config
from tfm.core.config import from_json, parse, to_json
from tfm.core.errors import UserError
from tfm.data import Data, Mixture, Text
from tfm.data.fixed_vocabulary import FixedVocabulary
from tfm.data.tokenizer import Char
from tfm.tasks import CausalLM, MaskedLM


@pytest.fixture(scope='module')
def mixture(tmp_path_factory):
  """Upper-case and lower-case text, in files of different sizes."""
  root = tmp_path_factory.mktemp('mixture')
  for name, letters, files in (('upper', 'ABCDEFGH', 40), ('lower', 'abcdefgh', 10)):
    (root / name).mkdir()
    for i in range(files):
      (root / name / f'{i:02}.txt').write_text((letters[i % 8] * 3 + letters) * (4 + i % 5))
  parts = tuple(Text(files=str(root / name)) for name in ('upper', 'lower'))
  return Mixture(
    parts=parts,
    names=('upper', 'lower'),
    weights=(2, 1),
    tokenizer=Char(),
    length=16,
    batch=12,
    cache=str(root / 'cache'),
  )


def _digest(raws):
  sha = hashlib.sha256()
  for raw in raws:
    for name in sorted(raw):
      sha.update(name.encode() + raw[name].tobytes())
  return sha.hexdigest()


def _is_upper(corpus, raw):
  """Whether each sequence is from the first part."""
  texts = [corpus.vocabulary.decode(row[row_segments > 0]) for row, row_segments in
           zip(raw['tokens'], raw['segments'], strict=True)]  # fmt: skip
  assert all(text.isupper() or text.islower() for text in texts)
  return np.array([text.isupper() for text in texts])


@pytest.fixture(scope='module')
def opened(mixture):
  return mixture.open(CausalLM())


def test_batches_hold_each_part_in_its_share(opened):
  for step in range(5):
    assert _is_upper(opened, opened.batch('train', 0, step)).sum() == 8


def test_vocabulary_is_learnt_over_all_parts(opened):
  for text in ('ABCH', 'abch'):
    assert opened.vocabulary.decode(opened.vocabulary.encode(text)) == text
  assert opened.vocab == 17  # with the end token


@pytest.mark.parametrize('epochs', [(), (None, 2.0), (1.5, None)])
def test_batches_are_equal_on_all_hosts_and_after_a_restart(mixture, epochs):
  mixture = dataclasses.replace(mixture, epochs=epochs)
  whole = mixture.open(CausalLM())
  expected = [_digest([whole.batch('train', 3, step)]) for step in range(40)]
  assert len(set(expected)) == 40
  for hosts in (2, 4):
    for step in (39, 17, 0):  # in any order: nothing is kept between calls
      n, again = 12 // hosts, mixture.open(CausalLM())
      shares = [again.batch('train', 3, step, slice(h * n, (h + 1) * n)) for h in range(hosts)]
      joined = {k: np.concatenate([s[k] for s in shares]) for k in shares[0]}
      assert _digest([joined]) == expected[step]
  assert _digest([whole.batch('train', 4, 0)]) != expected[0]


def test_part_is_read_for_its_epochs_and_no_longer(mixture):
  corpus = dataclasses.replace(mixture, epochs=(None, 2.0)).open(CausalLM())
  size = corpus.corpora['lower'].size('train')
  seen, step = 0, 0
  while seen < 2 * size:
    seen += int((~_is_upper(corpus, corpus.batch('train', 0, step))).sum())
    step += 1
  assert seen == 2 * size
  assert all(_is_upper(corpus, corpus.batch('train', 0, s)).all() for s in range(step, step + 9))


def test_mixture_without_examples_left_is_an_error(mixture):
  corpus = dataclasses.replace(mixture, epochs=(1.0, 1.0)).open(CausalLM())
  n = sum(c.size('train') for c in corpus.corpora.values())
  corpus.batch('train', 0, n // 12 - 1)
  with pytest.raises(UserError, match=rf'data.epochs: all parts are used up after {n} examples'):
    corpus.batch('train', 0, n // 12 + 1)


@pytest.mark.parametrize('temperature', [1.0, 2.0])
@pytest.mark.parametrize('cap', [None, 20])
def test_shares_follow_size_temperature_and_cap(mixture, temperature, cap):
  mixture = dataclasses.replace(mixture, weights=(), temperature=temperature, cap=cap)
  corpus = mixture.open(CausalLM())
  sizes = [min(c.size('train'), cap or 10**9) for c in corpus.corpora.values()]
  expected = np.array(sizes) ** (1 / temperature)
  part, _ = corpus.interleaving.assign(0, 20_000)
  np.testing.assert_allclose(np.bincount(part) / 20_000, expected / expected.sum(), atol=1e-3)


def test_evaluation_has_every_sequence_of_every_part(opened):
  assert opened.splits == ('train', 'val', 'train:upper', 'train:lower', 'val:upper', 'val:lower')
  both = [raw for name in ('upper', 'lower') for raw in opened.eval_batches(f'val:{name}', 4)]
  assert _digest(opened.eval_batches('val', 4)) == _digest(both)
  assert sum(opened.eval_parts('val', 4).values()) == opened.eval_steps('val', 4) == len(both)
  with pytest.raises(UserError, match=r"unknown split 'val:uper'\. Did you mean 'val:upper'"):
    opened.eval_steps('val:uper', 4)


def test_task_with_special_tokens_reads_a_mixture(mixture):
  task = MaskedLM()
  corpus = mixture.open(task)
  features = task.features(corpus.batch('train', 0, 0), corpus)
  shapes = task.shapes(None, mixture)
  assert {n: (a.shape, a.dtype) for n, a in features.items()} == {
    n: (s.shape, s.dtype) for n, s in shapes.items()
  }
  assert (features['input_ids'] == corpus.vocabulary.mask).any()


def test_mixture_is_written_as_text_and_as_json(mixture):
  text = (
    'mixture(parts=(text(files=a), stdlib), weights=(2, 1), epochs=(none, 1.5), names=(web, code), '
    'packing=none)'
  )
  data = parse(Data, text, 'data')
  assert data.parts[0].files == 'a'
  assert data.packed == 'none'
  assert parse(Data, config.text_of(data), 'data') == data
  assert from_json(Data, to_json(mixture)) == mixture


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ('weights=(1, -1)', 'weights: are (1.0, -1.0). Expected finite numbers of 0 or more.'),
    ('weights=(0, 0)', 'weights: are all 0. Expected a positive weight.'),
    ('weights=(1, 2, 3)', 'weights: has 3 values for 2 parts. Expected 2.'),
    ('weights=(1, 2), cap=5', 'weights: are given, so temperature and cap have no effect.'),
    ('temperature=0', 'temperature: is 0.0. Expected a positive number.'),
    ('cap=0', 'cap: is 0. Expected 1 or more, or none.'),
    ('epochs=(1, 0)', 'epochs: are (1.0, 0.0). Expected positive numbers'),
    ('names=(a, a)', 'names: are a, a for 2 parts. Expected a different name for each part.'),
    ('names=(a, "b:c")', "names: has 'b:c'. Expected a name without colons"),
    ('begin=always', 'begin: is always. Expected auto, and begin of each part.'),
  ],
)
def test_wrong_fields_of_a_mixture_are_errors(fields, message):
  data = parse(Data, f'mixture(parts=(text(files=a), text(files=b)), {fields})', 'data')
  assert any(line.startswith(message) for line in data.check()), list(data.check())


def test_part_with_its_own_length_or_arrays_is_an_error():
  data = parse(Data, 'mixture(parts=(text(files=a, length=5), folders(root=b)))', 'data')
  own, arrays = data.check()
  assert own == 'parts.0.length: is set for one part. Expected length of the mixture.'
  assert arrays.startswith('parts.1: has tokens, segments, positions, labels. Expected tokens')
  (empty,) = Mixture().check()
  assert empty.startswith('parts: is empty. Expected sources')


def test_published_tokenizer_is_shared_by_all_parts(mixture):
  known = vocabulary(word_pieces(), cls='[CLS]', sep='[SEP]', mask='[MASK]', pad='[PAD]')
  corpus = dataclasses.replace(mixture, tokenizer=FixedVocabulary(known)).open(MaskedLM())
  assert corpus.vocabulary.same(known)
  assert all(part.vocabulary.same(known) for part in corpus.corpora.values())
