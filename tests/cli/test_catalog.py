import dataclasses

from tfm import zoo
from tfm.cli import catalog
from tfm.core.registry import Part
from tfm.parts import norm


def rows(sheets, kind):
  return {row[0]: row for s in sheets if s.title.startswith(kind) for row in s.rows}


def test_every_part_is_listed_with_its_fields():
  tables, sheets = catalog.tables(), catalog.parts()
  assert {
    'tfm.parts.norm',
    'tfm.parts.mixer',
    'tfm.optim',
    'tfm.optim.schedule',
    'tfm.data',
    'tfm.tasks',
  } <= set(tables)
  assert [len(t) for t in tables.values()] == [len(s.rows) for s in sheets]
  assert rows(sheets, 'norm')['rms'][2].startswith('eps=1e-06')


def test_every_part_has_a_one_sentence_description():
  assert [row[0] for sheet in catalog.parts() for row in sheet.rows if not row[1]] == []


def test_description_is_one_whole_sentence(monkeypatch):
  @dataclasses.dataclass(frozen=True)
  class Long(Part):
    """a / (b + 1.5)
    of c. And more.

    And more."""

    field: int
    other: str = ''

  @dataclasses.dataclass(frozen=True)
  class Silent(Part):
    pass

  monkeypatch.setattr(norm, 'TABLE', type(norm.TABLE)('norm', long=Long, silent=Silent))
  got = rows(catalog.parts(), 'norm')
  assert got['long'] == ('long', 'a / (b + 1.5) of c.', "field, other=''")
  assert got['silent'] == ('silent', '', '')


def test_every_zoo_model_is_listed_with_its_size():
  got = rows([catalog.zoo()], 'models')
  assert set(got) == set(zoo.names())
  assert got['gpt2'][:5] == ('gpt2', '124,439,808', '12', '768', '50,257')
  assert got['vaswani-base'][2] == '6 + 6'
  assert got['vit-base-16'][:5] == ('vit-base-16', '86,567,656', '12', '768', 'none')
