import dataclasses

import pytest

from tfm.core import config
from tfm.core.errors import ConfigError

from .kinds import RMS, Alibi, Block, Limits, Mesh, Mixer, Model, Norm, Rope, Run

RUN = Run()


def relatives(run: Run) -> list[object]:
  return [b.mixer.relative for b in run.model.blocks]


def test_path_of_names_sets_one_field():
  assert config.override(RUN, 'model.d_model', '128') == dataclasses.replace(
    RUN, model=Model(d_model=128)
  )


def test_index_selects_an_element_from_either_end():
  first, last = (config.override(RUN, f'model.blocks.{i}.mixer.heads', '2') for i in (0, -1))
  assert [b.mixer.heads for b in first.model.blocks] == [2, 8]
  assert [b.mixer.heads for b in last.model.blocks] == [4, 2]


def test_star_sets_every_element():
  run = config.override(RUN, 'model.blocks.*.mixer.heads', '2')
  assert [b.mixer.heads for b in run.model.blocks] == [2, 2]


def test_two_dots_match_any_depth():
  assert relatives(config.override(RUN, 'model..relative', 'alibi')) == [Alibi(), Alibi()]


@pytest.mark.parametrize(
  'path', ['..heads', '...heads', 'model..heads', 'model..mixer.heads', 'model..blocks.*..heads']
)
def test_two_dots_may_start_a_path_and_continue(path):
  run = config.override(RUN, path, '16')
  assert [b.mixer.heads for b in run.model.blocks] == [16, 16]


def test_two_dots_match_nested_fields_of_one_name():
  run = dataclasses.replace(RUN, model=Model(blocks=(Block(Mixer(inner=Mixer())),)))
  mixer = config.override(run, 'model..mixer.heads', '2').model.blocks[0].mixer
  assert (mixer.heads, mixer.inner.heads) == (2, 4)
  nested = dataclasses.replace(run, model=Model(blocks=(Block(Mixer(inner=Mixer(inner=Mixer()))),)))
  mixer = config.override(nested, '..inner.heads', '2').model.blocks[0].mixer
  assert (mixer.heads, mixer.inner.heads, mixer.inner.inner.heads) == (4, 2, 2)


def test_two_dots_skip_the_new_values():
  @dataclasses.dataclass(frozen=True)
  class Box:
    inner: 'Mixer | Box | None' = None
    depth: int = 0

    @classmethod
    def from_text(cls, text):
      return cls(cls(None, int(text)), int(text))

  Box.__init__.__annotations__['inner'] = Box.__annotations__['inner'] = Box | None
  assert config.override(Box(), '..inner', '3') == Box(Box(Box(None, 3), 3))


def test_two_dots_skip_places_without_the_field():
  assert relatives(config.override(RUN, 'model..relative.base', '7')) == [Rope(7.0), Alibi()]


def test_two_dots_replace_existing_parts_only():
  run = config.override(RUN, 'model..norm', 'rms')
  assert [b.mixer.norm for b in run.model.blocks] == [None, None]
  assert {b.norm for b in run.model.blocks} == {run.model.norm} == {RMS()}


def test_two_dots_add_parts_if_none_exists_or_owner_is_named():
  first = config.override(RUN, 'model.blocks..mixer.norm', 'rms')
  assert [b.mixer.norm for b in first.model.blocks] == [RMS(), RMS()]
  assert config.override(Mixer(inner=Mixer()), '..norm', 'rms') == Mixer(
    norm=RMS(), inner=Mixer(norm=RMS())
  )


def test_star_skips_elements_without_the_field():
  assert relatives(config.override(RUN, 'model.blocks.*.mixer.relative.base', '7')) == [
    Rope(7.0),
    Alibi(),
  ]


def test_part_chosen_by_name_has_default_fields():
  assert relatives(config.override(RUN, 'model..relative', 'rope')) == [Rope(), Rope()]


def test_part_and_its_fields_are_set_in_one_command():
  settings = [
    ('model..relative', 'rope'),
    ('model..relative.base', '5'),
    ('model..relative.layout', 'pairs'),
  ]
  assert relatives(config.resolve(RUN, settings).config) == [Rope(5.0, 'pairs')] * 2


def test_later_settings_win():
  run = config.resolve(
    RUN, [('model..norm', 'layer'), ('model.norm', 'rms'), ('model..eps', '0.1')]
  ).config
  assert (run.model.blocks[0].norm, run.model.norm) == (Norm(0.1), RMS(0.1))


