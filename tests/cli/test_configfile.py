import pytest

from tfm.cli import configfile
from tfm.core.errors import ConfigError


@pytest.fixture(params=['checkout', 'wheel'])
def package(request, tmp_path, file):
  """Return a package with the configs `toy` and `broken`, as a checkout or as a wheel."""
  package = tmp_path / 'site' / 'tfm'
  folder = package / '_configs' if request.param == 'wheel' else package.parent / 'configs'
  package.mkdir(parents=True)
  folder.mkdir()
  if request.param == 'checkout':
    (package.parent / 'pyproject.toml').touch()
  (folder / 'toy.py').write_text(file.read_text())
  (folder / '__init__.py').touch()
  return package


@pytest.mark.parametrize('name', ['toy', 'toy.py', 'configs/toy.py', 'configs/toy'])
def test_shipped_config_is_found_by_name(package, name, tmp_path, monkeypatch):
  (tmp_path / 'empty').mkdir()
  monkeypatch.chdir(tmp_path / 'empty')
  assert configfile.load(name, package=package).name == 'plain'
  assert configfile.load(f'{name}:gpt:2', package=package).name == 'gpt:2'


def test_only_configs_are_listed(package):
  assert list(configfile.shipped(package)) == ['toy']


def test_path_takes_precedence_over_name(package, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'toy.py').write_text((tmp_path / 'toy.py').read_text().replace("'plain'", "'mine'"))
  assert configfile.load('toy.py', package=package).name == 'mine'
  assert configfile.load('toy', package=package).name == 'plain'


def test_unknown_config_name_lists_known_ones(package):
  with pytest.raises(
    ConfigError, match=r"^--config: no file toi, and unknown config 'toi'\. Did you mean 'toy'\?"
  ):
    configfile.load('toi:x', package=package)
  with pytest.raises(
    ConfigError,
    match=r'^--config: is missing\. Expected --config=FILE\[:ARG\], a path, or a name: toy',
  ):
    configfile.load('', package=package)
  with pytest.raises(ConfigError, match='is a directory'):
    configfile.load(str(package), package=package)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('x = 1',
     'bad.py: has no function get_config. Expected a function that returns an experiment.'),
    ('def get_config(a): ...', 'bad.py: get_config takes an argument. Expected --config='),
    ('def get_config(): return {}', 'bad.py: get_config returned {}. Expected a frozen dataclass.'),
    ('\ndef get_config(:', 'bad.py:2: '),
    ('import nowhere_at_all', "bad.py:1: ModuleNotFoundError: No module named 'nowhere_at_all'"),
    ('def get_config():\n  return 1 / 0', 'bad.py:2: ZeroDivisionError: division by zero'),
    ('from tfm.core.errors import UserError\ndef get_config():\n  raise UserError("no zoo")',
     'bad.py: no zoo'),
  ],
)  # fmt: skip
def test_error_in_config_file_names_its_line(tmp_path, text, message):
  (tmp_path / 'bad.py').write_text(text)
  with pytest.raises(ConfigError) as e:
    configfile.load(str(tmp_path / 'bad.py'))
  assert message in str(e.value)


def test_argument_for_config_without_one_is_refused(tmp_path):
  (tmp_path / 'bad.py').write_text('def get_config(): ...')
  with pytest.raises(
    ConfigError,
    match=r"bad\.py:big: get_config takes no argument. Expected no argument after :, given 'big'\.",
  ):
    configfile.load(f'{tmp_path / "bad.py"}:big')


def test_config_file_must_be_python(tmp_path):
  (tmp_path / 'lm.yaml').touch()
  with pytest.raises(ConfigError, match=r'lm\.yaml: is not a Python file'):
    configfile.load(str(tmp_path / 'lm.yaml'))


def test_config_files_of_one_name_are_separate_modules(tmp_path, file):
  other = tmp_path / 'sub' / 'toy.py'
  other.parent.mkdir()
  other.write_text(file.read_text())
  assert type(configfile.load(str(file))) is not type(configfile.load(str(other)))
