"""The commands of the README are ones that the command line takes, and its Python runs."""

import dataclasses
import json
import pathlib
import re
import shlex

import jax
import pytest

from tests.hub.folders import chat_folder
import tfm
from tfm import hub, zoo
from tfm.cli import catalog, flags, main, refusals, train
from tfm.data.tokenizer import Byte
from tfm.parts.absolute import Learned
from tfm.zoo import weights

README = pathlib.Path(__file__).parent.parent / 'README.md'


def blocks(language: str) -> list[str]:
  return re.findall(rf'```{language}\n(.*?)```', README.read_text('utf-8'), re.DOTALL)


def commands(name: str) -> list[list[str]]:
  """The words after `tfm NAME` of every such command."""
  lines = '\n'.join(blocks('bash')).replace('\\\n', ' ').splitlines()
  found = [shlex.split(line, comments=True) for line in lines if f'tfm {name} ' in line]
  return [words[words.index(name) + 1 :] for words in found]


@pytest.mark.parametrize('words', commands('train'), ids=' '.join)
def test_train_commands_resolve(words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'all-MiniLM-L6-v2').mkdir()
  values, _ = hub.class_of(zoo.get('bert-base').with_heads(lm=None))
  (tmp_path / 'all-MiniLM-L6-v2' / 'config.json').write_text(json.dumps(values))
  (tmp_path / 'SmolLM2-135M').mkdir()
  values, _ = hub.class_of(zoo.get('smollm2-135m'))
  (tmp_path / 'SmolLM2-135M' / 'config.json').write_text(json.dumps(values))
  flags.parse(train.FLAGS, words)
  assert train.CONFIG.resolve().config.steps > 0


@pytest.mark.parametrize('words', commands('show'), ids=' '.join)
def test_show_commands_print(words, capsys, tmp_path, monkeypatch):
  if '--checkpoint=Llama-3.2-1B' in words:
    chat_folder(tmp_path / 'Llama-3.2-1B')
    monkeypatch.chdir(tmp_path)
  assert main.run(['show', *words]) == 0, capsys.readouterr().err
  assert capsys.readouterr().out


@pytest.mark.parametrize('name', ['convert', 'eval', 'generate'])
def test_checkpoint_commands_need_the_checkpoint(name, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for words in commands(name):
    assert main.run([name, *words]) == 2
    assert 'holds no checkpoint' in capsys.readouterr().err


def test_readme_shows_every_command():
  assert all(commands(name) for name in main.COMMANDS)


def test_python_of_the_readme_runs(monkeypatch, capsys, tmp_path):
  monkeypatch.chdir(tmp_path)
  spec = dataclasses.replace(
    zoo.tiny(zoo.get('gpt2')),
    embed=dataclasses.replace(zoo.tiny(zoo.get('gpt2')).embed, vocab=256),
    absolute=Learned(128),
  )
  tokenizer = Byte().learn(lambda split: iter(()))
  files = hub.FolderFiles(
    {'chat_template.jinja': b'{% for m in messages %}{{ m.content }}{% endfor %}'}
  )
  loaded = hub.Loaded(spec, tfm.init(spec, jax.random.key(0)), tokenizer, files=files)
  monkeypatch.setattr(tfm, 'load', lambda path: loaded, raising=False)
  names: dict[str, object] = {}
  for source in blocks('python'):
    exec(compile(source, 'README.md', 'exec'), names)
  out = capsys.readouterr().out.splitlines()
  assert out[:2] == ['8030261248', '(1, 9, 256)']
  assert (tmp_path / 'mine' / 'model.safetensors').exists()


def test_worked_example_is_in_its_files():
  text = README.read_text('utf-8')
  example = text[text.index('### Add a family') : text.index('### What does not go together')]
  files = [README.parent / name for name in re.findall(r'\((tfm/[^)]+\.py)\)', example)]
  held = [path.read_text('utf-8').splitlines() for path in files]
  lines = [
    line
    for block in re.findall(r'```text\n(.*?)```', example, re.DOTALL)
    for line in block.splitlines()
  ]
  assert len(lines) > 5
  assert not [line for line in lines if not any(line in file for file in held)]


def parts_table() -> str:
  """What the README says of the parts: a line a kind."""
  lines = ['| kind | rows |', '|---|---|']
  for package, table in catalog.tables().items():
    names = ', '.join(f'`{name}`' for name in sorted(table))
    lines.append(f'| {table.kind} (`{package}`) | {names} |')
  return '\n'.join(lines)


def zoo_table() -> str:
  """What the README says of the families."""
  return ', '.join(f'`{name}`' for name in sorted(weights.TABLE)) + '.'


def refused_table() -> str:
  """What the README says of parts that do not go together."""
  return refusals.sheet().markdown().partition('\n\n')[2].rstrip()


@pytest.mark.parametrize(
  ('name', 'table'), [('parts', parts_table), ('zoo', zoo_table), ('refused', refused_table)]
)
def test_readme_table_is_up_to_date(name, table):
  assert f'<!-- {name} -->\n{table()}\n<!-- end -->' in README.read_text('utf-8')


def test_models_page_has_every_model_and_family():
  page = (README.parent / 'tfm' / 'zoo' / 'MODELS.md').read_text('utf-8')
  for name, entry in zoo.TABLE.items():
    assert f'| `{name}` | {entry.params:,} | {entry.published} |' in page, (
      'python scripts/model_cards.py writes it anew'
    )
  assert not [name for name in weights.TABLE if f'| `{name}` |' not in page]


def test_readme_and_notebooks_name_one_repository():
  (home,) = re.findall(
    r'^Repository = "https://github.com/(.*)"$',
    (README.parent / 'pyproject.toml').read_text(),
    re.M,
  )
  texts = [README, *sorted((README.parent / 'colabs').glob('*.ipynb'))]
  pattern = re.compile(r'github(?:\.com)?/([\w-]+/[\w-]+)')
  named = {name for text in texts for name in pattern.findall(text.read_text('utf-8'))}
  assert named == {home}
