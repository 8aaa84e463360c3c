"""Special tokens around documents and sequences, as published models expect them."""

import dataclasses
import logging

import numpy as np
import pytest

from tests.data.published import TEXT, byte_pairs, vocabulary, word_pieces
from tfm.core import config
from tfm.core.errors import UserError
from tfm.data import Folders, Text
from tfm.data.fixed_vocabulary import FixedVocabulary
from tfm.data.framing import Framing, prompt_frame
from tfm.data.tokenizer import Bpe, Byte, Char, File
from tfm.tasks import CausalLM, Classify, MaskedLM, SpanCorruption

BEGIN, END = '<｜begin▁of▁sentence｜>', '<｜end▁of▁sentence｜>'


@pytest.fixture
def text(tmp_path):
  """Return a function from a vocabulary to eight documents of text."""
  (tmp_path / 'docs').mkdir()
  for i in range(8):
    (tmp_path / 'docs' / f'{i}.txt').write_text(f'{TEXT}. ' * (3 + i))

  def of(tokenizer, **fields):
    tokenizer = tokenizer if dataclasses.is_dataclass(tokenizer) else FixedVocabulary(tokenizer)
    files = fields.pop('files', str(tmp_path / 'docs'))
    options = {
      'length': 64,
      'batch': 8,
      'val_tail': 0.0,
      'cache': str(tmp_path / 'cache'),
      **fields,
    }
    return Text(files=files, tokenizer=tokenizer, **options)

  return of


def llama():
  inner = byte_pairs(BEGIN, END, begin=BEGIN)
  return vocabulary(inner, bos=BEGIN, eos=END)


def tokens(corpus):
  return corpus.store.splits['train'].tokens.tolist()


def encoded(known, data):
  return [known.encode(document).tolist() for document in data.documents('train')]


def test_each_document_has_begin_and_end_tokens(text):
  known, data = llama(), text(llama())
  corpus = data.open(CausalLM())
  assert tokens(corpus) == [i for ids in encoded(known, data) for i in (known.bos, *ids, known.eos)]
  assert corpus.vocab == known.size
  starts = corpus.store.splits['train'].starts[:-1]
  assert {tokens(corpus)[at] for at in starts} == {known.bos}


def test_isolated_sequences_start_with_the_begin_token(text):
  known = llama()
  corpus = text(known, isolate=True, length=256).open(CausalLM())
  raw = corpus.batch('train', 0, 0)
  first = (raw['positions'] == 0) & (raw['segments'] > 0)
  assert set(raw['tokens'][first].tolist()) == {known.bos}
  assert (raw['tokens'] == known.eos).any()


@pytest.mark.parametrize(
  ('begin', 'end', 'counts'),
  [
    ('auto', 'auto', (8, 8)),
    ('never', 'auto', (0, 9)),
    ('auto', 'never', (8, 0)),
    ('never', 'never', (0, 0)),
  ],
)
def test_begin_and_end_are_options(text, begin, end, counts):
  known = llama()
  found = tokens(text(known, begin=begin, end=end).open(CausalLM()))
  assert (found.count(known.bos), found.count(known.eos)) == counts


def test_single_document_ends_only_with_end_always(text, tmp_path):
  known, one = llama(), str(tmp_path / 'docs' / '0.txt')
  count = lambda **fields: tokens(text(known, files=one, **fields).open(CausalLM())).count(
    known.eos
  )
  assert (count(), count(end='always')) == (0, 1)


def test_unprompted_begin_token_needs_begin_always(text):
  known = vocabulary(byte_pairs(BEGIN, END), bos=BEGIN, eos=END)
  count = lambda **fields: tokens(text(known, **fields).open(CausalLM())).count(known.bos)
  assert (count(), count(begin='always')) == (0, 8)


def test_documents_of_gpt2_are_between_end_tokens(text):
  known = vocabulary(byte_pairs('<|endoftext|>'), bos='<|endoftext|>', eos='<|endoftext|>')
  data = text(known)
  ids = encoded(known, data)
  assert tokens(data.open(CausalLM())) == [known.eos] + [
    i for document in ids for i in (*document, known.eos)
  ]


def test_documents_of_bert_are_framed_as_its_prompts(text):
  known = vocabulary(word_pieces(), mask='[MASK]', pad='[PAD]')
  cls, sep = known.inner.token_to_id('[CLS]'), known.inner.token_to_id('[SEP]')
  data, task = text(known), MaskedLM()
  corpus = data.open(task)
  assert tokens(corpus) == [i for document in encoded(known, data) for i in (cls, *document, sep)]
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert not batch['weights'][np.isin(batch['labels'], [cls, sep])].any()


def test_special_tokens_in_a_text_do_not_end_its_document(text, tmp_path):
  (tmp_path / 'docs' / 'quote.txt').write_text(f'{END} {BEGIN}')
  known = llama()
  assert tokens(text(known).open(CausalLM())).count(known.eos) == 9


