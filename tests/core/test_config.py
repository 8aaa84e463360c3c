import dataclasses

import pytest

from tfm.core import config
from tfm.core.errors import ConfigError

from .kinds import Block, Mixer, Model, Rope, Run


def test_a_config_that_can_be_is_returned():
  run = Run()
  assert config.validate(run) is run


def test_all_violations_are_raised_together_with_their_paths():
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


def test_a_sentence_that_begins_with_a_path_inside_is_put_there():
  @dataclasses.dataclass(frozen=True)
  class Fussy:
    mixer: Mixer = Mixer()

    def check(self):
      yield 'mixer.heads: too few.'
      yield 'here: is no field.'

  with pytest.raises(ConfigError) as e:
    config.validate(Fussy())
  assert str(e.value).splitlines() == ['mixer.heads: too few.', 'config: here: is no field.']


def test_what_the_root_says_is_said_of_the_config():
  with pytest.raises(ConfigError, match=r'^config: d_model=0 is not positive'):
    config.validate(Model(0))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'steps': 1.5}, 'steps: want int, got 1.5.'),
    ({'steps': True}, 'steps: want int, got true.'),
    ({'steps': '100'}, "steps: want int, got '100'."),
    ({'model': Rope()}, 'model: want a Model, got rope.'),
    ({'files': ['a']}, "files: want a tuple of str, got ['a']."),
    ({'betas': (0.9,)}, 'betas: want a tuple (float, float), got (0.9,).'),
    ({'schedule': 'cosine'}, 'schedule: want float or a relative position, got cosine.'),
    ({'rules': {'F': 3}}, 'rules: want a mapping of str to str or none, got {F: 3}.'),
    ({'model': Model(norm=Rope())}, 'model.norm: want a norm, got rope.'),
  ],
)
def test_a_value_of_the_wrong_type_in_a_file_is_named(change, message):
  with pytest.raises(ConfigError) as e:
    config.validate(Run(**change))
  assert str(e.value).splitlines()[0] == message


def test_checks_are_not_asked_about_fields_of_the_wrong_type():
  with pytest.raises(ConfigError) as e:
    config.validate(Mixer(heads='6', kv_heads=4))
  assert str(e.value) == "heads: want int, got '6'."


def test_an_int_is_a_float():
  config.validate(dataclasses.replace(Run(), lr=1, betas=(0, 1)))
