"""Commands of the README and the guides are valid, and the Python of the README runs."""

from collections.abc import Sequence
import json
import pathlib
import re
import shlex

import pytest

from tests.hub.folders import chat_folder
from tfm import hub, zoo
from tfm.cli import flags, main, plan, train
from tfm.plan import topology
from tfm.zoo import weights

README = pathlib.Path(__file__).parent.parent / 'README.md'


PAGES = [
  README,
  *sorted(README.parent.glob('*/README.md')),
  *sorted(README.parent.glob('tfm/*/*.md')),
]


def blocks(language: str, pages: Sequence[pathlib.Path] = (README,)) -> list[str]:
  text = '\n'.join(page.read_text('utf-8') for page in pages)
  return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


def commands(name: str) -> list[list[str]]:
  """Return the words after `tfm NAME` of every such command in README and guides."""
  lines = '\n'.join(blocks('bash', PAGES)).replace('\\\n', ' ').splitlines()
  found = [shlex.split(line, comments=True) for line in lines if f'tfm {name} ' in line]
  return [words[words.index(name) + 1 :] for words in found]


@pytest.mark.parametrize('words', commands('train'), ids=' '.join)
def test_train_commands_resolve(words, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'all-MiniLM-L6-v2').mkdir()
  values, _ = hub.class_of(zoo.get('bert-base').with_heads(lm=None))
  (tmp_path / 'all-MiniLM-L6-v2' / 'config.json').write_text(json.dumps(values))
  values, _ = hub.class_of(zoo.get('smollm2-135m'))
  for name in ('SmolLM2-135M', 'SmolLM2-135M-Instruct'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'config.json').write_text(json.dumps(values))
  flags.parse(train.FLAGS, words)
  assert train.CONFIG.resolve().config.steps > 0


@pytest.mark.parametrize('words', commands('show'), ids=' '.join)
def test_show_commands_print(words, capsys, tmp_path, monkeypatch):
  if '--checkpoint=Llama-3.2-1B' in words:
    chat_folder(tmp_path / 'Llama-3.2-1B')
    monkeypatch.chdir(tmp_path)
  assert main.run(['show', *words]) == 0, capsys.readouterr().err
  assert capsys.readouterr().out


@pytest.mark.parametrize('name', ['convert', 'eval', 'export', 'generate'])
def test_checkpoint_commands_need_the_checkpoint(name, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  question = {'question': '1+1', 'choices': ['2', '3'], 'answer': 0}
  for file in re.findall(r'--choices=(\S+)', '\n'.join(blocks('bash', PAGES))):
    (tmp_path / file).write_text(8 * (json.dumps(question) + '\n'))
  for words in commands(name):
    assert main.run([name, *words]) == 2
    assert 'holds no checkpoint' in capsys.readouterr().err


@pytest.mark.parametrize('words', commands('plan'), ids=' '.join)
def test_plan_commands_resolve_their_configs(words):
  flags.parse(plan.FLAGS, words)
  topology.parse(plan.TOPOLOGY.value)
  assert plan.CONFIG.resolve().config.steps > 0


def test_readme_shows_every_command():
  assert all(commands(name) for name in main.COMMANDS)


def test_python_of_the_readme_runs(monkeypatch, capsys, tmp_path):
  monkeypatch.chdir(tmp_path)
  chat_folder(tmp_path / 'Qwen2.5-0.5B-Instruct')
  names: dict[str, object] = {}
  for source in blocks('python'):
    exec(compile(source, 'README.md', 'exec'), names)
  out = capsys.readouterr().out.splitlines()
  assert out[-2:] == ['8030261248', '(1, 8, 64)']
  assert (tmp_path / 'mine' / 'model.safetensors').exists()


def test_worked_example_is_in_its_files():
  folder = README.parent / 'tfm' / 'zoo'
  text = (folder / 'ADDING.md').read_text('utf-8')
  files = [folder / name for name in re.findall(r'\]\(([^)]+\.py)\)', text)]
  held = [path.read_text('utf-8').splitlines() for path in files]
  blocks = re.findall(r'```text\n(.*?)```', text, re.DOTALL)
  lines = [line for block in blocks for line in block.splitlines()]
  assert len(lines) > 5
  assert not [line for line in lines if not any(line in file for file in held)]


def test_models_page_has_every_model_and_family():
  page = (README.parent / 'tfm' / 'zoo' / 'MODELS.md').read_text('utf-8')
  for name, entry in zoo.TABLE.items():
    assert f'| `{name}` | {entry.params:,} | {entry.published} |' in page, (
      'python scripts/model_cards.py rewrites the page'
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
