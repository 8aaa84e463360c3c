from tfm.cli import sheets
from tfm.cli.sheets import Sheet

SHEET = Sheet('norm', ('name', 'size', 'what'), (('rms', '12', 'x / |x|'), ('layer', '', '[x] it')))


def test_markdown_has_a_title_and_escaped_cells_with_numbers_to_the_right():
  assert SHEET.markdown().splitlines() == [
    '### norm',
    '',
    '| name | size | what |',
    '| --- | --: | --- |',
    r'| rms | 12 | x / \|x\| |',
    '| layer |  | [x] it |',
  ]


def test_a_column_without_a_number_is_text():
  assert '| --- |' in Sheet('t', ('a',), (('',),)).markdown()


def test_the_terminal_gets_every_cell_as_it_is(capsys):
  sheets.show([SHEET, Sheet('long', ('path',), (('a.' * 120,),))])
  out = capsys.readouterr().out
  assert 'norm' in out
  assert '[x] it' in out
  assert 'a.' * 120 in out


def test_markdown_is_printed_as_it_is(capsys):
  sheets.show([SHEET], markdown=True)
  assert capsys.readouterr().out == SHEET.markdown() + '\n'
