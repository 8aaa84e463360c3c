import json

import pytest

from tfm.cli import main
from tfm.core import config
from tfm.model.spec import Model

MODEL = """
import dataclasses
from tfm.core.precision import Precision
from tfm.parts.embed.tokens import Tokens
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.mixer.attention import Attention

@dataclasses.dataclass(frozen=True)
class Data:
  length: int = 48

@dataclasses.dataclass(frozen=True)
class Experiment:
  model: Model
  data: Data = Data()
  precision: Precision = Precision()

def get_config(kind='experiment'):
  model = Model(Tokens(64), 16, (Segment((Block(Attention(2), Glu(32)),), 3),))
  return Experiment(model) if kind == 'experiment' else model
"""


@pytest.fixture
def model(tmp_path):
  path = tmp_path / 'small.py'
  path.write_text(MODEL)
  return path


def show(capsys, *words):
  assert main.run(['show', *map(str, words)]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def lines(out):
  return [line.split(maxsplit=2) for line in out.splitlines()]


def test_a_config_is_shown_with_where_each_value_came_from_and_what_its_model_costs(model, capsys):
  out = show(
    capsys,
    f'--config={model}',
    '--config.model..relative=alibi',
    '--config.precision.compute=bfloat16',
  )
  assert ['model.embed.vocab', '64', 'file'] in [[w.strip() for w in line] for line in lines(out)]
  assert 'flag --config.model..relative=alibi' in out
  assert 'default, chosen by flag --config.model..relative=alibi' in out
  assert 'documents of 48' in out
  assert 'cache bytes per token, bfloat16, dense' in out
  assert 'segments.0.pattern.0' in out


def test_the_cache_is_priced_as_it_is_kept(model, capsys):
  price = lambda kind, *words: next(
    line.split()[-1]
    for line in show(capsys, f'--config={model}', f'--cache={kind}', *words).splitlines()
    if line.strip().startswith('cache bytes per token')
  )
  assert price('dense') == str(3 * 2 * 16 * 4)
  assert price('int8') == str(3 * 2 * (16 + 2 * 4))
  assert price('ring', '--config.model..mask=window(size=4)') == '0'
  assert main.run(['show', f'--config={model}', '--cache=rign']) == 2
  assert "--cache: unknown cache 'rign'. Did you mean 'ring'" in capsys.readouterr().err


def test_an_encoder_has_no_cache_to_price(model, capsys):
  out = show(capsys, f'--config={model}', '--config.model..mask=full')
  assert [
    line.split(maxsplit=2)[2].strip() for line in out.splitlines() if 'cache bytes' in line
  ] == ['none: the model does not go on token by token']


IMAGES = """
import dataclasses
from tfm import zoo
from tfm.data.dataset import ArraySpec
from tfm.parts.context import Run
from tfm.tasks import Classify

@dataclasses.dataclass(frozen=True)
class Data:
  batch: int = 2

  def specs(self):
    pixels = ArraySpec((self.batch, 3, 16, 16), 'float32', 'BCHW')
    return {'pixel_values': pixels, 'labels': ArraySpec((self.batch,), 'int32', 'B')}

@dataclasses.dataclass(frozen=True)
class Experiment:
  model: object
  data: Data = Data()
  task: Classify = Classify()

  def run(self):
    return Run()

def get_config():
  return Experiment(zoo.tiny(zoo.get('vit-base-16')))
"""


def test_a_model_of_images_is_shown_with_its_kernels(tmp_path, capsys):
  path = tmp_path / 'images.py'
  path.write_text(IMAGES)
  out = show(capsys, f'--config={path}', '--config.model..relative=axial')
  assert 'documents of 17' in out
  assert '2 x 4 x 17 x 17' in out
  assert 'patches' in out


def test_a_config_that_is_a_model_is_shown_too(model, capsys):
  out = show(capsys, f'--config={model}:model')
  assert 'documents of 1024' in out
  assert 'd_model' in out


def test_a_config_without_a_model_is_shown_without_costs(file, capsys):
  out = show(capsys, f'--config={file}')
  assert 'optim.lr' in out
  assert 'FLOPs' not in out


def test_why_shows_only_the_values_asked_for(model, capsys):
  out = show(capsys, f'--config={model}', '--config..heads=4', '--why=model...mixer.heads')
  values = [line for line in lines(out) if line and '.' in line[0]]
  assert [[w.strip() for w in line] for line in values] == [
    ['model.segments.0.pattern.0.mixer.heads', '4', 'flag --config..heads=4']
  ]


def test_json_is_the_config_and_nothing_else(model, capsys):
  stored = json.loads(show(capsys, f'--config={model}:model', '--config.d_model=32', '--json'))
  assert config.from_json(Model, stored).d_model == 32


def test_two_configs_are_compared(model, capsys):
  words = [
    f'--config={model}',
    f'--diff={model}',
    '--diff.model..norm=layer',
    '--diff.data.length=50',
  ]
  assert show(capsys, *words).splitlines() == [
    'model.segments.0.pattern.0.norm: rms -> layer',
    'model.norm: rms -> layer',
    'data.length: 48 -> 50',
  ]
  assert show(capsys, f'--config={model}', f'--diff={model}') == 'no difference\n'


def test_the_zoo_and_the_parts_are_listed_without_a_config(capsys):
  assert 'gpt2-xl' in show(capsys, '--zoo')
  assert show(capsys, '--parts', '--markdown').count('### ') > 10


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--zoo', '--parts'], 'tfm show: --zoo and --parts: are two answers. Expected one of them.'),
    (
      ['--json', '--markdown'],
      'tfm show: --json and --markdown: are two answers. Expected one of them.',
    ),
    ([], 'tfm show: --config: is missing. Expected --config=FILE[:ARG]'),
  ],
)
def test_what_cannot_be_shown_is_a_mistake(words, message, capsys):
  assert main.run(['show', *words]) == 2
  assert message in capsys.readouterr().err


def test_a_path_that_leads_nowhere_is_a_mistake(model, capsys):
  assert main.run(['show', f'--config={model}', '--why=..hedas']) == 2
  assert (
    "..hedas: leads to no value. unknown field 'hedas'. Did you mean 'heads'"
    in capsys.readouterr().err
  )


def test_the_attention_kernels_of_an_experiment_are_shown_with_why_not_others(capsys):
  out = show(capsys, '--config=quickstart')
  assert 'attention kernels on cpu' in out
  assert any('staircase' in line and ' x ' in line for line in out.splitlines())
  assert 'kernels' not in show(capsys, '--config=quickstart', '--config.attend=dense')
