"""Write small published folders of tokenizers with special formats."""

import base64

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from tests.data.tokenizer.trained import byte_pairs, sentences, word_pairs, word_pieces
from tests.data.tokenizer.writers import BERT, END, pairs_files, special_entry, write


def clip_folder(folder):
  vocab, merges = byte_pairs('<|startoftext|>', '<|endoftext|>', suffix='</w>')
  config = {
    'tokenizer_class': 'CLIPTokenizer',
    'bos_token': special_entry('<|startoftext|>', __type='AddedToken'),
  }
  config |= {'do_lower_case': True, 'eos_token': '<|endoftext|>', 'pad_token': '<|endoftext|>'}
  write(folder, config, 'clip', **pairs_files(vocab, merges))


def whisper_folder(folder):
  vocab, merges = byte_pairs()
  names = [
    END,
    '<|startoftranscript|>',
    '<|en|>',
    '<|zh|>',
    '<|de|>',
    '<|translate|>',
    '<|transcribe|>',
    '<|startoflm|>',
  ]
  names += ['<|startofprev|>', '<|nospeech|>', '<|notimestamps|>']
  times = [f'<|{i / 50:.2f}|>' for i in range(200)]
  added = {str(len(vocab) + i): special_entry(t) for i, t in enumerate(names)}
  start = len(vocab) + len(names)
  added |= {str(start + i): special_entry(t, special=False) for i, t in enumerate(times)}
  config = {
    'tokenizer_class': 'WhisperTokenizer',
    'added_tokens_decoder': added,
    'language': None,
    'pad_token': END,
  }
  config |= {
    'bos_token': END,
    'eos_token': END,
    'unk_token': END,
    'clean_up_tokenization_spaces': True,
  }
  write(folder, config, 'whisper', **pairs_files(vocab, merges))


def qwen_folder(name, kind):
  def make(folder):
    vocab, merges = byte_pairs()
    texts = (END, '<|im_start|>', '<|im_end|>')
    added = {str(len(vocab) + i): special_entry(t) for i, t in enumerate(texts)}
    config = {
      'tokenizer_class': name,
      'added_tokens_decoder': added,
      'bos_token': None,
      'eos_token': '<|im_end|>',
    }
    config |= {
      'additional_special_tokens': ['<|im_start|>', '<|im_end|>'],
      'add_prefix_space': False,
    }
    config |= {
      'pad_token': END,
      'unk_token': None,
      'clean_up_tokenization_spaces': False,
      'errors': 'replace',
    }
    write(folder, config, kind, **pairs_files(vocab, merges))

  return make


def llama_folder(folder, kind='llama', name='LlamaTokenizer', **config):
  entries = {'0': special_entry('<unk>'), '1': special_entry('<s>'), '2': special_entry('</s>')}
  given = {
    'add_bos_token': True,
    'add_eos_token': False,
    'added_tokens_decoder': entries,
    'bos_token': '<s>',
  }
  given |= {
    'eos_token': '</s>',
    'unk_token': '<unk>',
    'pad_token': None,
    'clean_up_tokenization_spaces': False,
  }
  model = sentences('bpe', byte_fallback=True, vocab_size=900, **PLAIN)
  write(folder, given | {'tokenizer_class': name} | config, kind, tokenizer__model=model)


PLAIN = {
  'normalization_rule_name': 'identity',
  'remove_extra_whitespaces': False,
  'split_digits': True,
}


def gemma_folder(folder):
  model = sentences(
    'bpe', byte_fallback=True, vocab_size=900, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
    add_dummy_prefix=False,
    eos_piece='<eos>', bos_piece='<bos>',
    user_defined_symbols=('<mask>', '<start_of_turn>', '<end_of_turn>', '\n', '  ', '   '),
    **PLAIN,
  )  # fmt: skip
  entries = {str(i): special_entry(t) for i, t in enumerate(('<pad>', '<eos>', '<bos>', '<unk>'))}
  config = {
    'tokenizer_class': 'GemmaTokenizer',
    'add_bos_token': True,
    'bos_token': '<bos>',
    'eos_token': '<eos>',
  }
  config |= {
    'added_tokens_decoder': entries,
    'pad_token': '<pad>',
    'unk_token': '<unk>',
    'additional_special_tokens': [],
  }
  write(folder, config, 'gemma2', tokenizer__model=model)


