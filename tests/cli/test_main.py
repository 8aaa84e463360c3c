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
def test_help_lists_every_command(words, capsys):
  assert main.run(words) == 0
  out = capsys.readouterr().out
  for name, row in main.COMMANDS.items():
    assert [line for line in out.splitlines() if line.split() == [name, *row.summary.split()]]


def test_version_flag_prints_the_package_version(capsys):
  assert main.run(['--version']) == 0
  assert capsys.readouterr().out == f'tfm {__version__}\n'


@pytest.mark.parametrize('name', main.COMMANDS)
def test_help_of_commands_fits_a_screen_without_jax(name):
  run = f'from tfm.cli import main; main.run([{name!r}, "--help"])'
  code = f'import sys; {run}; sys.exit("jax" in sys.modules)'
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert f'usage: tfm {name}' in done.stdout
  assert '--debug' in done.stdout
  lines = done.stdout.splitlines()
  assert len(lines) <= 45, 'the help of a command fits a screen'
  assert max(map(len, lines)) <= 80
  assert 'Example' in done.stdout
  assert ' ...\n' not in done.stdout, 'a text is cut'


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['trian'], "tfm trian: unknown command 'trian'. Did you mean 'train'?"),
    (['--config=x'],
     'tfm --config=x: --config=x: no command before it. Expected tfm COMMAND --config=x: '),
    (['train', '--wokdir=x'],
     "unknown flag 'wokdir'. Did you mean 'workdir'? Known: compile_cache, config, "),
    (['train', '--wokdir=x'], 'Fields of the config are set by --config.FIELD=VALUE.'),
    (['train', '--config=x', '--workdir'], 'tfm train: Missing value for flag --workdir'),
    (['train', '--config=x'],
     '--workdir: is missing. Expected the folder of checkpoints and metrics.\n'),
    (['train'], '  --config: is missing. Expected --config=FILE[:ARG], a path, or a name: '),
    (['train', '--config=pretrain:gtp2', '--workdir=x'],
     "tfm train: --config=pretrain:gtp2: unknown model 'gtp2'. Did you mean 'gpt2'"),
    (['train', '--config=pretrain', '--workdir=x'],
     '--config=pretrain: get_config takes an argument. Expected --config=pretrain:MODEL.'),
    (['train', '--config=vit_fashion_mnist', '--workdir=x', '--config.data.folder=nowhere',
      '--config.mesh.tensor=64'],
     'tfm train: 2 mistakes\n  data.folder: nowhere has no train-images-idx3-ubyte.gz. Expected'),
    (['train', '--config=finetune:', '--workdir=x'],
     '--config=finetune: get_config takes an argument. Expected --config=finetune:FOLDER.'),
    (['train', '--workdir=x'],
     'tfm train: --config: is missing. Expected --config=FILE[:ARG], a path, or a name: '),
    (['train', '--config=quickstart', '--workdir=x', 'steps=3'],
     'tfm train: steps=3: is not a flag. Expected --name=value. Fields of the config'),
    (['train', '--debug=maybe'], "--debug: is 'maybe'. Expected bool."),
    (['train', '--workdir=x', '--config=none.py'],
     'tfm train: --config: no file none.py, and unknown config'),
  ],
)  # fmt: skip
def test_mistake_is_one_message_and_status_2(words, message, capfd):
  assert main.run(words) == 2
  err = capfd.readouterr().err
  assert message in err
  lines = err.splitlines()
  assert len(lines) == 1 or lines[0].endswith(f': {len(lines) - 1} mistakes')


def test_missing_file_is_a_mistake(command, capsys, tmp_path):
  command(lambda: (tmp_path / 'absent').read_text())
  assert main.run(['do']) == 2
  assert capsys.readouterr().err == f'tfm do: {tmp_path / "absent"}: No such file or directory\n'
  command(fail(OSError(errno.ENOSPC, 'No space left on device')))
  assert main.run(['do']) == 2
  assert capsys.readouterr().err == 'tfm do: No space left on device\n'


def test_debug_prints_the_traceback(command, capsys, tmp_path):
  command(lambda: (tmp_path / 'absent').read_text())
  assert main.run(['do', '--debug']) == 2
  assert 'Traceback' in capsys.readouterr().err


@pytest.mark.parametrize(
  'error', [RuntimeError('ours'), ValueError('ours'), ConnectionError(errno.ECONNRESET, 'ours')]
)
def test_internal_errors_keep_their_traceback(command, error):
  command(fail(error))
  with pytest.raises(type(error), match='ours'):
    main.run(['do'])


def test_interrupt_exits_with_status_130(command, capsys):
  command(fail(KeyboardInterrupt()))
  assert main.run(['do']) == 130
  assert capsys.readouterr().err == 'tfm: interrupted\n'


@pytest.mark.parametrize(('returned', 'status'), [(None, 0), (0, 0), (75, 75)])
def test_exit_status_is_that_of_the_command(command, returned, status):
  command(lambda: returned)
  assert main.run(['do']) == status


def test_closed_pipe_is_not_an_error():
  code = 'from tfm.cli import main\nfor _ in range(9999):\n  main.run([]) and exit(7)'
  shell = f"{sys.executable} -c '{code}' | head -1"
  done = subprocess.run(['bash', '-c', shell], capture_output=True, text=True, check=True)
  assert done.stdout == 'usage: tfm COMMAND [--flag=value ...]\n'
  assert done.stderr == ''
