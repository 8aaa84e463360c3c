import dataclasses

import pytest

from tfm.core import config
from tfm.core.errors import ConfigError

from .kinds import Alibi, Block, Mixer, Model, Norm, Rope, Run


def sources(cfg, settings=(), pattern=''):
  return {
    v.path: (v.text, v.source) for v in config.explain(config.resolve(cfg, settings), pattern)
  }


def test_a_value_comes_from_its_default_the_file_or_a_flag():
  got = sources(Run(steps=7), [('lr', '0.1')])
  assert got['name'] == ('run', 'default')
  assert got['steps'] == ('7', 'file')
  assert got['lr'] == ('0.1', 'flag --config.lr=0.1')


def test_a_default_value_that_differs_from_its_class_is_still_a_default():
  assert sources(Run())['model.blocks.0.mixer.relative.base'] == ('500000.0', 'default')


def test_a_part_put_there_by_the_file_is_from_the_file_and_its_fields_are_defaults():
  got = sources(
    Run(model=Model(blocks=(Block(Mixer(relative=Alibi()), Norm(1e-3)),))), pattern='model.blocks.0'
  )
  assert got['model.blocks.0.mixer.relative'] == ('alibi', 'file')
  assert got['model.blocks.0.norm'] == ('layer', 'default')
  assert got['model.blocks.0.norm.eps'] == ('0.001', 'file')


def test_the_fields_of_a_part_chosen_by_a_flag_say_so():
  got = sources(
    Run(), [('model..relative', 'rope'), ('model.blocks.0..base', '3')], 'model..relative'
  )
  chosen = 'flag --config.model..relative=rope'
  assert got['model.blocks.0.mixer.relative'] == ('rope', chosen)
  assert got['model.blocks.0.mixer.relative.base'] == (
    '3.0',
    'flag --config.model.blocks.0..base=3',
  )
  assert got['model.blocks.1.mixer.relative.base'] == ('10000.0', f'default, chosen by {chosen}')


def test_a_flag_that_sets_a_field_has_not_chosen_the_part():
  got = sources(Run(model=Model(norm=Norm())), [('model.norm.eps', '1')])
  assert got['model.norm'] == ('layer', 'file')
  assert got['model.norm.eps'] == ('1.0', 'flag --config.model.norm.eps=1')


def test_a_flag_that_replaces_a_part_takes_over_from_the_flags_before_it():
  got = sources(Run(), [('model.blocks.0..base', '3'), ('model..relative', 'alibi')])
  assert got['model.blocks.0.mixer.relative'] == ('alibi', 'flag --config.model..relative=alibi')
  assert 'model.blocks.0.mixer.relative.base' not in got


def test_flags_that_fill_part_of_a_value_or_more_than_it_are_named():
  got = sources(Run(), [('rules.F', 'x'), ('mesh', '2x1')])
  assert got['rules'] == ('{F: x}', 'flag --config.rules.F=x')
  assert got['mesh.data'] == ('2', 'flag --config.mesh=2x1')
  assert got['mesh.tensor'] == ('1', 'default, chosen by flag --config.mesh=2x1')


def test_a_leading_step_to_any_depth_is_shown_as_it_is_typed():
  assert sources(Run(), [('..d_model', '2')])['model.d_model'][1] == 'flag --config..d_model=2'


@pytest.mark.parametrize(
  ('pattern', 'paths'),
  [
    ('steps', ['steps']),
    ('..eps', ['model.blocks.0.norm.eps', 'model.blocks.1.norm.eps', 'model.norm.eps']),
    ('model.blocks.*.mixer.heads', ['model.blocks.0.mixer.heads', 'model.blocks.1.mixer.heads']),
    ('model.norm', ['model.norm', 'model.norm.eps']),
  ],
)
def test_a_pattern_picks_the_values_it_leads_to_and_all_below(pattern, paths):
  assert list(sources(Run(), pattern=pattern)) == paths


@pytest.mark.parametrize(
  ('pattern', 'message'),
  [
    ('model..epz', "model..epz: leads to no value. unknown field 'epz'. Did you mean "),
    ('steps.lr', 'steps.lr: leads to no value. Expected a path.'),
  ],
)
def test_a_pattern_that_leads_nowhere_is_an_error(pattern, message):
  with pytest.raises(ConfigError) as e:
    sources(Run(), pattern=pattern)
  assert message in str(e.value)


def test_two_equal_configs_have_no_difference():
  assert config.diff(Run(), Run()) == []


def test_a_difference_is_told_by_the_smallest_values_that_differ():
  other = Run(
    model=Model(
      blocks=(Block(Mixer(relative=Rope(1.0))), Block(Mixer(8, relative=Rope())), Block())
    ),
    files=('a', 'b'),
    rules={'F': 'x'},
    schedule=Alibi(),
  )
  assert config.diff(Run(), other) == [
    'model.blocks.0.mixer.relative.base: 500000.0 -> 1.0',
    'model.blocks.1.mixer.relative: alibi -> rope',
    'model.blocks.2: absent -> Block',
    'files: () -> (a, b)',
    'rules.F: absent -> x',
    'schedule: 1.0 -> alibi',
  ]
  assert 'model.blocks.2: Block -> absent' in config.diff(other, Run())


def test_a_difference_of_type_alone_is_one():
  assert config.diff(Run(), dataclasses.replace(Run(), steps=100.0)) == ['steps: 100 -> 100.0']
  assert config.diff(1, 2) == ['config: 1 -> 2']
