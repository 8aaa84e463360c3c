"""Generated targets of a split: each example once, with the prompts of training."""

import dataclasses
import json
import math

import pytest

from tests.generate.models import MODELS, weights
from tfm.core.errors import UserError
from tfm.data import Pairs, Text
from tfm.data.tokenizer import Char
from tfm.evaluate import Outputs, evaluate_losses, evaluate_outputs
from tfm.evaluate.outputs import batches, examples, generate_all
from tfm.generate import generate
from tfm.hub.loaded import Loaded
from tfm.tasks import Seq2Seq
from tfm.train import Experiment
from tfm.train.evaluate import evaluate_checkpoint


@pytest.fixture
def data(tmp_path):
  lines = [f'{"ab" * (i % 5 + 1)}\t{"c" * (i + 1)}' for i in range(11)]
  (tmp_path / 'a.tsv').write_text('\n'.join(lines))
  return Pairs(
    files=str(tmp_path / 'a.tsv'), tokenizer=Char(), length=12, target_length=8, batch=4,
    val_every=0, cache=str(tmp_path / 'cache'),
  )  # fmt: skip


def _opened(data, name):
  spec, task = MODELS[name], Seq2Seq(joined=name != 'encdec')
  vocabulary = data.open(task).vocabulary
  x = Experiment(model=spec, data=data, task=task)
  return Loaded(spec, weights(spec), vocabulary, x), x


@pytest.mark.parametrize('name', ['encdec', 'learned'])
def test_outputs_equal_outputs_of_single_prompts(data, name):
  loaded, x = _opened(data, name)
  sources = ['ab', 'abababab', 'ab' * 20, 'b', 'a']
  texts = generate_all(loaded, x, sources)
  v, joined = loaded.tokenizer, x.task.joined
  end = v.special('sep') if joined else v.eos
  start = {} if joined else {'decoder_start': v.pad}
  for source, text in zip(sources, texts, strict=True):
    prompt = [*v.encode(source)[:11].tolist(), end]
    (ids,) = generate(
      loaded.spec, loaded.params, [prompt], tokenizer=v, temperature=0, max_new_tokens=8, **start
    )
    assert text == v.decode(ids)


def test_text_prompts_of_a_learnt_encoder_get_an_end_token(data):
  loaded, x = _opened(data, 'encdec')
  alone = generate_all(loaded, x, ['abab'])
  assert loaded.generate(['abab'], temperature=0, max_new_tokens=8) == alone


def test_each_example_is_scored_once(data, tmp_path):
  loaded, x = _opened(data, 'encdec')
  file = tmp_path / 'out.jsonl'
  found = evaluate_outputs(loaded, x, ['exact_match'], Outputs('train', file=str(file)))
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  pairs = list(data.pairs('train'))
  scored = [(row['source'], *row['references']) for row in rows]
  assert scored == [(pair.source, pair.target) for pair in pairs]
  right = sum(row['output'] == row['references'][0] for row in rows)
  assert found['exact_match'].value == pytest.approx(100 * right / len(pairs))


def test_equal_sources_are_one_example_and_limits_spread(data):
  merged = examples(data, Outputs('train', merge_sources=True))
  assert len(merged) == 5
  assert merged[0].references == ('c', 'c' * 6, 'c' * 11)
  assert [len(e.references[0]) for e in examples(data, Outputs('train', limit=3))] == [1, 4, 8]
  with pytest.raises(UserError, match='val has no pairs'):
    examples(data, Outputs('val'))


def test_batches_have_each_index_in_one_batch():
  found = list(batches([3, 9, 1, 4, 1], 2))
  assert found == [[1, 3], [0, 2], [4, 4]]
  assert list(batches([5], 8)) == [[0]]


def test_metrics_need_pairs(data):
  loaded, x = _opened(data, 'encdec')
  for wrong in (dataclasses.replace(x, data=Text()), Experiment()):
    with pytest.raises(UserError, match=r'Expected --config.data=pairs'):
      evaluate_outputs(loaded, wrong, ['bleu'])
  with pytest.raises(UserError, match='unknown metric'):
    evaluate_outputs(loaded, x, ['blue'])


def test_loss_intervals_surround_the_metrics_of_a_checkpoint(data):
  loaded, _ = _opened(data, 'encdec')
  load = lambda path: loaded
  plain = evaluate_checkpoint('there', 'train', load=load)
  found = evaluate_losses('there', 'train', load=load)
  assert plain.pop('step') == 0
  assert {name: score.value for name, score in found.items()} == pytest.approx(plain, rel=1e-5)
  assert plain['val_perplexity'] == pytest.approx(math.exp(plain['val_loss_nats']))
  for score in found.values():
    assert score.low <= score.value <= score.high
  assert found['val_loss_nats'].low < found['val_loss_nats'].high
