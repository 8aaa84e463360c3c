"""Choose the tokenizer class of a published folder.

The class determines normalisation, splitting and special tokens, and overrides `tokenizer.json`
in most cases. A folder names it in `tokenizer_config.json` or `config.json`. Otherwise the model
type decides. The rules follow `AutoTokenizer` of transformers 5.23.0.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The generic class, which uses `tokenizer.json` unchanged.
BACKEND = 'TokenizersBackend'

#: class -> model types, for folders that name no class.
_MODEL_TYPES = {
  'AlbertTokenizer': ('albert', 'yoso'),
  'BarthezTokenizer': ('barthez',),
  'BertGenerationTokenizer': ('bert-generation',),
  'BertJapaneseTokenizer': ('bert-japanese',),
  'BertTokenizer': (
    'bert', 'convbert', 'distilbert', 'electra', 'ernie', 'layoutlm', 'lxmert', 'megatron-bert',
    'mobilebert', 'nezha',
    'nomic_bert', 'qdqbert', 'squeezebert', 'visual_bert',
  ),
  'BertweetTokenizer': ('bertweet',),
  'BigBirdTokenizer': ('big_bird',),
  'BioGptTokenizer': ('biogpt',),
  'BlenderbotSmallTokenizer': ('blenderbot-small',),
  'BlenderbotTokenizer': ('blenderbot',),
  'ByT5Tokenizer': ('byt5',),
  'CLIPTokenizer': ('clip',),
  'CTRLTokenizer': ('ctrl',),
  'CamembertTokenizer': ('camembert',),
  'CodeLlamaTokenizer': ('code_llama',),
  'CohereTokenizer': ('cohere', 'cohere2'),
  'CpmAntTokenizer': ('cpmant',),
  'CpmTokenizer': ('cpm',),
  'DebertaTokenizer': ('deberta',),
  'DebertaV2Tokenizer': ('deberta-v2',),
  'EsmTokenizer': ('esm',),
  'FNetTokenizer': ('fnet',),
  'FSMTTokenizer': ('fsmt',),
  'FlaubertTokenizer': ('flaubert',),
  'FunnelTokenizer': ('funnel',),
  'GPT2Tokenizer': (
    'codegen', 'dbrx', 'gpt2', 'gpt_neo', 'gptj', 'jais2', 'opt', 'phi', 'starcoder2',
  ),
  'GPTNeoXJapaneseTokenizer': ('gpt_neox_japanese',),
  'GPTNeoXTokenizer': (
    'falcon_mamba', 'gpt_neox', 'mamba', 'mamba2', 'mpt', 'olmo', 'olmoe', 'rwkv', 'xlstm',
  ),
  'GPTSw3Tokenizer': ('gpt-sw3',),
  'GemmaTokenizer': (
    'gemma', 'gemma2', 'gemma3', 'gemma3_text', 'gemma3n', 'gemma3n_text', 'recurrent_gemma',
    't5gemma', 'zaya',
  ),
  'HerbertTokenizer': ('herbert',),
  'LukeTokenizer': ('luke',),
  'M2M100Tokenizer': ('m2m_100',),
  'MBart50Tokenizer': ('mbart50',),
  'MBartTokenizer': ('mbart',),
  'MPNetTokenizer': ('mpnet',),
  'MarianTokenizer': ('marian',),
  'NllbTokenizer': ('nllb', 'nllb-moe'),
  'OpenAIGPTTokenizer': ('openai-gpt',),
  'PLBartTokenizer': ('plbart',),
  'PegasusTokenizer': ('pegasus',),
  'PhobertTokenizer': ('phobert',),
  'ProphetNetTokenizer': ('prophetnet',),
  'Qwen2Tokenizer': ('qwen2', 'qwen2_moe', 'qwen3', 'qwen3_moe', 'qwen3_next'),
  'Qwen3_5Tokenizer': ('qwen3_5', 'qwen3_5_moe', 'qwen3_5_text', 'qwen3_5_moe_text'),
  'ReformerTokenizer': ('reformer',),
  'RemBertTokenizer': ('rembert',),
  'RoCBertTokenizer': ('roc_bert',),
  'RoFormerTokenizer': ('roformer',),
  'RobertaTokenizer': (
    'bart', 'data2vec-text', 'ibert', 'led', 'longformer', 'mega', 'mra', 'mvp', 'roberta',
    'roberta-prelayernorm',
  ),
  'SeamlessM4TTokenizer': ('seamless_m4t',),
  'Siglip2Tokenizer': ('siglip2',),
  'SiglipTokenizer': ('siglip',),
  'SplinterTokenizer': ('splinter',),
  'T5Tokenizer': ('mt5', 'switch_transformers', 't5'),
  'TapasTokenizer': ('tapas',),
  'WhisperTokenizer': ('whisper',),
  'XGLMTokenizer': ('xglm',),
  'XLMRobertaTokenizer': ('gte', 'jina_embeddings_v3', 'xlm-roberta', 'xmod'),
  'XLMTokenizer': ('xlm',),
  'XLNetTokenizer': ('xlnet',),
  BACKEND: (
    'arctic', 'bigbird_pegasus', 'ernie4_5', 'ernie4_5_moe', 'flex_olmo', 'glm', 'glm4', 'glm4_moe',
    'gpt_bigcode',
    'granite', 'granitemoe', 'granitemoehybrid', 'granitemoeshared', 'internlm2', 'internlm3',
    'jamba', 'kimi_linear',
    'mimo_v2_flash', 'minicpm3', 'minimax_m2', 'ministral', 'ministral3', 'mistral', 'mistral3',
    'mixtral',
    'modernbert', 'modernbert-decoder', 'nemotron', 'nystromformer', 'olmo2', 'olmo3',
    'olmo_hybrid', 'pegasus_x',
    'hyperclovax', 'persimmon', 'phi3', 'phimoe', 'pixtral', 'stablelm', 'umt5', 'voxtral',
    'xlm-roberta-xl',
  ),
}  # fmt: skip
_OF_MODEL = {kind: name for name, kinds in _MODEL_TYPES.items() for kind in kinds}

#: Model types with wrong classes in many folders: the class of the model type is used.
_WRONG_CLASS = {
  'arctic', 'chatlm', 'ernie4_5', 'ernie4_5_moe', 'fuyu', 'h2ovl_chat', 'hyperclovax', 'internlm2',
  'internlm3',
  'iquestcoder', 'jamba', 'llava', 'llava_next', 'minicpm3', 'minicpmv', 'minimax_m2', 'modernbert',
  'modernbert-decoder', 'molmo', 'molmo2', 'nemotron', 'phi3', 'phi3_v', 'phimoe', 'qwen2',
  'qwen3_5', 'qwen3_5_moe',
  'qwen3_5_moe_text', 'siglip2', 'smolvlm', 'step3_vl', 'vipllava',
}  # fmt: skip

#: Alternative names of a class.
_ALIASES = {
  'BartTokenizer': 'RobertaTokenizer', 'LEDTokenizer': 'RobertaTokenizer',
  'LongformerTokenizer': 'RobertaTokenizer',
  'MvpTokenizer': 'RobertaTokenizer', 'ConvBertTokenizer': 'BertTokenizer',
  'DistilBertTokenizer': 'BertTokenizer',
  'ElectraTokenizer': 'BertTokenizer', 'LayoutLMTokenizer': 'BertTokenizer',
  'LxmertTokenizer': 'BertTokenizer',
  'MobileBertTokenizer': 'BertTokenizer', 'SqueezeBertTokenizer': 'BertTokenizer',
  'DPRContextEncoderTokenizer': 'BertTokenizer', 'DPRQuestionEncoderTokenizer': 'BertTokenizer',
  'DPRReaderTokenizer': 'BertTokenizer', 'RetriBertTokenizer': 'BertTokenizer',
  'Phi3Tokenizer': 'LlamaTokenizer',
}  # fmt: skip
# Classes of SentencePiece models. transformers fails if their tokenizer.json is byte-level.
_SENTENCES = {'CodeLlamaTokenizer', 'GemmaTokenizer', 'Siglip2Tokenizer'}
_GENERIC = {BACKEND, 'PreTrainedTokenizer', 'PreTrainedTokenizerFast', 'PythonBackend'}


def choose(folder: Path, config: Mapping[str, Any], model: Mapping[str, Any]) -> str:
  """Return the name of the tokenizer class of a folder.

  Args:
    folder: The folder, for `tokenizer.json`.
    config: The content of `tokenizer_config.json`.
    model: The content of `config.json`.

  Returns:
    A key of `RECIPES`, `SPLITTERS` or `REFUSED`, or another class name.
  """
  kind = model.get('model_type') or ''
  if kind == 'encoder-decoder' and not config.get('tokenizer_class'):
    model = model.get('encoder') or {}
    kind = model.get('model_type') or ''
  stated = config.get('tokenizer_class') or model.get('tokenizer_class')
  if stated is None:
    name = _OF_MODEL.get(kind, BACKEND) if kind else _by_files(folder)
    return BACKEND if name in _SENTENCES and _byte_level(folder) else name
  name = plain_name(stated)
  expected = _OF_MODEL.get(kind)
  wrong = kind in _WRONG_CLASS
  if name == 'LlamaTokenizer' and not wrong and _byte_level(folder):
    return BACKEND
  if expected is None or expected == name:
    return BACKEND if name in _GENERIC else name
  if expected == BACKEND or name in _GENERIC:
    return expected if wrong else BACKEND
  return expected if wrong else name


def _by_files(folder: Path) -> str:
  """Return the class of a folder without configs, from the names of its files."""
  names = {path.name for path in folder.iterdir()}
  if 'tokenizer.json' in names:
    return BACKEND
  if 'vocab.txt' in names:
    return 'BertTokenizer'
  return 'GPT2Tokenizer' if {'vocab.json', 'merges.txt'} <= names else BACKEND


def plain_name(name: str) -> str:
  """Return the canonical name of a class."""
  if name in _GENERIC:
    return name
  name = name.removesuffix('Fast')
  return _ALIASES.get(name, name)


def _byte_level(folder: Path) -> bool:
  """Return whether `tokenizer.json` splits text into bytes."""
  path = folder / 'tokenizer.json'
  return path.is_file() and '"ByteLevel"' in path.read_text('utf-8')
