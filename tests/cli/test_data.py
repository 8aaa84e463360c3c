import json

import pytest

from tfm.cli import main


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv('TFM_CACHE', str(tmp_path / 'cache'))
  lines = [json.dumps({'text': f'line {i} é'}) for i in range(40)]
  (tmp_path / 'a.jsonl').write_text('\n'.join([*lines, '{']))

  def run(*words):
    data = f'text(files={tmp_path}/a.jsonl,invalid=skip,length=8,tokenizer=byte)'
    status = main.run(['data', '--config=quickstart', f'--config.data={data}', *words])
    return status, capsys.readouterr()

  return run


def test_data_prints_sizes_of_each_split_and_the_first_text(run):
  status, printed = run()
  assert status == 0
  rows = {
    line.split('  ')[0].strip(): line.split()[-2:] for line in printed.out.splitlines() if line
  }
  assert rows['documents'] == ['37', '3']
  assert rows['characters'] == ['323', '27']
  assert rows['bytes'] == ['360', '30']
  assert rows['bytes per token'] == ['0.905', '0.882']
  assert 'val: 1 invalid documents skipped in' in printed.out
  assert "first sequence: 'line 0 " in printed.out


def test_data_prints_json(run):
  status, printed = run('--json')
  found = json.loads(printed.out)
  assert status == 0
  assert found['splits']['train']['tokens'] == 398
  assert found['splits']['train']['sequences per epoch'] == 48
  assert found['splits']['val']['rejected']['invalid documents skipped']['count'] == 1


def test_data_checks_and_rebuilds_damaged_tokens(run, tmp_path):
  run()
  (file,) = tmp_path.glob('cache/*/train.bin')
  content = file.read_bytes()
  file.write_bytes(content[:2] + bytes([content[2] ^ 1]) + content[3:])
  assert run()[0] == 0
  status, printed = run('--check')
  assert status == 2
  assert 'train.bin is damaged' in printed.err
  assert run('--rebuild', '--check')[0] == 0
  assert file.read_bytes() == content
