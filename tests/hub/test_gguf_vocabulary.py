"""The tokenizer of a GGUF file matches the tokenizer that it was converted from."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from tests.hub import ggufs
from tests.hub.ggufs import TINY, tiny_arrays
import tfm
from tfm.hub.gguf import Gguf

CORPUS = [
  'The quick brown fox jumps over the lazy dog 1234567 times.', "It's we'll they've I'm DON'T",
  'naïve café Ünïcödé', 'def f(x):\n    return x ** 2\n\n\tprint(f(3))',
  '日本語のテキスト、漢字とかな。',
  'Привет мир', 'emoji 🙂🎉👩‍👩‍👧 end', '   spaces   and\ttabs \n\n new lines \r\n',
  'URLs https://a.b/c?d=e&f=1', 'e\u0301 decomposed',
]  # fmt: skip
TEXTS = [
  *CORPUS, '', ' ', '  ', 'a', ' a', '\n', '\n\n\n', 'don’t', '12', '123', '1234', '½ ² ٣',
  'ＡＢＣ',
  'x' * 50, '<|eot|> spelt', 'a<think>b</think>', '\u200b\ufeff', 'مرحبا', 'हिन्दी',
  'camelCaseWordsHTTPServer', 'a/b\\c', '…—“”',
]  # fmt: skip

LLAMA3 = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
TEKKEN = (
  r'[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}'
  r'\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
WORDS = {
  'llama-bpe': LLAMA3,
  'qwen2': LLAMA3.replace('{1,3}', ''),
  'tekken': TEKKEN,
  'gpt-2': None,
  'smollm': None,
}


def _original(pre):
  """Return a tokenizer of this kind, trained on a few sentences."""
  inner = tokenizers.Tokenizer(models.BPE(ignore_merges=pre in ('llama-bpe', 'tekken')))
  if pre == 'qwen2':
    inner.normalizer = normalizers.NFC()
  level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=WORDS[pre] is None)
  first = [pre_tokenizers.Split(Regex(WORDS[pre]), 'isolated')] if WORDS[pre] else []
  first = [pre_tokenizers.Digits(individual_digits=True)] if pre == 'smollm' else first
  inner.pre_tokenizer = pre_tokenizers.Sequence([*first, level]) if first else level
  inner.decoder = decoders.ByteLevel()
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  inner.train_from_iterator(
    CORPUS, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
  )
  inner.add_special_tokens(
    [AddedToken(t, normalized=False, special=True) for t in ('<|bos|>', '<|eot|>')]
  )
  inner.add_tokens([AddedToken('<think>', normalized=False, special=False)])
  return inner


def _fields(inner, pre, size):
  """Return the header fields of a byte-level tokenizer, padded to `size`."""
  layout = json.loads(inner.to_str())
  texts = {i: t for t, i in inner.get_vocab(with_added_tokens=True).items()}
  special = {t['id']: t['special'] for t in layout['added_tokens']}
  kinds = [
    5 if i not in texts else 1 if i not in special else 3 if special[i] else 4 for i in range(size)
  ]
  pairs = layout['model']['merges']
  return {
    'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre,
    'tokenizer.ggml.tokens': [texts.get(i, f'[PAD{i}]') for i in range(size)],
    'tokenizer.ggml.token_type': kinds,
    'tokenizer.ggml.merges': [' '.join(p) if isinstance(p, list) else p for p in pairs],
    'tokenizer.ggml.bos_token_id': inner.token_to_id('<|bos|>'),
    'tokenizer.ggml.add_bos_token': False,
  }  # fmt: skip


def _open(path, fields):
  return Gguf(ggufs.write(path / 'm.gguf', TINY | fields, ggufs.plain(tiny_arrays())))


@pytest.mark.parametrize('pre', WORDS)
def test_byte_level_ids_match_the_original(tmp_path, pre):
  inner = _original(pre)
  found = _open(tmp_path, _fields(inner, pre, inner.get_vocab_size() + 5)).vocabulary
  assert found.inner.get_vocab_size() == inner.get_vocab_size()
  for ours in (True, False):  # Special tokens in a text, encoded as special tokens or as text.
    found.inner.encode_special_tokens = inner.encode_special_tokens = ours
    for text in TEXTS:
      assert found.inner.encode(text).ids == inner.encode(text).ids, text
  found.inner.encode_special_tokens = False
  for text in TEXTS:
    ids = inner.encode(text).ids
    assert found.inner.decode(ids, skip_special_tokens=False) == inner.decode(
      ids, skip_special_tokens=False
    )


@pytest.mark.parametrize(
  ('pre', 'add_bos', 'framed'),
  [
    ('llama-bpe', None, True),
    ('llama-bpe', False, False),
    ('qwen2', None, False),
    ('qwen2', True, True),
  ],
)
def test_begin_tokens_follow_the_header(tmp_path, pre, add_bos, framed):
  inner = _original(pre)
  fields = _fields(inner, pre, inner.get_vocab_size())
  del fields['tokenizer.ggml.add_bos_token']
  fields |= {} if add_bos is None else {'tokenizer.ggml.add_bos_token': add_bos}
  ids = _open(tmp_path, fields).vocabulary.prompt('hello').tolist()
  assert ids == [inner.token_to_id('<|bos|>')] * framed + inner.encode('hello').ids


def _pieces(tmp_path, prefixed, **options):
  """Return a SentencePiece BPE model, as in Llama 2 and Gemma."""
  import sentencepiece

  (tmp_path / 'text').write_text('\n'.join(CORPUS * 3))
  sentencepiece.SentencePieceTrainer.train(
    input=str(tmp_path / 'text'), model_prefix=str(tmp_path / 'spm'), model_type='bpe',
    vocab_size=460,
    byte_fallback=True, normalization_rule_name='identity', remove_extra_whitespaces=False,
    add_dummy_prefix=prefixed, split_digits=True, minloglevel=2, **options,
  )  # fmt: skip
  return sentencepiece.SentencePieceProcessor(str(tmp_path / 'spm.model'))


def _piece_fields(model, prefixed):
  kinds = ((model.is_unknown, 2), (model.is_control, 3), (model.is_unused, 5), (model.is_byte, 6))
  kind_of = lambda i: next((k for check, k in kinds if check(i)), 1)
  texts = [model.id_to_piece(i) for i in range(model.get_piece_size())]
  return {
    'tokenizer.ggml.model': 'llama', 'tokenizer.ggml.tokens': texts,
    'tokenizer.ggml.scores': [float(model.get_score(i)) for i in range(len(texts))],
    'tokenizer.ggml.token_type': [kind_of(i) for i in range(len(texts))],
    'tokenizer.ggml.bos_token_id': model.bos_id(), 'tokenizer.ggml.eos_token_id': model.eos_id(),
    'tokenizer.ggml.unknown_token_id': model.unk_id(), 'tokenizer.ggml.add_space_prefix': prefixed,
  }  # fmt: skip


@pytest.mark.oracle
@pytest.mark.parametrize('prefixed', [True, False])
def test_sentence_piece_ids_match_the_original(tmp_path, prefixed):
  model = _pieces(tmp_path, prefixed)
  found = _open(tmp_path, _piece_fields(model, prefixed)).vocabulary
  for text in TEXTS:
    if text:
      expected = model.encode(text)
      assert found.prompt(text).tolist() == [model.bos_id(), *expected], text
      assert found.inner.decode(expected) == model.decode(expected), text


@pytest.mark.oracle
def test_user_defined_spaces_become_space_marks(tmp_path):
  """llama.cpp stores Gemma's runs of spaces without SentencePiece's space marks."""
  model = _pieces(tmp_path, False)
  fields = _piece_fields(model, False)
  number = len(fields['tokenizer.ggml.tokens'])
  for name, value in (('tokens', '   '), ('scores', -1000.0), ('token_type', 4)):
    fields[f'tokenizer.ggml.{name}'].append(value)
  found = _open(tmp_path, fields).vocabulary
  assert found.inner.id_to_token(number) == '▁▁▁'
  assert found.inner.decode([number]) == '   '


@pytest.mark.oracle
@pytest.mark.parametrize('pre', ['llama-bpe', 'qwen2', 'tekken'])
def test_ids_match_transformers(tmp_path, pre):
  import transformers

  inner = _original(pre)
  found = _open(tmp_path, _fields(inner, pre, inner.get_vocab_size()))
  theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file='m.gguf')
  ours = found.vocabulary.inner
  ours.encode_special_tokens = False
  for text in TEXTS:
    if pre == 'qwen2' and text == 'e\u0301 decomposed':
      continue  # The header lacks Qwen's NFC normalisation, so transformers omits it.
    if (
      '<|' not in text
    ):  # which is no control token to them, being of other letters than bytes are written in
      assert ours.encode(text).ids == theirs.encode(text, add_special_tokens=False), text


def test_chat_templates_and_end_tokens_load(tmp_path):
  inner = _original('qwen2')
  fields = _fields(inner, 'qwen2', inner.get_vocab_size()) | {
    'tokenizer.chat_template': '{{ messages }}', 'tokenizer.ggml.eos_token_id': 3,
    'tokenizer.ggml.eot_token_id': 7,
  }  # fmt: skip
  found = _open(tmp_path, fields)
  assert found.chat_template == '{{ messages }}'
  assert found.config['eos_token_id'] == [3, 7]
  files = {name: json.loads(text) for name, text in found.files.items()}
  assert files['generation_config.json']['eos_token_id'] == [3, 7]
  assert files['tokenizer_config.json']['chat_template'] == '{{ messages }}'
  assert files['tokenizer_config.json']['bos_token'] == '<|bos|>'
  assert tfm.load(tmp_path).settings()['eos'] == [3, 7]
  both = _open(tmp_path, fields | {'tokenizer.chat_template.tool_use': 'other'})
  assert both.chat_template == {'default': '{{ messages }}', 'tool_use': 'other'}


def test_file_without_tokenizer_has_none(tmp_path):
  found = _open(tmp_path, {})
  assert found.vocabulary is None
  assert found.chat_template is None
  assert np.asarray(found.tensors()['model.norm.weight']).shape == (32,)
