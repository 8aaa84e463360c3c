from tfm.cli import sheets
from tfm.cli.sheets import Sheet

SHEET = Sheet('norm', ('name', 'size', 'what'), (('rms', '12', 'x / |x|'), ('layer', '', '[x] it')))


def test_markdown_escapes_cells_and_aligns_numbers():
  assert SHEET.markdown().splitlines() == [
    '### norm',
    '',
    '| name | size | what |',
    '| --- | --: | --- |',
    r'| rms | 12 | x / \|x\| |',
    '| layer |  | [x] it |',
  ]


def test_column_without_numbers_is_left_aligned():
  assert '| --- |' in Sheet('t', ('a',), (('',),)).markdown()


def test_terminal_table_shows_every_cell(capsys):
  sheets.show([SHEET, Sheet('long', ('path',), (('a.' * 120,),))])
  out = capsys.readouterr().out
  assert 'norm' in out
  assert '[x] it' in out
  assert 'a.' * 120 in ''.join(out.split())


def test_terminal_tables_wrap_at_80_columns(capsys, monkeypatch):
  monkeypatch.delenv('COLUMNS', raising=False)
  row = ('a name', '123', 'words ' * 60)
  sheets.show([Sheet('wide', ('name', 'size', 'text'), (row,))])
  out = capsys.readouterr().out
  assert max(map(len, out.splitlines())) <= 80
  assert '123' in out


def test_narrow_columns_break_no_short_word(capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '60')
  row = ('a' * 30, 'attention, parallel', 'text ' * 40)
  sheets.show([Sheet('wide', ('name', 'parts', 'text'), (row,))])
  assert 'attention' in capsys.readouterr().out.replace(',', ' ').split()


def test_filter_keeps_rows_with_all_words():
  assert [row[0] for row in SHEET.containing(['NORM', '12']).rows] == ['rms']
  assert SHEET.containing(['rms', 'layer']).rows == ()
  assert SHEET.containing(['x'], columns=1).rows == ()


def test_markdown_is_printed_unchanged(capsys):
  sheets.show([SHEET], markdown=True)
  assert capsys.readouterr().out == SHEET.markdown() + '\n'
