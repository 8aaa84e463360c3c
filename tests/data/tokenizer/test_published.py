"""Tokenizers of published folders match `transformers`."""

import functools
import json
import pathlib
import shutil
import tempfile
import warnings

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.data.tokenizer.compare import assert_equal, theirs
from tests.data.tokenizer.folders import SLOW, WHOLE, write
from tests.data.tokenizer.strings import STRINGS
from tfm.core.errors import UserError
from tfm.data import tokenizer as tokenizer_lib
from tfm.data.tokenizer import File
from tfm.data.tokenizer.published import read_tokenizer

#: Some classes of each kind of model. The others differ from them in settings.
_FEW = ('bert', 'ctrl', 'gpt2', 'llama', 'marian', 'mbart', 'roberta', 't5')
#: Folders that share the class of another folder, and differ in names.
_LIKE_OTHERS = (
  'bart', 'distilbert', 'electra', 'layoutlm', 'led', 'longformer', 'mt5', 'phi3', 'qwen3',
  'squeezebert', 'stablelm',
)  # fmt: skip


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Return the folder of a name, made once."""

  @functools.cache
  def make(name):
    folder = tmp_path_factory.mktemp(name)
    (SLOW | WHOLE)[name](folder)
    return folder

  return make


@pytest.mark.oracle
@pytest.mark.large(when=lambda name: name in _LIKE_OTHERS)
@pytest.mark.parametrize('name', sorted(SLOW))
def test_older_files_match_transformers(made, name, tmp_path):
  expected = assert_equal(made(name))
  if expected.is_fast:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      expected.save_pretrained(str(tmp_path))
    shutil.copy(made(name) / 'config.json', tmp_path)
    assert (tmp_path / 'tokenizer.json').is_file()
    assert_equal(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize('name', sorted(WHOLE))
def test_whole_files_match_transformers(made, name):
  assert_equal(made(name))


_NEW = {
  'content': '<new>',
  'lstrip': True,
  'rstrip': False,
  'normalized': False,
  'single_word': False,
}
_SETTINGS = {
  'accents': (
    'bert',
    {'do_lower_case': True, 'strip_accents': False, 'tokenize_chinese_chars': False},
  ),
  'added': (
    'gpt2',
    {
      'added_tokens_decoder': {
        '900': {**_NEW, 'special': False},
        '901': {**_NEW, 'content': '[NEW]'},
      }
    },
  ),
  'both_extras': (
    'plbart',
    {'additional_special_tokens': ['[NEW]'], 'extra_special_tokens': {'image_token': '<new>'}},
  ),
  'extras': (
    't5',
    {'extra_special_tokens': {'image_token': '<new>'}, 'additional_special_tokens': ['[NEW]']},
  ),
  'flags': (
    'roberta',
    {'mask_token': {'__type': 'AddedToken', **_NEW, 'content': '<mask>'}, 'add_eos_token': True},
  ),
  'legacy': ('m2m_100', {'legacy': False, 'additional_special_tokens': ['__en__', '<new>']}),
  'no_prefix': ('llama', {'add_prefix_space': False, 'add_eos_token': True, 'legacy': True}),
  'punctuation': ('deberta_v2', {'split_by_punct': True, 'do_lower_case': True}),
  'split': ('prophetnet', {'split_special_tokens': True}),
  'task': ('whisper', {'language': 'german', 'task': 'transcribe', 'predict_timestamps': True}),
}


@pytest.mark.oracle
@pytest.mark.parametrize('setting', sorted(_SETTINGS))
def test_settings_match_transformers(tmp_path, setting):
  name, values = _SETTINGS[setting]
  SLOW[name](tmp_path)
  path = tmp_path / 'tokenizer_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | values))
  assert_equal(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize('name', ['bert', 'llama', 'qwen2', 'roberta', 't5'])
def test_older_maps_of_special_tokens_match_transformers(tmp_path, name):
  SLOW[name](tmp_path)
  path = tmp_path / 'tokenizer_config.json'
  config = json.loads(path.read_text())
  config.pop('added_tokens_decoder', None)
  path.write_text(json.dumps(config))
  named = {'eos_token': '</s>', 'unk_token': '[UNK]' if name == 'bert' else '<unk>'}
  if name == 'qwen2':
    named = {'eos_token': '<|im_end|>', 'pad_token': '<|endoftext|>'}
  texts = {
    n: {'content': t, 'lstrip': True, 'rstrip': False, 'normalized': False, 'single_word': False}
    for n, t in named.items()
  }
  mapping = texts | {'additional_special_tokens': ['<new>']}
  (tmp_path / 'special_tokens_map.json').write_text(json.dumps(mapping))
  assert_equal(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize('name', ['gpt2', 'llama', 'qwen2', 'roberta_prefixed'])
def test_any_text_matches_transformers(made, name):
  expected, ours = theirs(made(name)), read_tokenizer(made(name))

  @hypothesis.given(st.text(max_size=40))
  @hypothesis.settings(max_examples=150, deadline=None, database=None)
  def match(text):
    ids = expected(text)['input_ids']
    assert ours.prompt(text).tolist() == ids
    assert ours.decode(ids) == expected.decode(ids, skip_special_tokens=True)

  match()


@pytest.mark.oracle
@pytest.mark.parametrize('name', ['gpt2', 'llama', 'bert', 't5', 'marian'])
def test_padding_of_the_table_has_no_text(made, name):
  expected, ours = theirs(made(name)), read_tokenizer(made(name))
  ids = expected('the cat')['input_ids']
  assert ours.decode([*ids, ours.size + 3]) == expected.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize('name', _FEW)
def test_saved_vocabulary_gives_the_same_ids(made, name, tmp_path):
  ours = read_tokenizer(made(name))
  ours.save(tmp_path)
  again = tokenizer_lib.load(tmp_path)
  assert again.same(ours)
  assert again.specials == ours.specials
  for text in STRINGS[::7]:
    ids = ours.prompt(text)
    assert again.prompt(text).tolist() == ids.tolist()
    assert again.decode(ids) == ours.decode(ids)
    assert again.encode(text).tolist() == ours.encode(text).tolist()


@pytest.mark.parametrize(
  'name', [*_FEW, 'clip', 'whisper', 'xlm_roberta', 'nllb', 'llama3', 'esm', 'plbart']
)
def test_text_that_spells_special_tokens_is_text(made, name):
  ours = read_tokenizer(made(name))
  unknown = ours.specials.get('unk')
  for text in STRINGS:
    ids = ours.encode(text)
    ids = ids[ids != unknown] if unknown is not None else ids
    assert not ours.is_special[ids].any(), text


@pytest.mark.parametrize('name', ['gpt2', 'llama', 'llama_no_prefix', 't5', 'llama2', 'gemma'])
def test_long_texts_are_encoded_in_parts(made, name):
  ours = read_tokenizer(made(name))
  text = ' '.join(
    ['the cat sat on the mat', 'Hello, world!', 'naïve café 42', 'def f(x): return x'] * 60
  )
  at = ours.split_point(text)
  assert 0 < at < len(text)
  parts = [*ours.encode(text[:at]), *ours.continuation.encode(text[at:])]
  assert parts == ours.encode(text).tolist()


@pytest.mark.parametrize(
  ('name', 'before', 'after'),
  [
    ('bert', ['cls'], ['sep']),
    ('gpt2', [], []),
    ('llama', ['bos'], []),
    ('mbart', [], ['eos', 'en_XX']),
    ('opt', ['bos'], []),
    ('roberta', ['cls'], ['sep']),
    ('t5', [], ['eos']),
    ('xlm_roberta', ['bos'], ['eos']),
    ('xlnet', [], ['sep', 'cls']),
  ],
)
def test_prompts_have_the_frame_of_their_family(made, name, before, after):
  ours = read_tokenizer(made(name))
  number = lambda text: ours.specials.get(text, ours.inner.token_to_id(text))
  bare = ours.prompt('the cat', framed=False).tolist()
  assert ours.prompt('the cat').tolist() == [*map(number, before), *bare, *map(number, after)]
  assert bare == ours.encode('the cat').tolist()
  assert ours.decode(ours.prompt('the cat')) == 'the cat'


def test_pegasus_ids_begin_behind_its_reserved_tokens(made):
  ours = read_tokenizer(made('pegasus'))
  assert ours.inner.id_to_token(2) == '<mask_1>'
  assert ours.inner.id_to_token(4) == '<unk_2>'
  assert ours.encode('the cat').min() >= 105


def test_folder_defines_its_special_tokens(made):
  ours = read_tokenizer(made('llama3'))
  assert ours.eos == ours.inner.token_to_id('<|eot_id|>')
  assert ours.bos == ours.inner.token_to_id('<|begin_of_text|>')


def test_config_ids_complete_the_special_tokens(made, tmp_path):
  shutil.copy(made('llama3') / 'tokenizer.json', tmp_path)
  number = read_tokenizer(made('llama3')).inner.token_to_id('<|end_of_text|>')
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'llama', 'eos_token_id': number}))
  assert read_tokenizer(tmp_path).eos == number
  assert File(str(tmp_path / 'tokenizer.json')).learn(lambda split: iter(())).eos == number


@pytest.mark.parametrize('name', ['llama', 'ctrl'])
def test_folder_is_a_tokenizer_to_train_with(made, name):
  spec = File(str(made(name)))
  ours = spec.learn(lambda split: iter(()))
  assert ours.encode('the cat').tolist() == read_tokenizer(made(name)).encode('the cat').tolist()
  assert ours.prompt('the cat').tolist() == read_tokenizer(made(name)).prompt('the cat').tolist()
  assert spec.identity() == File(str(made(name))).identity()


def test_unsupported_tokenizer_is_an_error_at_first_use(tmp_path):
  write(tmp_path, {'tokenizer_class': 'BioGptTokenizer'}, vocab__json={'a': 0}, merges__txt='#v\n')
  (tmp_path / 'config.json').write_text(
    json.dumps({'model_type': 'biogpt', 'vocab_size': 9, 'eos_token_id': 2})
  )
  ours = read_tokenizer(tmp_path)
  assert (ours.size, ours.eos) == (9, 2)
  with pytest.raises(
    UserError, match=r'is a BioGptTokenizer, which needs the rules of Moses \(sacremoses\)\. tfm'
  ):
    ours.prompt('a')
  with pytest.raises(UserError, match='Expected token ids instead of text'):
    ours.decode([0])
  ours.save(tmp_path / 'kept')
  with pytest.raises(UserError, match='is a BioGptTokenizer'):
    tokenizer_lib.load(tmp_path / 'kept').encode('a')


def test_tekken_files_without_special_tokens_are_refused(tmp_path):
  write(tmp_path, None, 'mistral', tekken__json={'config': {}})
  with pytest.raises(
    UserError, match=r'tekken\.json: lists no special tokens\. Expected a newer file'
  ):
    read_tokenizer(tmp_path)


@pytest.mark.parametrize(
  ('config', 'files', 'message'),
  [
    (
      {'tokenizer_class': 'BertweetTokenizer', 'normalization': True},
      ('vocab.txt', 'bpe.codes'),
      'normalization is true',
    ),
    (
      {'tokenizer_class': 'GPTNeoXJapaneseTokenizer', 'do_clean_text': True},
      ('vocab.txt', 'emoji.json'),
      'do_clean_text is true',
    ),
  ],
)
def test_settings_that_rewrite_text_are_refused(tmp_path, config, files, message):
  write(tmp_path, config)
  for name in files:
    (tmp_path / name).write_text('{}')
  with pytest.raises(UserError, match=message):
    read_tokenizer(tmp_path)


@pytest.mark.oracle
@pytest.mark.parametrize(
  ('name', 'language'),
  [
    ('m2m_100', 'fr'),
    ('mbart', 'fr_XX'),
    ('mbart50', 'uk_UA'),
    ('nllb', 'fra_Latn'),
    ('plbart', 'python'),
    ('whisper', 'de'),
  ],
)
def test_prompts_of_a_language_match_transformers(made, name, language):
  setting = 'language' if name == 'whisper' else 'src_lang'
  expected, ours = (
    theirs(made(name), **{setting: language}),
    read_tokenizer(made(name), language=language),
  )
  assert ours.prompt('the cat').tolist() == expected('the cat')['input_ids']
  assert ours.prompt('the cat').tolist() != read_tokenizer(made(name)).prompt('the cat').tolist()


def test_languages_that_a_tokenizer_lacks_are_refused(made):
  for name, language, message in (
    ('nllb', 'fr', r"language 'fr' is not in its tokenizer\. Expected a code such as 'eng_Latn'"),
    ('m2m_100', 'fra', r"src_lang: unknown language 'fra'\. Did you mean 'fr'"),
    ('plbart', 'ruby', "src_lang: unknown language 'ruby'"),
    ('whisper', 'klingon', "language: unknown language 'klingon'"),
    ('bert', 'en', r"language is 'en', but its tokenizer \(BertTokenizer\) has no languages"),
  ):
    with pytest.raises(UserError, match=message):
      read_tokenizer(made(name), language=language)


def test_tokens_are_found_by_their_spelling(made):
  for name, token in (
    ('nllb', 'fra_Latn'),
    ('m2m_100', '__fr__'),
    ('mbart', 'fr_XX'),
    ('llama', '</s>'),
  ):
    ours = read_tokenizer(made(name))
    assert 0 <= ours.token_id(token) < ours.size
    assert ours.token_id('no such token') is None


def test_unknown_language_is_refused(tmp_path):
  SLOW['m2m_100'](tmp_path)
  path = tmp_path / 'tokenizer_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | {'src_lang': 'eng'}))
  with pytest.raises(UserError, match=r"src_lang: unknown language 'eng'\. Did you mean 'en'"):
    read_tokenizer(tmp_path)


def test_folder_without_a_tokenizer_has_none(tmp_path):
  write(tmp_path, None, 'llama')
  assert read_tokenizer(tmp_path) is None
  with pytest.raises(UserError, match='has no files of a tokenizer'):
    File(str(tmp_path)).learn(lambda split: iter(()))


def test_files_of_tiktoken_are_read():
  import base64

  ranks = [bytes([i]) for i in range(256)] + [b'th', b'the', b' c', b' cat', b'at', b'<|']
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    lines = [f'{base64.b64encode(token).decode()} {i}' for i, token in enumerate(ranks)]
    write(
      folder,
      {'eos_token': '<|end|>', 'extra_special_tokens': ['<|end|>']},
      'llama',
      tokenizer__model='\n'.join(lines),
    )
    ours = read_tokenizer(folder)
  assert ours.prompt('the cat<|end|>').tolist() == [257, 259, 262]
  assert ours.decode(np.array([257, 259, 262])) == 'the cat'
  assert ours.eos == 262
