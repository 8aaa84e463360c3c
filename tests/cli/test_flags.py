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


def test_settings_are_taken_in_order_in_every_spelling(values, config):
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


def test_three_dots_are_two_dots_at_the_root(values, config):
  flags.parse(values, ['--config...d=1', '--config..e=2'])
  assert [path for path, _ in config.settings] == ['...d', '..e']


def test_what_an_earlier_parse_has_set_is_forgotten(values, config):
  flags.parse(values, ['--config=x', '--config.a=1', '--debug'])
  flags.parse(values, [])
  assert (config.file, config.settings, values.debug) == (None, (), False)


def test_a_command_can_have_two_configs(values, config):
  other = flags.define_config(values, 'diff')
  flags.parse(values, ['--diff.a=1', '--config.b=2', '--diff=y'])
  assert (other.file, other.settings, config.settings) == ('y', (('a', '1'),), (('b', '2'),))


def test_a_setting_without_a_value_is_refused(values, config):
  for words in (['--config.a'], ['--config.a', '--debug']):
    with pytest.raises(
      UserError, match=r'--config\.a: has no value\. Expected --config\.a=VALUE\.'
    ):
      flags.parse(values, words)


def test_a_command_without_a_config_knows_no_settings(values):
  with pytest.raises(UserError, match=r"unknown flag 'config\.a'\. Known: debug\.$"):
    flags.parse(values, ['--config.a=1'])


def test_a_stray_word_is_refused_wherever_it_stands(values, config):
  with pytest.raises(UserError, match=r'^lr=1: is no flag\. Expected --name=value\. A field'):
    flags.parse(values, ['--config=x', 'lr=1', '--debug'])


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--depth=deep'], "--depth: want an integer, got 'deep'."),
    (['--depth=0'], "--depth: want a positive integer, got '0'."),
    (['--kind=evn'], "--kind: unknown value 'evn'. Did you mean 'even'? Known: even, odd."),
    (['--depth=1'], '--kind: is missing. Expected <even|odd>: the kind.'),
    (['--kind'], 'Missing value for flag --kind'),
  ],
)
def test_a_value_that_a_flag_cannot_have_says_what_it_wants(values, words, message):
  absl_flags.DEFINE_integer(
    'depth', 1, 'How deep.', 1 if words == ['--depth=0'] else None, flag_values=values
  )
  absl_flags.DEFINE_enum(
    'kind', None, ['even', 'odd'], 'the kind.', required=True, flag_values=values
  )
  with pytest.raises((UserError, absl_flags.Error)) as e:
    flags.parse(values, words)
  assert message in str(e.value)


def test_settings_are_applied_to_a_config_that_came_from_elsewhere(values, config, file):
  flags.parse(values, [f'--config={file}'])
  base = config.resolve().config
  flags.parse(values, ['--config.steps=3'])
  assert config.resolve(base).config.steps == 3


def test_the_resolved_config_is_validated_after_all_settings(values, config, file):
  flags.parse(values, [f'--config={file}', '--config.optim.lr=-1'])
  with pytest.raises(UserError, match=r'^optim: lr=-1\.0 is not positive\.$'):
    config.resolve()


def test_the_usage_has_every_flag_with_its_default_and_help(values, config):
  absl_flags.DEFINE_integer('depth', 3, 'How deep.', flag_values=values)
  text = flags.usage(values, 'do', 'Does it.\n\nAnd more.')
  assert text.startswith(
    'usage: tfm do [--flag=value ...]\n\nDoes it.\n\nAnd more.\n\nflags:\n  --config=FILE[:ARG]\n'
  )
  assert '  --depth=3\n      How deep.' in text.replace("'3'", '3')