def test_path_set_to_two_values_is_an_error():
  assert config.resolve(RUN, [('steps', '5'), ('steps', '5')]).config.steps == 5
  with pytest.raises(
    ConfigError, match=r"steps: set twice, to '5' and to '6'\. Expected one value\."
  ):
    config.resolve(RUN, [('steps', '5'), ('lr', '1'), ('steps', '6')])


def test_spellings_of_one_path_are_equal():
  with pytest.raises(ConfigError, match='set twice'):
    config.resolve(RUN, [('..heads', '5'), ('...heads', '6')])


def test_mapping_is_set_by_key_and_accepts_new_keys():
  run = config.override(config.override(RUN, 'rules', '{F: tensor, D: none}'), 'rules.D', 'fsdp')
  assert config.override(run, 'rules.V', 'tensor').rules == {
    'F': 'tensor',
    'D': 'fsdp',
    'V': 'tensor',
  }
  assert config.override(run, 'rules.*', 'none').rules == {'F': None, 'D': None}


def test_dataclass_is_set_by_fields_text_or_default():
  assert config.override(RUN, 'mesh.tensor', '2').mesh == Mesh(-1, 2)
  assert config.override(RUN, 'mesh', '2x4').mesh == Mesh(2, 4)
  assert config.override(RUN, 'limits', 'Limits').limits == Limits()


def test_tuple_elements_are_parsed_by_their_types():
  assert config.override(RUN, 'betas.1', '1').betas == (0.9, 1.0)


def test_error_of_post_init_is_a_config_error():
  @dataclasses.dataclass(frozen=True)
  class Even:
    n: int = 0

    def __post_init__(self):
      if self.n % 2:
        raise ValueError(f'n={self.n} is odd')

  with pytest.raises(ConfigError, match='config: n=3 is odd'):
    config.override(Even(), 'n', '3')


@pytest.mark.parametrize(
  ('path', 'text', 'message'),
  [
    ('modle.d_model', '1', "config: unknown field 'modle'. Did you mean 'model' or 'mode"),
    ('model.d_modle', '1',
     "model: unknown field 'd_modle'. Did you mean 'd_model'? Known: blocks, d_model, norm."),
    ('model.relative', 'rope',
     'The field exists at model.blocks.0.mixer.relative; model..relative sets all of them.'),
    ('..relativ', 'rope',
     "..relativ: unknown field 'relativ'. Did you mean 'relative'? Nearest of 25 "
     "known: relative, "),
    ('model.blocks.2.norm', 'rms', "model.blocks: no element '2'. Expected an index below 2 or *."),
    ('model.blocks.-3.norm', 'rms',
     "model.blocks: no element '-3'. Expected an index below 2 or *."),
    ('model.blocks.norm', 'rms', 'model.blocks..norm sets all of them.'),
    ('files.0', 'x', "files: no element '0'. Expected nothing: the tuple is empty."),
    ('steps.few', '1', "steps: is '100', which has no field 'few'."),
    ('model..inner.heads', '1',
     "does not fit any of 2 places. model.blocks.0.mixer.inner: is 'none', which has no field"),
    ('model.blocks.1.mixer.relative.base', '1',
     "model.blocks.1.mixer.relative=alibi: has no fields, and 'base' is unknown."),
    ('model.blocks.1.mixer.relative.base', '1',
     'It is a field of rope; set model.blocks.1.mixer.relative=rope first.'),
    ('model..relative.bass', '1',
     "model.blocks.0.mixer.relative=rope: unknown field 'bass'. Did you mean 'base'? Kno"),
    ('model.blocks.*.relative', 'rope',
     "model.blocks.*.relative: does not fit any of 2 places. model.blocks.0: unkno"),
    ('rules.*', 'x', 'rules.*: does not fit any of 0 places.'),
    ('', '1', 'an empty path: names no field. Expected names joined by dots, as model..norm.'),
    ('model..', '1', 'model..: names no field.'),
    ('.model', '1', '.model: names no field.'),
    ('model..0', '1', "model..0: '..' finds fields by name, got '0'. Expected a name after it."),
  ],
)  # fmt: skip
def test_unknown_path_error_lists_near_names(path, text, message):
  with pytest.raises(ConfigError) as e:
    config.override(RUN, path, text)
  assert message.removesuffix("' or 'mode") in str(e.value)


def test_repeated_errors_of_layers_are_listed_once():
  run = dataclasses.replace(RUN, model=Model(blocks=(Block(),) * 40))
  with pytest.raises(ConfigError) as e:
    config.override(run, '..norm.epsilon', '1')
  assert len(str(e.value)) < 450
