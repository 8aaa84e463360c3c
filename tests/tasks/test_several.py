import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.published import vocabulary, word_pieces
from tfm.core import config
from tfm.core.config import from_json, parse, to_json
from tfm.data import Data, Folders, SeveralSources, Text
from tfm.data.fixed_vocabulary import FixedVocabulary
from tfm.data.tokenizer import Byte
from tfm.tasks import CausalLM, Classify, MaskedLM, SeveralTasks, SpanCorruption, Task


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  root = tmp_path_factory.mktemp('several')
  for name, n in (('a', 30), ('b', 20)):
    (root / name).mkdir()
    for i in range(n):
      (root / name / f'{i:02}.txt').write_text(
        f'{name}{i} the words of a short text. ' * (3 + i % 4)
      )
  return SeveralSources(
    parts={'lm': Text(files=f'{root}/a', length=24), 'mlm': Text(files=f'{root}/b', length=16)},
    shares={'lm': 3.0},
    tokenizer=Byte(),
    batch=16,
    cache=str(root / 'cache'),
  )  # fmt: skip


TASK = SeveralTasks(parts={'lm': CausalLM(), 'mlm': MaskedLM()}, weights={'mlm': 0.5})


@pytest.fixture(scope='module')
def opened(source):
  return source.open(TASK)


def _digest(raw):
  sha = hashlib.sha256()
  for name in sorted(raw):
    sha.update(name.encode() + raw[name].tobytes())
  return sha.hexdigest()


def test_each_task_has_its_share_of_the_rows(source, opened):
  features = TASK.features(opened.batch('train', 0, 0), opened)
  assert features['lm/input_ids'].shape == (12, 24)
  assert features['mlm/input_ids'].shape == (4, 16)
  shapes, letters = TASK.shapes(None, source), TASK.letters(None, source)
  assert {n: (a.shape, a.dtype) for n, a in features.items()} == {
    n: (s.shape, s.dtype) for n, s in shapes.items()
  }
  assert letters['mlm/labels'] == 'BT'
  assert TASK.per_step(source) == ('tokens', 12 * 24 + 4 * 16)
  assert TASK.sequence_lengths(source) == (24,)


def test_texts_share_one_vocabulary_with_all_special_tokens(opened):
  assert opened.vocabulary.mask is not None
  lm, mlm = opened.datasets['lm'], opened.datasets['mlm']
  assert lm.vocabulary.same(mlm.vocabulary)


@pytest.mark.parametrize('hosts', [2, 4])
def test_batches_are_the_same_on_any_number_of_hosts(source, opened, hosts):
  n, again = 16 // hosts, source.open(TASK)
  for step in (11, 0):
    whole = opened.batch('train', 5, step)
    shares = [again.batch('train', 5, step, slice(h * n, (h + 1) * n)) for h in range(hosts)]
    joined = {k: np.concatenate([s[k] for s in shares]) for k in whole}
    assert _digest(joined) == _digest(whole)


def test_part_has_the_batches_that_it_has_alone(source, opened):
  alone = source.part('lm').open(CausalLM())
  raw = opened.batch('train', 2, 7)
  for name, values in alone.batch('train', 2, 7).items():
    np.testing.assert_array_equal(raw[f'lm/{name}'], values)


def test_evaluation_has_each_example_of_each_part_once(opened):
  batches = list(opened.eval_batches('val', 16))
  assert len(batches) == opened.eval_steps('val', 16)
  for name in ('lm', 'mlm'):
    alone = opened.datasets[name]
    rows = opened.rows[name]
    expected = [raw['tokens'][raw['segments'] > 0] for raw in alone.eval_batches('val', rows)]
    found = [raw[f'{name}/tokens'][raw[f'{name}/segments'] > 0] for raw in batches]
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))
  assert opened.datasets['lm'].eval_steps('val', 12) < len(batches)
  last = TASK.features(batches[-1], opened)
  assert not last['lm/weights'].any()


def test_loss_is_the_weighted_sum_of_mean_losses(opened):
  batch = jax.tree.map(jnp.asarray, TASK.features(opened.batch('train', 0, 0), opened))
  table = jax.random.normal(jax.random.key(0), (opened.vocabulary.size, opened.vocabulary.size))
  forward = lambda input_ids, **_: {'logits': table[input_ids]}
  ratios = TASK.loss(forward, batch, jax.random.key(1))
  value = lambda name: float(ratios[name].sum / ratios[name].weight)
  assert value('loss') == pytest.approx(value('loss/lm') + 0.5 * value('loss/mlm'), rel=1e-6)
  assert 0 <= value('accuracy/mlm') <= 1
  assert value('loss/lm') != value('loss/mlm')
  ratios |= TASK.measures(batch, opened)
  sums = {name: (float(r.sum), float(r.weight)) for name, r in ratios.items()}
  scores = TASK.score(sums)
  assert scores['loss'] == pytest.approx(value('loss'), rel=1e-5)
  # A byte is a token, but end tokens have no bytes.
  assert scores['bits_per_byte/lm'] > scores['loss_nats/lm'] / np.log(2)
  # A split may have no predicted tokens of a task.
  assert TASK.score(sums | {'loss/mlm': (0.0, 0.0)})['loss'] is None