def numbered_folder(folder, name, kind, files, config=None, extra=()):
  """Write a SentencePiece model, with the ids of its pieces in `vocab.json`."""
  from sentencepiece import SentencePieceProcessor

  content = sentences('bpe')
  pieces = SentencePieceProcessor(model_proto=content)
  texts = [pieces.IdToPiece(i) for i in range(3, pieces.get_piece_size() - 20)]
  vocab = {t: i for i, t in enumerate(['<s>', '<pad>', '</s>', '<unk>', *texts, *extra])}
  write(
    folder,
    {'tokenizer_class': name, **(config or {})},
    kind,
    vocab__json=vocab,
    **dict.fromkeys(files, content),
  )


def m2m_folder(folder):
  codes = ['__af__', '__am__', '__ar__']
  numbered_folder(
    folder,
    'M2M100Tokenizer',
    'm2m_100',
    ['sentencepiece__bpe__model'],
    {'additional_special_tokens': codes},
  )


def marian_folder(folder):
  config = {
    'source_lang': 'en',
    'target_lang': 'de',
    'separate_vocabs': False,
    'sp_model_kwargs': {},
  }
  numbered_folder(
    folder,
    'MarianTokenizer',
    'marian',
    ['source__spm', 'target__spm'],
    config,
    extra=['>>de<<', '>>fr<<'],
  )


def marked_folder(folder, name, kind, special):
  vocab, merges = word_pairs(*special)
  renamed = {
    t[:-4] if t.endswith('</w>') else t + '@@': i for t, i in vocab.items() if t not in special
  }
  vocab = {t: i for i, t in enumerate([*special, *renamed])}
  write(folder, {'tokenizer_class': name}, kind, **pairs_files(vocab, merges))


def prophetnet_folder(folder):
  text = '\n'.join(word_pieces('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[X_SEP]', '[MASK]')) + '\n'
  write(
    folder, {'tokenizer_class': 'ProphetNetTokenizer'}, 'prophetnet', prophetnet__tokenizer=text
  )


def esm_folder(folder):
  texts = ['<cls>', '<pad>', '<eos>', '<unk>', *'LAGVSERTIDPKQNFYMHWCXBUZO.-', '<null_1>', '<mask>']
  write(folder, {'tokenizer_class': 'EsmTokenizer'}, 'esm', vocab__txt='\n'.join(texts))


def japanese_folder(folder):
  words = [
    '<SP>',
    '<BR>',
    '<TAB>',
    '<BLOCK>',
    '<KIGOU>',
    '<U2000U2BFF>',
    *(f'<|byte{i}|>' for i in range(256)),
  ]
  words += [
    '日本,にほん,ニホン',
    '語',
    '東京',
    'テキスト',
    'の',
    'the',
    'cat',
    *'abcdefghijklmnopqrstuvwxyz',
    ',',
    '<|emoji1|>',
  ]
  words += ['<|startoftext|>', '<|endoftext|>']
  emoji = {'emoji': {'🙂': '<|emoji1|>'}, 'emoji_inv': {'<|emoji1|>': '🙂'}}
  config = {'tokenizer_class': 'GPTNeoXJapaneseTokenizer', 'do_clean_text': False}
  write(folder, config, 'gpt_neox_japanese', vocab__txt='\n'.join(words) + '\n', emoji__json=emoji)


def codes_folder(folder, name='PhobertTokenizer'):
  vocab, merges = word_pairs('<unk>')
  texts = [t[:-4] if t.endswith('</w>') else t + '@@' for t in vocab if t != '<unk>']
  lines = [f'{first} {second} 5' for first, second in merges]
  counted = '\n'.join(f'{t} 7' for t in texts) + '\n'
  write(
    folder,
    {'tokenizer_class': name},
    'roberta',
    vocab__txt=counted,
    bpe__codes='\n'.join(lines) + '\n',
  )


