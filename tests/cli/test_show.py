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
  steps: int = 1

  def check(self):
    if self.steps < 1:
      yield f'steps: is {self.steps}. Expected 1 or more.'

def get_config(kind='experiment'):
  model = Model(Tokens(64), 16, (Segment((Block(Attention(2), Glu(32)),), 3),))
  return Experiment(model) if kind == 'experiment' else model
"""


@pytest.fixture
def model(tmp_path):
  path = tmp_path / 'small.py'
  path.write_text(MODEL)
  return path


@pytest.fixture(autouse=True)
def wide(monkeypatch):
  """Make the terminal wide, so that no line of a table is wrapped."""
  monkeypatch.setenv('COLUMNS', '300')


def show(capsys, *words):
  assert main.run(['show', *map(str, words)]) == 0, capsys.readouterr().err
  return capsys.readouterr().out


def lines(out):
  return [line.split(maxsplit=2) for line in out.splitlines()]


def test_summary_comes_before_the_values_set_by_flags(model, capsys):
  out = show(capsys, f'--config={model}', '--config.model..relative=alibi')
  assert out.index('parameters') < out.index('layers') < out.index('set by flags')
  assert 'flag --config.model..relative=alibi' in out
  assert 'model.embed.vocab' not in out
  assert 'sequences of 48' in out
  assert 'segments.0.pattern.0' in out
  assert '--all lists every value' in out


def test_show_all_lists_values_with_sources(model, capsys):
  flags = ('--config.model..relative=alibi', '--config.precision.compute=bfloat16')
  out = show(capsys, f'--config={model}', '--all', *flags)
  assert ['model.embed.vocab', '64', 'file'] in [[w.strip() for w in line] for line in lines(out)]
  assert 'default, chosen by flag --config.model..relative=alibi' in out
  assert 'cache per token, bfloat16, dense' in out


def test_config_with_mistakes_is_shown_with_them(model, capsys):
  words = [f'--config={model}', '--config.steps=0']
  assert main.run(['show', *words]) == 2
  shown = capsys.readouterr()
  assert 'parameters' in shown.out
  assert 'steps: is 0. Expected 1 or more.' in shown.err


def test_cache_cost_depends_on_its_kind(model, capsys):
  def cost(kind, *words):
    out = show(capsys, f'--config={model}', f'--cache={kind}', *words)
    (line,) = [l.strip() for l in out.splitlines() if l.strip().startswith('cache per token')]
    return line.split('   ')[-1].strip()

  assert cost('dense') == f'{3 * 2 * 16 * 4} B'
  assert cost('int8') == f'{3 * 2 * (16 + 2 * 4)} B'
  assert cost('ring', '--config.model..mask=window(size=4)') == '0 B'
  assert main.run(['show', f'--config={model}', '--cache=rign']) == 2
  assert "--cache: unknown cache 'rign'. Did you mean 'ring'" in capsys.readouterr().err


def test_encoder_has_no_cache_cost(model, capsys):
  out = show(capsys, f'--config={model}', '--config.model..mask=full')
  found = [line.split(maxsplit=1)[1].strip() for line in out.splitlines() if ' cache ' in line]
  assert found == ['none: the model does not decode token by token']


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


def test_image_model_is_shown_with_its_kernels(tmp_path, capsys):
  path = tmp_path / 'images.py'
  path.write_text(IMAGES)
  out = show(capsys, f'--config={path}', '--config.model..relative=axial')
  assert 'sequences of 17' in out
  assert '2 x 4 x 17 x 17' in out
  assert 'embed' in out


def test_model_config_is_shown(model, capsys):
  out = show(capsys, f'--config={model}:model')
  assert 'sequences of 1024' in out
  assert 'parameters' in out


def test_config_without_model_has_no_costs(file, capsys):
  out = show(capsys, f'--config={file}', '--all')
  assert 'optim.lr' in out
  assert 'FLOPs' not in out


def test_why_shows_matching_values_only(model, capsys):
  out = show(capsys, f'--config={model}', '--config..heads=4', '--why=model...mixer.heads')
  values = [line for line in lines(out) if line and '.' in line[0]]
  assert [[w.strip() for w in line] for line in values] == [
    ['model.segments.0.pattern.0.mixer.heads', '4', 'flag --config..heads=4']
  ]


def test_json_prints_the_config_only(model, capsys):
  stored = json.loads(show(capsys, f'--config={model}:model', '--config.d_model=32', '--json'))
  assert config.from_json(Model, stored).d_model == 32


def test_diff_compares_two_configs(model, capsys):
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


def test_words_filter_the_lists(capsys):
  out = show(capsys, '--zoo', 'QWEN3', '30b')
  assert 'qwen3-30b-a3b' in out
  assert 'qwen3-8b' not in out
  assert 'gpt2' not in out
  assert main.run(['show', '--zoo', 'qwen3', '31b']) == 2
  assert "--zoo: unknown words 'qwen3 31b'. Did you mean" in capsys.readouterr().err


def test_zoo_and_parts_need_no_config(capsys):
  assert 'gpt2-xl' in show(capsys, '--zoo')
  assert show(capsys, '--parts', '--markdown').count('### ') > 10


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--zoo', '--parts'], '--zoo: cannot be combined with --parts. Expected only one.'),
    (['--json', '--markdown'], '--json: cannot be combined with --markdown. Expected only one.'),
    (['qwen'], 'qwen: is not a flag. Expected --name=value, or --zoo, --parts or --refused'),
    ([], 'tfm show: --config: is missing. Expected --config=FILE[:ARG]'),
  ],
)
def test_excluding_flags_are_refused(words, message, capsys):
  assert main.run(['show', *words]) == 2
  assert message in capsys.readouterr().err


def test_why_with_unknown_path_is_refused(model, capsys):
  assert main.run(['show', f'--config={model}', '--why=..hedas']) == 2
  assert (
    "..hedas: matches no value. unknown field 'hedas'. Did you mean 'heads'"
    in capsys.readouterr().err
  )


def test_kernels_are_shown_with_reasons_against_others(capsys):
  out = show(capsys, '--config=quickstart')
  assert 'attention kernels on cpu' in out
  assert any('staircase' in line and ' x ' in line for line in out.splitlines())
  assert 'kernels' not in show(capsys, '--config=quickstart', '--config.attend=dense')