def test_several_is_written_as_text_and_as_json(source):
  text = 'several(parts={lm: causal_lm, mlm: masked_lm(rate=0.3)}, weights={mlm: 2})'
  task = parse(Task, text, 'task')
  assert task.parts['mlm'].rate == 0.3
  assert parse(Task, config.text_of(task), 'task') == task
  assert from_json(Task, to_json(task)) == task
  assert from_json(Data, to_json(source)) == source
  assert hash(source) != hash(dataclasses.replace(source, batch=32))


def test_tasks_must_fit_the_model_and_have_sources(model, source):
  task = SeveralTasks(parts={'lm': CausalLM(), 't5': SpanCorruption()})
  (message,) = task.fits(model())
  assert message.startswith('task.parts.t5: span_corruption needs an encoder-decoder')
  (message,) = task.fits_data(source)
  assert (
    message == 'task: several has the parts lm, t5. Expected data=several with a source for each.'
  )
  classes = SeveralTasks(parts={'lm': CausalLM(), 'mlm': Classify()})
  (message,) = classes.fits_data(source)
  assert message.startswith('task: classify needs labels')


@pytest.mark.parametrize(
  ('task', 'message'),
  [
    ('several', 'parts: is empty. Expected tasks'),
    ('several(parts={lm: causal_lm}, weights={m: 1})', 'weights: m is no part. Expected lm.'),
    ('several(parts={lm: causal_lm}, weights={lm: -1})', 'weights: lm is -1.0. Expected a finite'),
    ('several(parts={lm: causal_lm}, weights={lm: 0})', 'weights: are all 0.'),
    ('several(parts={"a/b": causal_lm})', "parts: has 'a/b'. Expected a name without slashes."),
  ],
)
def test_wrong_fields_of_several_tasks_are_errors(task, message):
  assert any(line.startswith(message) for line in parse(Task, task, 'task').check())


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    ('several', 'parts: is empty. Expected sources'),
    ('several(parts={a: text(batch=3)})', 'parts.a.batch: is set for one part.'),
    ('several(parts={a: text}, shares={b: 1})', 'shares: b is no part. Expected a.'),
    ('several(parts={a: text}, shares={a: 0})', 'shares: a is 0.0. Expected a positive number.'),
    ('several(parts={a: text, b: text, c: text})', 'batch: 16 gives a 5.33333 rows.'),
    ('several(parts={"a/b": text})', "parts: has 'a/b'. Expected a name without slashes."),
  ],
)
def test_wrong_fields_of_several_sources_are_errors(data, message):
  found = list(parse(Data, data, 'data').check())
  assert any(line.startswith(message) for line in found), found


def test_text_with_labels_joins_text_without(tmp_path, source):
  for label in 'xy':
    (tmp_path / label).mkdir()
    for i in range(4):
      (tmp_path / label / f'{i}.txt').write_text('words ' * 4)
  parts = {'lm': source.parts['lm'], 'cls': Folders(root=str(tmp_path), length=8)}
  both = dataclasses.replace(source, parts=parts, shares={})
  task = SeveralTasks(parts={'lm': CausalLM(), 'cls': Classify()})
  assert not list(task.fits_data(both))
  dataset = both.open(task)
  features = task.features(dataset.batch('train', 0, 0), dataset)
  assert features['cls/labels'].shape == (8,)
  assert features['cls/input_ids'].shape == (8, 8)


def test_framed_texts_and_others_share_a_published_tokenizer(tmp_path, source):
  known = vocabulary(word_pieces(), cls='[CLS]', sep='[SEP]', mask='[MASK]', pad='[PAD]')
  for label in 'xy':
    (tmp_path / label).mkdir()
    for i in range(4):
      (tmp_path / label / f'{i}.txt').write_text('the cat sat. ' * 4)
  parts = {'mlm': source.parts['mlm'], 'cls': Folders(root=str(tmp_path), length=8)}
  both = dataclasses.replace(source, parts=parts, shares={}, tokenizer=FixedVocabulary(known))
  dataset = both.open(SeveralTasks(parts={'mlm': MaskedLM(), 'cls': Classify()}))
  assert dataset.vocabulary.same(known)
  assert all(part.vocabulary.same(known) for part in dataset.datasets.values())
