"""Renamed fields and table entries: stored configs keep working, new input gets an error with the
new name.
"""

import pytest

from tfm.core import override, serial
from tfm.core.errors import ConfigError
from tfm.model.spec import Block, Model, Segment
from tfm.parts.mixer.conv import Conv
from tfm.parts.residual_layout import TABLE, Post, Pre, Unnormalised
from tfm.parts.residual_scale.fixed import Fixed

MODEL = Model(segments=(Segment((Block(),)),))


@pytest.mark.parametrize(
  ('stored', 'expected'),
  [
    ({'wiring': {'part': 'post'}}, Block(residual_layout=Post())),
    ({'wiring': {'part': 'bare'}}, Block(residual_layout=Unnormalised())),
    ({'wiring': {'part': 'pre', 'bare': ['mixer']}}, Block(residual_layout=Pre(('mixer',)))),
    ({'gain': {'part': 'fixed', 'factor': 0.5}}, Block(residual_scale=Fixed(0.5))),
    (
      {'aside': {'part': 'conv'}, 'wiring': {'part': 'post'}},
      Block(extra_branch=Conv(), residual_layout=Post()),
    ),
  ],
  ids=['field=wiring', 'entry=bare', 'field=bare', 'field=gain', 'field=aside'],
)
def test_stored_configs_may_use_former_names(stored, expected):
  assert serial.from_json(Block, stored) == expected


@pytest.mark.parametrize(
  ('path', 'text', 'message'),
  [
    (
      'segments.0.pattern.0.wiring',
      'post',
      "field 'wiring' has been renamed. Expected 'residual_layout'.",
    ),
    ('..gain', 'rezero', "..gain: field 'gain' has been renamed. Expected 'residual_scale'."),
    (
      '..residual_layout',
      'bare',
      "residual_layout 'bare' has been renamed. Expected 'unnormalised'.",
    ),
  ],
  ids=['path=exact', 'path=any-depth', 'path=entry'],
)
def test_overrides_with_former_names_name_the_new_one(path, text, message):
  with pytest.raises(ConfigError) as error:
    override.override(MODEL, path, text)
  assert message in str(error.value)


def test_former_names_are_not_entries():
  assert 'bare' not in TABLE
  assert set(TABLE.former.values()) <= set(TABLE)