def test_missing_end_token_is_an_error_with_options(text, tmp_path):
  byte_pairs().save(str(tmp_path / 'tokenizer.json'))
  data = text(File(str(tmp_path / 'tokenizer.json')))
  with pytest.raises(
    UserError, match=r'data\.end: .*has none\. Expected .*data\.end=never.*data\.new_tokens=add'
  ):
    data.open(CausalLM())
  assert not list((tmp_path / 'cache').glob('*/'))
  assert tokens(config.override(data, 'end', 'never').open(CausalLM()))


def test_each_run_warns_about_added_tokens(text, tmp_path, caplog):
  inner = byte_pairs()
  inner.save(str(tmp_path / 'tokenizer.json'))
  data = text(File(str(tmp_path / 'tokenizer.json')), new_tokens='add')
  new = inner.get_vocab_size()
  for _ in range(2):
    caplog.clear()
    with caplog.at_level(logging.WARNING):
      corpus = data.open(CausalLM())
    assert [record.getMessage() for record in caplog.records] == [
      f'data: new token ids are added to the tokenizer (eos = {new}). No published model was '
      f'trained with them.'
    ]
  assert corpus.vocabulary.eos == new
  assert tokens(corpus).count(new) == 9


@pytest.mark.parametrize(
  'task', [MaskedLM(), SpanCorruption()], ids=['task=masked_lm', 'task=span_corruption']
)
def test_missing_special_tokens_of_a_task_are_refused(text, task):
  with pytest.raises(UserError, match=r'data\.new_tokens: the task needs .*has no (mask|pad)'):
    text(llama()).open(task)
  corpus = text(llama(), new_tokens='add').open(task)
  assert corpus.vocab > llama().size


def test_missing_begin_token_is_an_error(text):
  known = vocabulary(byte_pairs('<|endoftext|>'), eos='<|endoftext|>')
  for tokenizer in (known, Byte()):
    with pytest.raises(
      UserError, match=r'data\.begin: is always, but the tokenizer has no begin token'
    ):
      text(tokenizer, begin='always').open(CausalLM())


@pytest.mark.parametrize(
  'tokenizer', [Byte(), Char(), Bpe(300)], ids=lambda t: f'tokenizer={type(t).__name__}'
)
def test_stores_of_learnt_tokenizers_are_unchanged(text, tokenizer):
  data = text(tokenizer)
  corpus = data.open(CausalLM())
  learnt = corpus.vocabulary
  stream = [learnt.eos] + [
    i for d in data.documents('train') for i in (*learnt.encode(d).tolist(), learnt.eos)
  ]
  assert tokens(corpus) == stream
  assert learnt.eos == learnt.base == learnt.size - 1


@pytest.mark.parametrize('begin', ['', BEGIN], ids=['begin=none', 'begin=bos'])
@pytest.mark.parametrize('end', ['', END], ids=['end=none', 'end=eos'])
def test_prompt_frame_finds_tokens_on_both_sides(begin, end):
  inner = byte_pairs(BEGIN, END, begin=begin, end=end)
  ids = lambda text: (inner.token_to_id(text),) if text else ()
  assert prompt_frame(vocabulary(inner)) == Framing(ids(begin), ids(end))


def _folders(tmp_path, known, **fields):
  for name in ('a', 'b'):
    (tmp_path / 'classes' / name).mkdir(parents=True, exist_ok=True)
    for i in range(4):
      (tmp_path / 'classes' / name / f'{i}.txt').write_text(f'{TEXT} ' * (2 + i))
  root = str(tmp_path / 'classes')
  return Folders(
    root=root,
    tokenizer=FixedVocabulary(known),
    length=16,
    batch=4,
    cache=str(tmp_path / 'cache'),
    **fields,
  )


@pytest.mark.parametrize(
  'known',
  [llama(), vocabulary(word_pieces()), vocabulary(byte_pairs())],
  ids=lambda v: f'size={v.size}',
)
def test_classified_texts_are_framed_as_prompts(tmp_path, known):
  data, task = _folders(tmp_path, known), Classify()
  corpus, frame = data.open(task), prompt_frame(known)
  assert corpus.vocab == known.size
  rows = []
  for raw in corpus.eval_batches('train', 4):
    found = task.features(raw, corpus)
    assert found['input_ids'].shape == (4, 16)
    kept = found['weights'] > 0
    pairs = zip(found['input_ids'][kept], found['attention_mask'][kept], strict=True)
    rows += [ids[: mask.sum()].tolist() for ids, mask in pairs]
  room = 16 - len(frame.begin) - len(frame.end)
  expected = []
  for ids in encoded(known, data):
    pieces = [ids[at : at + room] for at in range(0, len(ids), room)]
    expected += [[*frame.begin, *piece, *frame.end] for piece in pieces]
  assert rows == expected


def test_framing_options_of_folders_are_refused(tmp_path):
  data = _folders(tmp_path, llama(), begin='never', end='always')
  lines = [line for line in data.check() if 'the task adds special tokens' in line]
  assert [line.partition(':')[0] for line in lines] == ['begin', 'end']


def test_length_without_room_for_text_is_an_error(tmp_path):
  data = dataclasses.replace(_folders(tmp_path, vocabulary(word_pieces())), length=2)
  with pytest.raises(UserError, match=r'data\.length: 2 tokens do not fit .*Expected 3 or more'):
    data.open(Classify())
