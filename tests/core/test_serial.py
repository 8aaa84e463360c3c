import dataclasses
import json
import math

from hypothesis import given, settings
import pytest

from tfm.core import config
from tfm.core.errors import ConfigError

from . import trees
from .kinds import Alibi, Block, Limits, Mesh, Norm, Relative, Run


@dataclasses.dataclass(frozen=True)
class Other:
  a: int = 1


@dataclasses.dataclass(frozen=True)
class Choice:
  which: Limits | Other
  piece: Norm | Relative = Norm()


@given(trees.RUNS)
@settings(max_examples=50, deadline=None)
def test_a_config_comes_back_from_strict_json_as_it_was(run):
  text = json.dumps(config.to_json(run), allow_nan=False)
  assert config.from_json(Run, json.loads(text)) == run


def test_a_part_is_written_with_its_row_and_all_its_fields():
  assert config.to_json(Block())['norm'] == {'part': 'layer', 'eps': 1e-5}


def test_where_the_type_leaves_the_class_open_it_is_written():
  choice = Choice(Other(2), Alibi())
  stored = config.to_json(choice)
  assert stored == {
    'which': {'class': 'Other', 'a': 2},
    'piece': {'part': 'alibi', 'kind': 'relative position'},
  }
  assert config.from_json(Choice, stored) == choice


def test_not_a_number_comes_back():
  assert math.isnan(config.from_json(Limits, config.to_json(Limits(math.nan))).low)


def test_a_float_that_another_tool_made_an_int_is_a_float_again():
  back = config.from_json(Limits, {'low': 1, 'high': 2})
  assert type(back.low) is float


def test_a_field_stored_nowhere_has_its_default():
  assert config.from_json(Run, {'steps': 3}) == Run(steps=3)


@pytest.mark.parametrize(
  ('cls', 'stored', 'message'),
  [
    (Run, {'stepz': 3}, "config: unknown stored field of Run 'stepz'. Did you mean 'steps'"),
    (Run, {'model': {'norm': {'part': 'rmz'}}}, "model.norm: unknown norm 'rmz'. Did you mean 'rms'? Known: layer"),
    (Run, {'model': {'norm': {'part': 'rms', 'epz': 1}}}, "model.norm: unknown stored field of RMS 'epz'. Did you mea"),
    (Run, {'model': {'norm': {'part': 'none'}}}, "model.norm: want a norm, got 'none'."),
    (Run, {'steps': '3'}, "steps: want int, got '3'."),
    (Run, {'betas': [1.0, 'x']}, "betas.1: want float, got 'x'."),
    (Run, {'betas': [1.0]}, 'betas: want a tuple (float, float), got [1.0].'),
    (Run, {'files': {'a': 'b'}}, "files: want a tuple of str, got {'a': 'b'}."),
    (Run, {'rules': {'a': 3}}, "rules.a: want str or none, got 3."),
    (Run, 3, 'config: want a Run, got 3.'),
    (Choice, {}, 'config: nothing is stored for which, which Choice needs.'),
    (Choice, {'which': {'a': 1}}, 'which: nothing is stored that says which Limits or Other.'),
    (Choice, {'which': {'class': 'Othr'}}, "which: unknown stored class 'Othr'. Did you mean 'Other'? Known: Limits"),
    (Choice, {'which': {'class': 'Other'}, 'piece': {'part': 'rms', 'kind': 'nrm'}}, 'piece: unknown stored kind of p'),
  ],
)  # fmt: skip
def test_what_cannot_be_read_says_where_and_why(cls, stored, message):
  with pytest.raises(ConfigError) as e:
    config.from_json(cls, stored)
  assert message in str(e.value)


def test_what_a_class_refuses_when_it_is_read_is_a_config_error():
  @dataclasses.dataclass(frozen=True)
  class Even:
    n: int = 0

    def __post_init__(self):
      if self.n % 2:
        raise ValueError(f'n={self.n} is odd')

  with pytest.raises(ConfigError, match='config: n=3 is odd'):
    config.from_json(Even, {'n': 3})


@pytest.mark.parametrize(
  ('cfg', 'message'),
  [
    (Run(steps='3'), "steps: want int, got '3'."),
    (Run(mesh=Mesh(tensor=None)), 'mesh.tensor: want int, got None.'),
    (Run(rules={1: 'a'}), 'rules: want a mapping of str to str or none, got {1:'),
  ],
)
def test_what_cannot_be_written_says_where_and_why(cfg, message):
  with pytest.raises(ConfigError) as e:
    config.to_json(cfg)
  assert message in str(e.value)


def test_values_and_keys_that_json_has_no_form_for_are_refused():
  @dataclasses.dataclass(frozen=True)
  class Odd:
    value: object = None
    keys: dict[int, int] = dataclasses.field(default_factory=dict)

  with pytest.raises(ConfigError, match='value: a complex cannot be stored, got 1j'):
    config.to_json(Odd(1j))
  with pytest.raises(
    ConfigError, match=r'keys: the keys of a stored mapping are strings, got \[1\]'
  ):
    config.to_json(Odd(keys={1: 2}))
