"""Small published folders, by name: the files and settings of the repositories of each family."""

from tests.data.tokenizer.special_writers import (
  PLAIN,
  added_folder,
  byt5_folder,
  clip_folder,
  codes_folder,
  esm_folder,
  gemma_folder,
  japanese_folder,
  llama_folder,
  m2m_folder,
  marian_folder,
  marked_folder,
  old_llama,
  prophetnet_folder,
  qwen_folder,
  tekken_folder,
  whisper_folder,
  whole,
)
from tests.data.tokenizer.trained import byte_pairs, word_pairs
from tests.data.tokenizer.writers import (
  BART,
  BERT,
  END,
  bytes_folder,
  pairs_files,
  special_entry,
  spm_folder,
  words_folder,
  write,
)

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
_MASK = {'mask_token': special_entry('<mask>', lstrip=True, __type='AddedToken')}

#: name -> writes the files of a published folder without `tokenizer.json` into an empty folder.
SLOW = {
  'albert': spm_folder('AlbertTokenizer', 'albert', _SPIECE, **_ALBERT),
  'bart': bytes_folder('BartTokenizer', 'bart', BART),
  'barthez': spm_folder('BarthezTokenizer', 'mbart', _XLMR),
  'bert': words_folder('BertTokenizer', 'bert'),
  'bertweet': lambda folder: codes_folder(folder, 'BertweetTokenizer'),
  'phobert': codes_folder,
  'tekken': tekken_folder,
  'bert_added': added_folder,
  'bert_bare': words_folder(None, 'bert'),
  'bert_cased': words_folder('BertTokenizer', 'bert', config={'do_lower_case': False}, lower=False),
  'bert_clean': words_folder(
    'BertTokenizer', 'bert', config={'clean_up_tokenization_spaces': True}
  ),
  'bert_generation': spm_folder('BertGenerationTokenizer', 'bert-generation', _SPIECE),
  'big_bird': spm_folder(
    'BigBirdTokenizer', 'big_bird', _SPIECE, control_symbols=('[SEP]', '[CLS]', '[MASK]')
  ),
  'blenderbot': bytes_folder('BlenderbotTokenizer', 'blenderbot', BART, {'add_prefix_space': True}),
  'blenderbot_small': lambda folder: marked_folder(
    folder,
    'BlenderbotSmallTokenizer',
    'blenderbot-small',
    ('__null__', '__start__', '__end__', '__unk__', '__newln__'),
  ),
  'byt5': byt5_folder,
  'camembert': spm_folder('CamembertTokenizer', 'camembert', _XLMR),
  'clip': clip_folder,
  'code_llama': lambda folder: llama_folder(folder, 'llama', 'CodeLlamaTokenizer'),
  'codegen': bytes_folder('CodeGenTokenizer', 'codegen', (END,)),
  'cohere': bytes_folder(
    'CohereTokenizer', 'cohere', ('<PAD>', '<UNK>', '<CLS>', '<SEP>', '<MASK_TOKEN>', '<BOS_TOKEN>')
  ),
  'ctrl': lambda folder: marked_folder(folder, 'CTRLTokenizer', 'ctrl', ('<unk>',)),
  'deberta': bytes_folder(
    'DebertaTokenizer', 'deberta', ('[PAD]', '[CLS]', '[SEP]', '[UNK]', '[MASK]')
  ),
  'deberta_v2': spm_folder('DebertaV2Tokenizer', 'deberta-v2', 'spm__model', **_DEBERTA),
  'distilbert': words_folder('DistilBertTokenizer', 'distilbert'),
  'electra': words_folder('ElectraTokenizer', 'electra'),
  'esm': esm_folder,
  'fnet': spm_folder('FNetTokenizer', 'fnet', _SPIECE, **_ALBERT),
  'funnel': words_folder(
    'FunnelTokenizer',
    'funnel',
    ('<pad>', '<unk>', '<cls>', '<sep>', '<mask>', '<s>', '</s>', '[UNK]'),
  ),
  'gemma': gemma_folder,
  'gpt2': bytes_folder('GPT2Tokenizer', 'gpt2', (END,)),
  'gpt2_bare': lambda folder: write(folder, None, 'gpt2', **pairs_files(*byte_pairs(END))),
  'gpt_neox': bytes_folder('GPTNeoXTokenizer', 'gpt_neox', (END, '<|padding|>')),
  'gpt_neox_japanese': japanese_folder,
  'gpt_sw3': spm_folder(
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
    eos_piece=END,
    **PLAIN,
  ),
  'herbert': lambda folder: write(
    folder,
    {'tokenizer_class': 'HerbertTokenizer'},
    'bert',
    **pairs_files(*word_pairs('<unk>', '<s>', '</s>', '<pad>')),
  ),
  'layoutlm': words_folder('LayoutLMTokenizer', 'layoutlm'),
  'led': bytes_folder('LEDTokenizer', 'led', BART),
  'llama': llama_folder,
  'llama_eos': lambda folder: llama_folder(folder, add_eos_token=True),
  'llama_legacy': lambda folder: llama_folder(folder, legacy=True),
  'llama_no_prefix': lambda folder: llama_folder(folder, add_prefix_space=False),
  'longformer': bytes_folder('LongformerTokenizer', 'longformer', BART),
  'luke': lambda folder: bytes_folder('LukeTokenizer', 'luke', (*BART, '<ent>', '<ent2>'))(folder),
  'm2m_100': m2m_folder,
  'marian': marian_folder,
  'mbart': spm_folder('MBartTokenizer', 'mbart', _XLMR, config=_MASK),
  'mbart50': spm_folder('MBart50Tokenizer', 'mbart', _XLMR, config={'src_lang': 'fr_XX'}),
  'mistral': lambda folder: llama_folder(folder, 'mistral'),
  'mpnet': words_folder(
    'MPNetTokenizer', 'mpnet', ('<s>', '<pad>', '</s>', '<unk>', '[UNK]', '<mask>')
  ),
  'mt5': spm_folder('T5Tokenizer', 'mt5', _SPIECE, **_T5),
  'nllb': spm_folder(
    'NllbTokenizer',
    'm2m_100',
    _XLMR,
    'bpe',
    config={'src_lang': None, 'additional_special_tokens': ['eng_Latn', 'fra_Latn']},
  ),
  'nllb_legacy': spm_folder(
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
  'opt': bytes_folder('GPT2Tokenizer', 'opt', ('<s>', '<pad>', '</s>', '<unk>'), _OPT),
  'pegasus': spm_folder('PegasusTokenizer', 'pegasus', _SPIECE, config={'offset': 103}, **_T5),
  'phi3': lambda folder: llama_folder(folder, 'phi3'),
  'plbart': spm_folder('PLBartTokenizer', 'plbart', _XLMR),
  'plbart_multi': spm_folder(
    'PLBartTokenizer', 'plbart', _XLMR, config={'language_codes': 'multi', 'src_lang': 'java'}
  ),
  'prophetnet': prophetnet_folder,
  'qwen2': qwen_folder('Qwen2Tokenizer', 'qwen2'),
  'qwen3': qwen_folder('Qwen2Tokenizer', 'qwen3'),
  'reformer': spm_folder('ReformerTokenizer', 'reformer', _SPIECE, 'bpe'),
  'rembert': spm_folder('RemBertTokenizer', 'rembert', 'sentencepiece__model', **_ALBERT),
  'roberta': bytes_folder('RobertaTokenizer', 'roberta', BART),
  'roberta_prefixed': bytes_folder(
    'RobertaTokenizer',
    'roberta',
    BART,
    {'add_prefix_space': True, 'mask_token': _MASK['mask_token']},
  ),
  'siglip': spm_folder(
    'SiglipTokenizer', 'siglip', _SPIECE, pad_id=0, eos_id=1, unk_id=2, bos_id=-1
  ),
  'splinter': words_folder('SplinterTokenizer', 'splinter', (*BERT, '[QUESTION]')),
  'squeezebert': words_folder('SqueezeBertTokenizer', 'squeezebert'),
  'stablelm': lambda folder: llama_folder(folder, 'stablelm'),
  't5': spm_folder('T5Tokenizer', 't5', _SPIECE, **_T5),
  't5_extra': spm_folder(
    'T5Tokenizer',
    't5',
    _SPIECE,
    config={'additional_special_tokens': ['<extra_id_0>', '<extra_id_1>'], 'extra_ids': 2},
    **_T5,
  ),
  'whisper': whisper_folder,
  'xlm_roberta': spm_folder('XLMRobertaTokenizer', 'xlm-roberta', _XLMR),
  'xlnet': spm_folder('XLNetTokenizer', 'xlnet', _SPIECE, **_XLNET),
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
