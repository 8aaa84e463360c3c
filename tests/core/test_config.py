import dataclasses

import pytest

from tfm.core import config
from tfm.core.errors import ConfigError

from .kinds import Block, Mixer, Model, Rope, Run


def test_validate_returns_a_valid_config():
  run = Run()
  assert config.validate(run) is run


def test_all_violations_are_raised_with_their_paths():
  bad = Run(
    model=Model(d_model=0, blocks=(Block(Mixer(6, 4)), Block(), Block(Mixer(inner=Mixer(3, 2)))))
  )
  with pytest.raises(ConfigError) as e:
    config.validate(bad)
  assert str(e.value).splitlines() == [
    'model: d_model=0 is not positive. Expected 1 or more.',
    'model.blocks.0.mixer: heads=6 is not a multiple of kv_heads=4. Expected a divisor.',
    'model.blocks.2.mixer.inner: heads=3 is not a multiple of kv_heads=2. Expected a divisor.',
  ]


def test_violation_may_name_a_field_inside():
  @dataclasses.dataclass(frozen=True)
  class Fussy:
    mixer: Mixer = Mixer()

    def check(self):
      yield 'mixer.heads: too few.'
      yield 'here: is no field.'

  with pytest.raises(ConfigError) as e:
    config.validate(Fussy())
  assert str(e.value).splitlines() == ['mixer.heads: too few.', 'config: here: is no field.']


def test_violation_of_the_root_names_the_config():
  with pytest.raises(ConfigError, match=r'^config: d_model=0 is not positive'):
    config.validate(Model(0))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'steps': 1.5}, 'steps: is 1.5. Expected int.'),
    ({'steps': True}, 'steps: is true. Expected int.'),
    ({'steps': '100'}, "steps: is '100'. Expected int."),
    ({'model': Rope()}, 'model: is rope. Expected a Model.'),
    ({'files': ['a']}, "files: is ['a']. Expected a tuple of str."),
    ({'betas': (0.9,)}, 'betas: is (0.9,). Expected a tuple (float, float).'),
    ({'schedule': 'cosine'}, 'schedule: is cosine. Expected float or a relative position.'),
    ({'rules': {'F': 3}}, 'rules: is {F: 3}. Expected a mapping of str to str or none.'),
    ({'model': Model(norm=Rope())}, 'model.norm: is rope. Expected a norm.'),
  ],
)
def test_value_of_the_wrong_type_is_named(change, message):
  with pytest.raises(ConfigError) as e:
    config.validate(Run(**change))
  assert str(e.value).splitlines()[0] == message


def test_checks_skip_fields_of_the_wrong_type():
  with pytest.raises(ConfigError) as e:
    config.validate(Mixer(heads='6', kv_heads=4))
  assert str(e.value) == "heads: is '6'. Expected int."


def test_int_is_accepted_as_float():
  config.validate(dataclasses.replace(Run(), lr=1, betas=(0, 1)))
