import dataclasses

import pytest

from tfm.core import config
from tfm.core.errors import ConfigError

from .kinds import Alibi, Block, Mixer, Model, Norm, Rope, Run


def sources(cfg, settings=(), pattern=''):
  return {
    v.path: (v.text, v.source) for v in config.explain(config.resolve(cfg, settings), pattern)
  }


def test_values_come_from_default_file_or_flag():
  got = sources(Run(steps=7), [('lr', '0.1')])
  assert got['name'] == ('run', 'default')
  assert got['steps'] == ('7', 'file')
  assert got['lr'] == ('0.1', 'flag --config.lr=0.1')


def test_default_of_a_field_may_differ_from_its_class():
  assert sources(Run())['model.blocks.0.mixer.relative.base'] == ('500000.0', 'default')


def test_fields_of_a_part_from_the_file_are_defaults():
  got = sources(
    Run(model=Model(blocks=(Block(Mixer(relative=Alibi()), Norm(1e-3)),))), pattern='model.blocks.0'
  )
  assert got['model.blocks.0.mixer.relative'] == ('alibi', 'file')
  assert got['model.blocks.0.norm'] == ('layer', 'default')
  assert got['model.blocks.0.norm.eps'] == ('0.001', 'file')


def test_fields_of_a_part_name_the_flag_that_chose_it():
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


def test_flag_of_a_field_does_not_choose_the_part():
  got = sources(Run(model=Model(norm=Norm())), [('model.norm.eps', '1')])
  assert got['model.norm'] == ('layer', 'file')
  assert got['model.norm.eps'] == ('1.0', 'flag --config.model.norm.eps=1')


def test_flag_that_replaces_a_part_removes_earlier_sources():
  got = sources(Run(), [('model.blocks.0..base', '3'), ('model..relative', 'alibi')])
  assert got['model.blocks.0.mixer.relative'] == ('alibi', 'flag --config.model..relative=alibi')
  assert 'model.blocks.0.mixer.relative.base' not in got


def test_flags_inside_and_above_a_value_are_named():
  got = sources(Run(), [('rules.F', 'x'), ('mesh', '2x1')])
  assert got['rules'] == ('{F: x}', 'flag --config.rules.F=x')
  assert got['mesh.data'] == ('2', 'flag --config.mesh=2x1')
  assert got['mesh.tensor'] == ('1', 'default, chosen by flag --config.mesh=2x1')


def test_source_shows_the_flag_as_typed():
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
def test_pattern_selects_values_and_everything_below(pattern, paths):
  assert list(sources(Run(), pattern=pattern)) == paths


@pytest.mark.parametrize(
  ('pattern', 'message'),
  [
    ('model..epz', "model..epz: matches no value. unknown field 'epz'. Did you mean "),
    ('steps.lr', 'steps.lr: matches no value. Expected a path.'),
  ],
)
def test_pattern_without_matches_is_an_error(pattern, message):
  with pytest.raises(ConfigError) as e:
    sources(Run(), pattern=pattern)
  assert message in str(e.value)


def test_equal_configs_have_no_difference():
  assert config.diff(Run(), Run()) == []


def test_diff_reports_the_smallest_differing_values():
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


def test_diff_reports_values_of_different_types():
  assert config.diff(Run(), dataclasses.replace(Run(), steps=100.0)) == ['steps: 100 -> 100.0']
  assert config.diff(1, 2) == ['config: 1 -> 2']
