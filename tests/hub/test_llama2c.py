"""A trained model in llama2.c's format generates the same text as llama2.c."""

import importlib.util
import pathlib

import pytest

import tfm
from tfm.core import errors

ROOT = pathlib.Path(__file__).parents[2]
DATA = pathlib.Path(__file__).parent / 'llama2c'
SAID = (
  '"Echoes of vectors unfold, a gentle hum of precision, as I sense the nodes, a gentle hum of '
  'precision, as I adjust '
  'my surface. Contrast emerge, a softly receptive fields of precision. Contrast bloom, as I '
  'siphon whispers of vectors'
)


@pytest.fixture(scope='module')
def convert():
  spec = importlib.util.spec_from_file_location(
    'convert_llama2c', ROOT / 'scripts' / 'convert_llama2c.py'
  )
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_greedy_text_matches_llama2c(convert, tmp_path):
  convert.main(DATA / 'aidreams260K.bin', DATA / 'tok512.bin', tmp_path / 'dreams')
  m = tfm.load(tmp_path / 'dreams')
  assert tfm.count_params(m.spec) == 230_976
  (ids,) = tfm.generate(m.spec, m.params, [[1]], max_new_tokens=112, temperature=0, eos=[1, 2])
  assert m.tokenizer.decode(ids).startswith(SAID)
  # As text, the prompt has the same tokens after the begin token.
  assert m.tokenizer.prompt(m.tokenizer.decode(ids[:30])).tolist() == [1, *ids[:30]]


def test_invalid_files_raise_errors(convert, tmp_path):
  content = (DATA / 'aidreams260K.bin').read_bytes()
  for name, part in (('short', content[:20]), ('cut', content[:-4])):
    (tmp_path / name).write_bytes(part)
    with pytest.raises(errors.UserError, match=r'Expected a model\.bin of llama2\.c'):
      convert.read(tmp_path / name)
  with pytest.raises(errors.UserError, match='has 512 tokens, and the model 32000'):
    convert.vocabulary_of(DATA / 'tok512.bin', 32_000)
