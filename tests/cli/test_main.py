import errno
import subprocess
import sys
import types

import pytest

from tfm.cli import flags, main
from tfm.core.registry import Table
from tfm.version import __version__


@pytest.fixture
def command(monkeypatch):
  """Makes `tfm do` run the function it is given."""

  def install(function):
    module = types.ModuleType('_do', 'Does it.')
    module.FLAGS, module.main = flags.new(), function
    monkeypatch.setitem(sys.modules, '_do', module)
    monkeypatch.setattr(main, 'COMMANDS', Table('command', do=main.Command('_do', 'does it')))

  return install


def fail(error):
  def function():
    raise error

  return function


@pytest.mark.parametrize('words', [[], ['--help'], ['-h'], ['help']])
def test_tfm_alone_lists_every_command_with_a_line(words, capsys):
  assert main.run(words) == 0
  out = capsys.readouterr().out
  for name, row in main.COMMANDS.items():
    assert [line for line in out.splitlines() if line.split() == [name, *row.summary.split()]]


def test_the_version_is_the_packages(capsys):
  assert main.run(['--version']) == 0
  assert capsys.readouterr().out == f'tfm {__version__}\n'


@pytest.mark.parametrize('name', main.COMMANDS)
def test_every_command_tells_its_own_flags_without_importing_jax(name):
  code = f'import sys; from tfm.cli import main; main.run([{name!r}, "--help"]); sys.exit("jax" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert f'usage: tfm {name}' in done.stdout
  assert '--[no]debug' in done.stdout


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['trian'], "tfm trian: unknown command 'trian'. Did you mean 'train'?"),
    (['--config=x'], 'tfm --config=x: --config=x: no command is named before it. Expected tfm COMMAND --config=x: '),
    (['train', '--wokdir=x'], "tfm train: unknown flag 'wokdir'. Did you mean 'workdir'? Known: config, debug, "),
    (['train', '--wokdir=x'], 'A field of the config is set by --config.FIELD=VALUE.'),
    (['train', '--config=x', '--workdir'], 'tfm train: Missing value for flag --workdir'),
    (['train', '--config=x'], 'tfm train: --workdir: is missing. Expected the directory of checkpoints and metrics.'),
    (['train', '--workdir=x'], 'tfm train: --config: is missing. Expected --config=FILE[:ARG], a path or one of: '),
    (['train', '--workdir=x', 'steps=3'], 'tfm train: steps=3: is no flag. Expected --name=value. A field of the config'),
    (['train', '--debug=maybe'], "tfm train: --debug: want bool, got 'maybe'."),
    (['train', '--workdir=x', '--config=none.py'], 'tfm train: --config: no file none.py, and unknown config'),
  ],
)  # fmt: skip
def test_a_mistake_is_one_message_and_status_2(words, message, capfd):
  assert main.run(words) == 2
  err = capfd.readouterr().err
  assert message in err
  assert err.count('\n') == 1


def test_a_file_that_cannot_be_used_is_a_mistake(command, capsys, tmp_path):
  command(lambda: (tmp_path / 'absent').read_text())
  assert main.run(['do']) == 2
  assert capsys.readouterr().err == f'tfm do: {tmp_path / "absent"}: No such file or directory\n'
  command(fail(OSError(errno.ENOSPC, 'No space left on device')))
  assert main.run(['do']) == 2
  assert capsys.readouterr().err == 'tfm do: No space left on device\n'


def test_debug_shows_where_a_mistake_was_found(command, capsys, tmp_path):
  command(lambda: (tmp_path / 'absent').read_text())
  assert main.run(['do', '--debug']) == 2
  assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize(
  'error', [RuntimeError('ours'), ValueError('ours'), ConnectionError(errno.ECONNRESET, 'ours')]
)
def test_what_is_no_mistake_of_the_user_keeps_its_traceback(command, error):
  command(fail(error))
  with pytest.raises(type(error), match='ours'):
    main.run(['do'])


def test_an_interrupt_is_status_130(command, capsys):
  command(fail(KeyboardInterrupt()))
  assert main.run(['do']) == 130
  assert capsys.readouterr().err == 'tfm: interrupted\n'


@pytest.mark.parametrize(('returned', 'status'), [(None, 0), (0, 0), (75, 75)])
def test_the_status_of_a_command_is_the_status(command, returned, status):
  command(lambda: returned)
  assert main.run(['do']) == status


def test_a_reader_that_has_seen_enough_is_no_error():
  code = 'from tfm.cli import main\nfor _ in range(9999):\n  main.run([]) and exit(7)'
  shell = f"{sys.executable} -c '{code}' | head -1"
  done = subprocess.run(['bash', '-c', shell], capture_output=True, text=True, check=True)
  assert done.stdout == 'usage: tfm COMMAND [--flag=value ...]\n'
  assert done.stderr == ''
