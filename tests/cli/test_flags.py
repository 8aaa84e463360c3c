from absl import flags as absl_flags
import pytest

from tfm.cli import flags
from tfm.core.errors import UserError


@pytest.fixture
def values():
  return flags.new()


@pytest.fixture
def config(values):
  return flags.define_config(values)


def test_settings_keep_their_order_in_every_spelling(values, config):
  flags.parse(
    values,
    [
      '--config.a.b=1',
      '--config',
      'x.py:arg',
      '-config.c',
      '-2',
      '--config..d==',
      '--config.e.*.f=',
    ],
  )
  assert config.file == 'x.py:arg'
  assert config.settings == (('a.b', '1'), ('c', '-2'), ('..d', '='), ('e.*.f', ''))


def test_three_dots_mean_any_depth_from_the_root(values, config):
  flags.parse(values, ['--config...d=1', '--config..e=2'])
  assert [path for path, _ in config.settings] == ['...d', '..e']


def test_parse_resets_earlier_flags(values, config):
  flags.parse(values, ['--config=x', '--config.a=1', '--debug'])
  flags.parse(values, [])
  assert (config.file, config.settings, values.debug) == (None, (), False)


def test_command_may_have_two_configs(values, config):
  other = flags.define_config(values, 'diff')
  flags.parse(values, ['--diff.a=1', '--config.b=2', '--diff=y'])
  assert (other.file, other.settings, config.settings) == ('y', (('a', '1'),), (('b', '2'),))


def test_setting_without_a_value_is_refused(values, config):
  for words in (['--config.a'], ['--config.a', '--debug']):
    with pytest.raises(
      UserError, match=r'--config\.a: has no value\. Expected --config\.a=VALUE\.'
    ):
      flags.parse(values, words)


def test_command_without_config_refuses_settings(values):
  with pytest.raises(UserError, match=r"unknown flag 'config\.a'\. Known: debug\.$"):
    flags.parse(values, ['--config.a=1'])


def test_word_that_is_not_a_flag_is_refused(values, config):
  with pytest.raises(UserError, match=r'^lr=1: is not a flag\. Expected --name=value\. Fields'):
    flags.parse(values, ['--config=x', 'lr=1', '--debug'])


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--depth=deep'], "--depth: is 'deep'. Expected an integer."),
    (['--depth=0'], "--depth: is '0'. Expected a positive integer."),
    (['--kind=evn'], "--kind: unknown value 'evn'. Did you mean 'even'? Known: even, odd."),
    (['--depth=1'], '--kind: is missing. Expected <even|odd>: the kind.'),
    (['--kind'], 'Missing value for flag --kind'),
  ],
)
def test_illegal_flag_value_names_the_expected_one(values, words, message):
  absl_flags.DEFINE_integer(
    'depth', 1, 'How deep.', 1 if words == ['--depth=0'] else None, flag_values=values
  )
  absl_flags.DEFINE_enum(
    'kind', None, ['even', 'odd'], 'the kind.', required=True, flag_values=values
  )
  with pytest.raises((UserError, absl_flags.Error)) as e:
    flags.parse(values, words)
  assert message in str(e.value)


def test_settings_apply_to_a_given_config(values, config, file):
  flags.parse(values, [f'--config={file}'])
  base = config.resolve().config
  flags.parse(values, ['--config.steps=3'])
  assert config.resolve(base).config.steps == 3


def test_config_is_validated_after_all_settings(values, config, file):
  flags.parse(values, [f'--config={file}', '--config.optim.lr=-1'])
  with pytest.raises(UserError, match=r'^optim: lr=-1\.0 is not positive\.$'):
    config.resolve()


def test_usage_lists_flags_with_defaults_and_help(values, config):
  values.group('Sizes')
  absl_flags.DEFINE_integer('depth', 3, 'How deep. And why.', flag_values=values)
  values.group('Rare', hidden=True)
  absl_flags.DEFINE_float('ratio', None, 'A ratio.', flag_values=values)
  lines = flags.usage(values, 'do', 'Does it.').splitlines()
  assert lines[:3] == ['usage: tfm do [--flag=value ...]', '', 'Does it.']
  assert any(line.startswith('  --config=FILE[:ARG]') for line in lines)
  assert lines[lines.index('Sizes:') + 1].split(maxsplit=1) == ['--depth=3', 'How deep']
  assert not any('--ratio' in line for line in lines)
  assert lines[-1].split(maxsplit=1) == ['--help=all', 'more flags: rare']
  full = flags.usage(values, 'do', 'Does it.', full=True).splitlines()
  assert any(line.split(maxsplit=1) == ['--ratio=X', 'A ratio'] for line in full)
  assert any(line.endswith('How deep. And why') for line in full)


def test_all_mistakes_are_reported_together(values, config, file):
  absl_flags.DEFINE_string('workdir', None, 'the folder.', required=True, flag_values=values)
  words = ['--dpeth=3', '--debug=maybe', f'--config={file}', '--config.lr=1', '--config.optim.lr=0']
  with pytest.raises(UserError) as error:
    flags.parse(values, words)
  lines = str(error.value).splitlines()
  assert {line.partition('.')[0] for line in lines} == {
    "unknown flag 'dpeth'", "--debug: is 'maybe'", '--workdir: is missing',
    "config: unknown field 'lr'", 'optim: lr=0',
  }  # fmt: skip
