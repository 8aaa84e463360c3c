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
def test_config_round_trips_through_strict_json(run):
  text = json.dumps(config.to_json(run), allow_nan=False)
  assert config.from_json(Run, json.loads(text)) == run


def test_part_is_stored_with_its_name_and_all_fields():
  assert config.to_json(Block())['norm'] == {'part': 'layer', 'eps': 1e-5}


def test_class_is_stored_where_the_type_is_ambiguous():
  choice = Choice(Other(2), Alibi())
  stored = config.to_json(choice)
  assert stored == {
    'which': {'class': 'Other', 'a': 2},
    'piece': {'part': 'alibi', 'kind': 'relative position'},
  }
  assert config.from_json(Choice, stored) == choice


def test_nan_round_trips():
  assert math.isnan(config.from_json(Limits, config.to_json(Limits(math.nan))).low)


def test_stored_int_is_read_as_float():
  back = config.from_json(Limits, {'low': 1, 'high': 2})
  assert type(back.low) is float


def test_missing_stored_field_has_its_default():
  assert config.from_json(Run, {'steps': 3}) == Run(steps=3)


@pytest.mark.parametrize(
  ('cls', 'stored', 'message'),
  [
    (Run, {'stepz': 3}, "config: unknown stored field of Run 'stepz'. Did you mean 'steps'"),
    (Run, {'model': {'norm': {'part': 'rmz'}}},
     "model.norm: unknown norm 'rmz'. Did you mean 'rms'? Known: layer"),
    (Run, {'model': {'norm': {'part': 'rms', 'epz': 1}}},
     "model.norm: unknown stored field of RMS 'epz'. Did you mea"),
    (Run, {'model': {'norm': {'part': 'none'}}}, "model.norm: is 'none'. Expected a norm."),
    (Run, {'steps': '3'}, "steps: is '3'. Expected int."),
    (Run, {'betas': [1.0, 'x']}, "betas.1: is 'x'. Expected float."),
    (Run, {'betas': [1.0]}, 'betas: is [1.0]. Expected a tuple (float, float).'),
    (Run, {'files': {'a': 'b'}}, "files: is {'a': 'b'}. Expected a tuple of str."),
    (Run, {'rules': {'a': 3}}, "rules.a: is 3. Expected str or none."),
    (Run, 3, 'config: is 3. Expected a Run.'),
    (Choice, {}, 'config: the fields which of Choice are missing. Expected values.'),
    (Choice, {'which': {'a': 1}}, 'which: has no class. Expected Limits or Other.'),
    (Choice, {'which': {'class': 'Othr'}},
     "which: unknown stored class 'Othr'. Did you mean 'Other'? Known: Limits"),
    (Choice, {'which': {'class': 'Other'}, 'piece': {'part': 'rms', 'kind': 'nrm'}},
     'piece: unknown stored kind of p'),
  ],
)  # fmt: skip
def test_unreadable_json_names_path_and_reason(cls, stored, message):
  with pytest.raises(ConfigError) as e:
    config.from_json(cls, stored)
  assert message in str(e.value)


def test_error_of_post_init_on_reading_is_a_config_error():
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
    (Run(steps='3'), "steps: is '3'. Expected int."),
    (Run(mesh=Mesh(tensor=None)), 'mesh.tensor: is None. Expected int.'),
    (Run(rules={1: 'a'}), 'rules: is {1:'),
  ],
)
def test_unstorable_value_names_path_and_reason(cfg, message):
  with pytest.raises(ConfigError) as e:
    config.to_json(cfg)
  assert message in str(e.value)


def test_values_and_keys_without_json_form_are_refused():
  @dataclasses.dataclass(frozen=True)
  class Odd:
    value: object = None
    keys: dict[int, int] = dataclasses.field(default_factory=dict)

  with pytest.raises(ConfigError, match=r'value: is 1j, a complex\. Expected'):
    config.to_json(Odd(1j))
  with pytest.raises(ConfigError, match=r'keys: has the keys \[1\]. Expected'):
    config.to_json(Odd(keys={1: 2}))
