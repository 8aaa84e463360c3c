"""The commands of the README are ones that the command line takes, and its Python runs."""

import pathlib
import re
import shlex
import types

import jax
import pytest

import tfm
from tfm import zoo
from tfm.cli import catalog, flags, main, refusals, train
from tfm.data.tokenizer import Byte
from tfm.model.spec import Block, Model, Segment
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention

README = pathlib.Path(__file__).parent.parent / 'README.md'


def blocks(language: str) -> list[str]:
  return re.findall(rf'```{language}\n(.*?)```', README.read_text('utf-8'), re.DOTALL)


def commands(name: str) -> list[list[str]]:
  """The words after `tfm NAME` of every such command."""
  lines = '\n'.join(blocks('bash')).replace('\\\n', ' ').splitlines()
  found = [shlex.split(line, comments=True) for line in lines if f'tfm {name} ' in line]
  return [words[words.index(name) + 1 :] for words in found]


@pytest.mark.parametrize('words', commands('train'), ids=' '.join)
def test_a_training_command_describes_a_run_that_fits(words):
  flags.parse(train.FLAGS, words)
  assert train.CONFIG.resolve().config.steps > 0


@pytest.mark.parametrize('words', commands('show'), ids=' '.join)
def test_a_show_command_shows(words, capsys):
  assert main.run(['show', *words]) == 0, capsys.readouterr().err
  assert capsys.readouterr().out


@pytest.mark.parametrize('name', ['eval', 'generate'])
def test_a_command_with_a_checkpoint_wants_that_checkpoint(name, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for words in commands(name):
    assert main.run([name, *words]) == 2
    assert 'holds no checkpoint' in capsys.readouterr().err


def test_the_readme_shows_every_kind_of_command():
  assert all(commands(name) for name in main.COMMANDS)


def test_the_python_of_the_readme_runs(monkeypatch, capsys):
  block = Block(Attention(2), Glu(16))
  spec = Model(256, 16, (Segment((block,)),))
  loaded = types.SimpleNamespace(
    spec=spec, params=tfm.init(spec, jax.random.key(0)), tokenizer=Byte().learn(lambda split: iter(()))
  )
  monkeypatch.setattr(tfm, 'load', lambda path: loaded, raising=False)
  (source,) = blocks('python')
  exec(compile(source, 'README.md', 'exec'), {})
  out = capsys.readouterr().out.splitlines()
  assert out[:2] == ['8030261248', '(1, 9, 256)']


def parts_table() -> str:
  """What the README says of the parts: a line a kind."""
  lines = ['| kind | rows |', '|---|---|']
  for package, table in catalog.tables().items():
    names = ', '.join(f'`{name}`' for name in sorted(table))
    lines.append(f'| {table.kind} (`{package}`) | {names} |')
  return '\n'.join(lines)


def zoo_table() -> str:
  """What the README says of the models: a line a model."""
  lines = ['| name | parameters | published as | paper |', '|---|--:|--:|---|']
  for name, entry in zoo.TABLE.items():
    lines.append(f'| `{name}` | {entry.params:,} | {entry.published} | {entry.paper} |')
  return '\n'.join(lines)


def refused_table() -> str:
  """What the README says of parts that do not go together."""
  return refusals.sheet().markdown().partition('\n\n')[2].rstrip()


@pytest.mark.parametrize(('name', 'table'), [('parts', parts_table), ('zoo', zoo_table), ('refused', refused_table)])
def test_a_table_of_the_readme_is_up_to_date(name, table):
  assert f'<!-- {name} -->\n{table()}\n<!-- end -->' in README.read_text('utf-8')
