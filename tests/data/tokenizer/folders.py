"""Small published folders: tokenizers trained here, with the files and settings of the repositories
of each family.
"""

import base64
import json

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from tests.data.tokenizer.trained import byte_pairs, sentences, word_pairs, word_pieces


def write(folder, config=None, model_type=None, **files):
  """Write files (a name with `__` for its dot) and the two configs."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    path = folder / name.replace('__', '.')
    if isinstance(content, bytes):
      path.write_bytes(content)
    else:
      path.write_text(content if isinstance(content, str) else json.dumps(content), 'utf-8')
  if config is not None:
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  if model_type is not None:
    (folder / 'config.json').write_text(json.dumps({'model_type': model_type}))


def pairs_files(vocab, merges, header=True):
  """Return `vocab.json` and `merges.txt`."""
  lines = ['#version: 0.2'] if header else []
  return {
    'vocab__json': vocab,
    'merges__txt': '\n'.join([*lines, *(' '.join(m) for m in merges)]) + '\n',
  }


_BART = ('<s>', '<pad>', '</s>', '<unk>', '<mask>')
_BERT = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
_END = '<|endoftext|>'
_UNIGRAM_3 = {'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1}


def _entry(content, **flags):
  base = {
    'lstrip': False,
    'normalized': False,
    'rstrip': False,
    'single_word': False,
    'special': True,
  }
  return {'content': content, **base, **flags}


def _bytes(name, kind, special, config=None, **model):
  def make(folder):
    vocab, merges = byte_pairs(*special)
    write(
      folder,
      {'tokenizer_class': name, **(config or {})},
      kind,
      **pairs_files(vocab, merges),
      **model,
    )

  return make


def _words(name, kind, special=_BERT, config=None, lower=True):
  def make(folder):
    text = '\n'.join(word_pieces(*special, lower=lower)) + '\n'
    write(
      folder,
      None if name is None else {'tokenizer_class': name, **(config or {})},
      kind,
      vocab__txt=text,
    )

  return make


def _spm(name, kind, file, model='unigram', config=None, more=None, **options):
  def make(folder):
    content = {'tokenizer_class': name, **(config or {})}
    write(folder, content, kind, **{file: sentences(model, **options)}, **(more or {}))

  return make


def _clip(folder):
  vocab, merges = byte_pairs('<|startoftext|>', '<|endoftext|>', suffix='</w>')
  config = {
    'tokenizer_class': 'CLIPTokenizer',
    'bos_token': _entry('<|startoftext|>', __type='AddedToken'),
  }
  config |= {'do_lower_case': True, 'eos_token': '<|endoftext|>', 'pad_token': '<|endoftext|>'}
  write(folder, config, 'clip', **pairs_files(vocab, merges))


def _whisper(folder):
  vocab, merges = byte_pairs()
  names = [
    _END,
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
  added = {str(len(vocab) + i): _entry(t) for i, t in enumerate(names)}
  start = len(vocab) + len(names)
  added |= {str(start + i): _entry(t, special=False) for i, t in enumerate(times)}
  config = {
    'tokenizer_class': 'WhisperTokenizer',
    'added_tokens_decoder': added,
    'language': None,
    'pad_token': _END,
  }
  config |= {
    'bos_token': _END,
    'eos_token': _END,
    'unk_token': _END,
    'clean_up_tokenization_spaces': True,
  }
  write(folder, config, 'whisper', **pairs_files(vocab, merges))


def _qwen(name, kind):
  def make(folder):
    vocab, merges = byte_pairs()
    texts = (_END, '<|im_start|>', '<|im_end|>')
    added = {str(len(vocab) + i): _entry(t) for i, t in enumerate(texts)}
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
      'pad_token': _END,
      'unk_token': None,
      'clean_up_tokenization_spaces': False,
      'errors': 'replace',
    }
    write(folder, config, kind, **pairs_files(vocab, merges))

  return make


def _llama(folder, kind='llama', name='LlamaTokenizer', **config):
  entries = {'0': _entry('<unk>'), '1': _entry('<s>'), '2': _entry('</s>')}
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
  model = sentences('bpe', byte_fallback=True, vocab_size=900, **_PLAIN)
  write(folder, given | {'tokenizer_class': name} | config, kind, tokenizer__model=model)


_PLAIN = {
  'normalization_rule_name': 'identity',
  'remove_extra_whitespaces': False,
  'split_digits': True,
}


def _gemma(folder):
  model = sentences(
    'bpe', byte_fallback=True, vocab_size=900, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
    add_dummy_prefix=False,
    eos_piece='<eos>', bos_piece='<bos>',
    user_defined_symbols=('<mask>', '<start_of_turn>', '<end_of_turn>', '\n', '  ', '   '),
    **_PLAIN,
  )  # fmt: skip
  entries = {str(i): _entry(t) for i, t in enumerate(('<pad>', '<eos>', '<bos>', '<unk>'))}
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


def _numbered(folder, name, kind, files, config=None, extra=()):
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


def _m2m(folder):
  codes = ['__af__', '__am__', '__ar__']
  _numbered(
    folder,
    'M2M100Tokenizer',
    'm2m_100',
    ['sentencepiece__bpe__model'],
    {'additional_special_tokens': codes},
  )


def _marian(folder):
  config = {
    'source_lang': 'en',
    'target_lang': 'de',
    'separate_vocabs': False,
    'sp_model_kwargs': {},
  }
  _numbered(
    folder,
    'MarianTokenizer',
    'marian',
    ['source__spm', 'target__spm'],
    config,
    extra=['>>de<<', '>>fr<<'],
  )


def _marked(folder, name, kind, special):
  vocab, merges = word_pairs(*special)
  renamed = {
    t[:-4] if t.endswith('</w>') else t + '@@': i for t, i in vocab.items() if t not in special
  }
  vocab = {t: i for i, t in enumerate([*special, *renamed])}
  write(folder, {'tokenizer_class': name}, kind, **pairs_files(vocab, merges))


def _prophetnet(folder):
  text = '\n'.join(word_pieces('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[X_SEP]', '[MASK]')) + '\n'
  write(
    folder, {'tokenizer_class': 'ProphetNetTokenizer'}, 'prophetnet', prophetnet__tokenizer=text
  )


def _esm(folder):
  texts = ['<cls>', '<pad>', '<eos>', '<unk>', *'LAGVSERTIDPKQNFYMHWCXBUZO.-', '<null_1>', '<mask>']
  write(folder, {'tokenizer_class': 'EsmTokenizer'}, 'esm', vocab__txt='\n'.join(texts))


def _japanese(folder):
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


def _codes(folder, name='PhobertTokenizer'):
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


def _tekken(folder):
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


def _byt5(folder):
  extra = [f'<extra_id_{i}>' for i in range(125)]
  config = {
    'tokenizer_class': 'ByT5Tokenizer',
    'additional_special_tokens': extra,
    'extra_ids': 125,
  }
  write(folder, config, 't5')


def _added(folder):
  """Write a BERT with additional tokens, in files without `added_tokens_decoder`."""
  words = word_pieces(*_BERT)
  tokens = {'[NEW]': len(words), 'NEW': len(words) + 1, '<new>': len(words) + 2}
  names = {
    n + '_token': t for n, t in zip(('pad', 'unk', 'cls', 'sep', 'mask'), _BERT, strict=True)
  }
  mapping = names | {'additional_special_tokens': ['[NEW]']}
  write(
    folder, {'tokenizer_class': 'BertTokenizer'}, 'bert', vocab__txt='\n'.join(words) + '\n',
    added_tokens__json=tokens,
    special_tokens_map__json=mapping,
  )  # fmt: skip


def whole(folder, config=None, model_type='llama', frame=True, name='PreTrainedTokenizerFast'):
  """Write a `tokenizer.json` as Llama 3's: bytes, a split pattern, a begin token by its own
  template.
  """
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
  texts = ('<|begin_of_text|>', '<|end_of_text|>', '<|eot_id|>', _END, '<|im_start|>', '<|im_end|>')
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
  """Write a `tokenizer.json` as Llama 2's, with the normaliser of transformers 4, and the class
  that ignores it.
  """
  from tfm.data.tokenizer.published.pieces import merges_of, read_pieces

  _llama(folder)
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


_XLMR = 'sentencepiece__bpe__model'
_SPIECE = 'spiece__model'
_T5 = {'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1}
_ALBERT = {
  'pad_id': 0,
  'unk_id': 1,
  'bos_id': -1,
  'eos_id': -1,
  'control_symbols': ('[CLS]', '[SEP]', '[MASK]'),
}
_XLNET = {'control_symbols': ('<cls>', '<sep>', '<pad>', '<mask>', '<eod>', '<eop>')}
_DEBERTA = {
  'pad_id': 0,
  'bos_id': 1,
  'eos_id': 2,
  'unk_id': 3,
  'pad_piece': '[PAD]',
  'bos_piece': '[CLS]',
}
_DEBERTA |= {'eos_piece': '[SEP]', 'unk_piece': '[UNK]'}
_OPT = {
  'add_bos_token': True,
  'bos_token': '</s>',
  'eos_token': '</s>',
  'pad_token': '<pad>',
  'unk_token': '</s>',
}
_MASK = {'mask_token': _entry('<mask>', lstrip=True, __type='AddedToken')}

#: name -> writes the files of a published folder without `tokenizer.json` into an empty folder.
SLOW = {
  'albert': _spm('AlbertTokenizer', 'albert', _SPIECE, **_ALBERT),
  'bart': _bytes('BartTokenizer', 'bart', _BART),
  'barthez': _spm('BarthezTokenizer', 'mbart', _XLMR),
  'bert': _words('BertTokenizer', 'bert'),
  'bertweet': lambda folder: _codes(folder, 'BertweetTokenizer'),
  'phobert': _codes,
  'tekken': _tekken,
  'bert_added': _added,
  'bert_bare': _words(None, 'bert'),
  'bert_cased': _words('BertTokenizer', 'bert', config={'do_lower_case': False}, lower=False),
  'bert_clean': _words('BertTokenizer', 'bert', config={'clean_up_tokenization_spaces': True}),
  'bert_generation': _spm('BertGenerationTokenizer', 'bert-generation', _SPIECE),
  'big_bird': _spm(
    'BigBirdTokenizer', 'big_bird', _SPIECE, control_symbols=('[SEP]', '[CLS]', '[MASK]')
  ),
  'blenderbot': _bytes('BlenderbotTokenizer', 'blenderbot', _BART, {'add_prefix_space': True}),
  'blenderbot_small': lambda folder: _marked(
    folder,
    'BlenderbotSmallTokenizer',
    'blenderbot-small',
    ('__null__', '__start__', '__end__', '__unk__', '__newln__'),
  ),
  'byt5': _byt5,
  'camembert': _spm('CamembertTokenizer', 'camembert', _XLMR),
  'clip': _clip,
  'code_llama': lambda folder: _llama(folder, 'llama', 'CodeLlamaTokenizer'),
  'codegen': _bytes('CodeGenTokenizer', 'codegen', (_END,)),
  'cohere': _bytes(
    'CohereTokenizer', 'cohere', ('<PAD>', '<UNK>', '<CLS>', '<SEP>', '<MASK_TOKEN>', '<BOS_TOKEN>')
  ),
  'ctrl': lambda folder: _marked(folder, 'CTRLTokenizer', 'ctrl', ('<unk>',)),
  'deberta': _bytes('DebertaTokenizer', 'deberta', ('[PAD]', '[CLS]', '[SEP]', '[UNK]', '[MASK]')),
  'deberta_v2': _spm('DebertaV2Tokenizer', 'deberta-v2', 'spm__model', **_DEBERTA),
  'distilbert': _words('DistilBertTokenizer', 'distilbert'),
  'electra': _words('ElectraTokenizer', 'electra'),
  'esm': _esm,
  'fnet': _spm('FNetTokenizer', 'fnet', _SPIECE, **_ALBERT),
  'funnel': _words(
    'FunnelTokenizer',
    'funnel',
    ('<pad>', '<unk>', '<cls>', '<sep>', '<mask>', '<s>', '</s>', '[UNK]'),
  ),
  'gemma': _gemma,
  'gpt2': _bytes('GPT2Tokenizer', 'gpt2', (_END,)),
  'gpt2_bare': lambda folder: write(folder, None, 'gpt2', **pairs_files(*byte_pairs(_END))),
  'gpt_neox': _bytes('GPTNeoXTokenizer', 'gpt_neox', (_END, '<|padding|>')),
  'gpt_neox_japanese': _japanese,
  'gpt_sw3': _spm(
    'GPTSw3Tokenizer',
    'gpt2',
    _SPIECE,
    'bpe',
    byte_fallback=True,
    vocab_size=900,
    pad_id=0,
    unk_id=1,
    bos_id=2,
    eos_id=3,
    eos_piece=_END,
    **_PLAIN,
  ),
  'herbert': lambda folder: write(
    folder,
    {'tokenizer_class': 'HerbertTokenizer'},
    'bert',
    **pairs_files(*word_pairs('<unk>', '<s>', '</s>', '<pad>')),
  ),
  'layoutlm': _words('LayoutLMTokenizer', 'layoutlm'),
  'led': _bytes('LEDTokenizer', 'led', _BART),
  'llama': _llama,
  'llama_eos': lambda folder: _llama(folder, add_eos_token=True),
  'llama_legacy': lambda folder: _llama(folder, legacy=True),
  'llama_no_prefix': lambda folder: _llama(folder, add_prefix_space=False),
  'longformer': _bytes('LongformerTokenizer', 'longformer', _BART),
  'luke': lambda folder: _bytes('LukeTokenizer', 'luke', (*_BART, '<ent>', '<ent2>'))(folder),
  'm2m_100': _m2m,
  'marian': _marian,
  'mbart': _spm('MBartTokenizer', 'mbart', _XLMR, config=_MASK),
  'mbart50': _spm('MBart50Tokenizer', 'mbart', _XLMR, config={'src_lang': 'fr_XX'}),
  'mistral': lambda folder: _llama(folder, 'mistral'),
  'mpnet': _words('MPNetTokenizer', 'mpnet', ('<s>', '<pad>', '</s>', '<unk>', '[UNK]', '<mask>')),
  'mt5': _spm('T5Tokenizer', 'mt5', _SPIECE, **_T5),
  'nllb': _spm(
    'NllbTokenizer',
    'm2m_100',
    _XLMR,
    'bpe',
    config={'src_lang': None, 'additional_special_tokens': ['eng_Latn', 'fra_Latn']},
  ),
  'nllb_legacy': _spm(
    'NllbTokenizer',
    'm2m_100',
    _XLMR,
    'bpe',
    config={'legacy_behaviour': True, 'src_lang': 'fra_Latn'},
  ),
  'openai_gpt': lambda folder: write(
    folder,
    {'tokenizer_class': 'OpenAIGPTTokenizer'},
    'openai-gpt',
    **pairs_files(*word_pairs('<unk>')),
  ),
  'opt': _bytes('GPT2Tokenizer', 'opt', ('<s>', '<pad>', '</s>', '<unk>'), _OPT),
  'pegasus': _spm('PegasusTokenizer', 'pegasus', _SPIECE, config={'offset': 103}, **_T5),
  'phi3': lambda folder: _llama(folder, 'phi3'),
  'plbart': _spm('PLBartTokenizer', 'plbart', _XLMR),
  'plbart_multi': _spm(
    'PLBartTokenizer', 'plbart', _XLMR, config={'language_codes': 'multi', 'src_lang': 'java'}
  ),
  'prophetnet': _prophetnet,
  'qwen2': _qwen('Qwen2Tokenizer', 'qwen2'),
  'qwen3': _qwen('Qwen2Tokenizer', 'qwen3'),
  'reformer': _spm('ReformerTokenizer', 'reformer', _SPIECE, 'bpe'),
  'rembert': _spm('RemBertTokenizer', 'rembert', 'sentencepiece__model', **_ALBERT),
  'roberta': _bytes('RobertaTokenizer', 'roberta', _BART),
  'roberta_prefixed': _bytes(
    'RobertaTokenizer',
    'roberta',
    _BART,
    {'add_prefix_space': True, 'mask_token': _MASK['mask_token']},
  ),
  'siglip': _spm('SiglipTokenizer', 'siglip', _SPIECE, pad_id=0, eos_id=1, unk_id=2, bos_id=-1),
  'splinter': _words('SplinterTokenizer', 'splinter', (*_BERT, '[QUESTION]')),
  'squeezebert': _words('SqueezeBertTokenizer', 'squeezebert'),
  'stablelm': lambda folder: _llama(folder, 'stablelm'),
  't5': _spm('T5Tokenizer', 't5', _SPIECE, **_T5),
  't5_extra': _spm(
    'T5Tokenizer',
    't5',
    _SPIECE,
    config={'additional_special_tokens': ['<extra_id_0>', '<extra_id_1>'], 'extra_ids': 2},
    **_T5,
  ),
  'whisper': _whisper,
  'xlm_roberta': _spm('XLMRobertaTokenizer', 'xlm-roberta', _XLMR),
  'xlnet': _spm('XLNetTokenizer', 'xlnet', _SPIECE, **_XLNET),
}

#: name -> writes a folder with a `tokenizer.json`.
WHOLE = {
  'llama3': whole,
  'llama3_named_llama': lambda folder: whole(folder, name='LlamaTokenizerFast'),
  'llama3_unframed': lambda folder: whole(folder, {'add_bos_token': True}, frame=False),
  'llama3_split': lambda folder: whole(folder, {'split_special_tokens': True}),
  'llama2': old_llama,
  'qwen_named_llama': lambda folder: whole(folder, model_type='qwen2', name='LlamaTokenizerFast'),
  'bloom': lambda folder: whole(folder, name='BloomTokenizerFast', model_type='bloom'),
  'neox': lambda folder: whole(
    folder, {'add_bos_token': True}, 'gpt_neox', name='GPTNeoXTokenizer'
  ),
  'olmo': lambda folder: whole(
    folder, {'extra_special_tokens': ['<|im_start|>']}, 'olmo2', name='GPT2Tokenizer'
  ),
}