def tekken_folder(folder):
  ranks = [bytes([i]) for i in range(256)] + [
    b'th',
    b'the',
    b' c',
    b'at',
    b' cat',
    b' s',
    b' sat',
    b'in',
  ]
  special = [
    {'rank': i, 'token_str': t, 'is_control': True}
    for i, t in enumerate(('<unk>', '<s>', '</s>', '[INST]'))
  ]
  pattern = r'[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
  config = {
    'pattern': pattern,
    'default_vocab_size': len(ranks) + 7,
    'default_num_special_tokens': 8,
  }
  vocab = [
    {'rank': i, 'token_bytes': base64.b64encode(t).decode(), 'token_str': None}
    for i, t in enumerate(ranks)
  ]
  write(
    folder,
    None,
    'mistral',
    tekken__json={'config': config, 'vocab': vocab, 'special_tokens': special},
  )


def byt5_folder(folder):
  extra = [f'<extra_id_{i}>' for i in range(125)]
  config = {
    'tokenizer_class': 'ByT5Tokenizer',
    'additional_special_tokens': extra,
    'extra_ids': 125,
  }
  write(folder, config, 't5')


def added_folder(folder):
  """Write a BERT with additional tokens, in files without `added_tokens_decoder`."""
  words = word_pieces(*BERT)
  tokens = {'[NEW]': len(words), 'NEW': len(words) + 1, '<new>': len(words) + 2}
  names = {n + '_token': t for n, t in zip(('pad', 'unk', 'cls', 'sep', 'mask'), BERT, strict=True)}
  mapping = names | {'additional_special_tokens': ['[NEW]']}
  write(
    folder, {'tokenizer_class': 'BertTokenizer'}, 'bert', vocab__txt='\n'.join(words) + '\n',
    added_tokens__json=tokens,
    special_tokens_map__json=mapping,
  )  # fmt: skip


def whole(folder, config=None, model_type='llama', frame=True, name='PreTrainedTokenizerFast'):
  """Write a `tokenizer.json` like that of Llama 3: bytes, a split pattern, and a begin token."""
  vocab, merges = byte_pairs()
  inner = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
  pattern = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r'\s+(?!\S)|\s+'
  )
  split = pre_tokenizers.Split(tokenizers.Regex(pattern), 'isolated')
  inner.pre_tokenizer = pre_tokenizers.Sequence(
    [split, pre_tokenizers.ByteLevel(False, use_regex=False)]
  )
  inner.decoder = decoders.ByteLevel()
  texts = ('<|begin_of_text|>', '<|end_of_text|>', '<|eot_id|>', END, '<|im_start|>', '<|im_end|>')
  inner.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in texts])
  inner.add_tokens([AddedToken('<new>', special=False, normalized=False, lstrip=True)])
  if frame:
    begin = ('<|begin_of_text|>', inner.token_to_id('<|begin_of_text|>'))
    inner.post_processor = processors.TemplateProcessing(
      single='<|begin_of_text|> $A', special_tokens=[begin]
    )
  given = {'tokenizer_class': name, 'bos_token': '<|begin_of_text|>', 'eos_token': '<|eot_id|>'}
  given |= {'clean_up_tokenization_spaces': True}
  write(folder, given | (config or {}), model_type)
  inner.save(str(folder / 'tokenizer.json'))


def old_llama(folder):
  """Write a `tokenizer.json` of Llama 2 with a normaliser that its class ignores."""
  from tfm.data.tokenizer.published.pieces import merges_of, read_pieces

  llama_folder(folder)
  pieces = read_pieces(folder / 'tokenizer.model')
  vocab = {text: i for i, (text, _) in enumerate(pieces.scored)}
  inner = tokenizers.Tokenizer(
    models.BPE(vocab, merges_of(vocab), unk_token='<unk>', fuse_unk=True, byte_fallback=True)
  )
  inner.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
  steps = [
    decoders.Replace('▁', ' '),
    decoders.ByteFallback(),
    decoders.Fuse(),
    decoders.Strip(' ', 1, 0),
  ]
  inner.decoder = decoders.Sequence(steps)
  inner.add_special_tokens(
    [AddedToken(t, special=True, normalized=False) for t in ('<unk>', '<s>', '</s>')]
  )
  inner.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
  inner.save(str(folder / 'tokenizer.json'))
