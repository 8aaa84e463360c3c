"""Byte pairs of SentencePiece models: Llama, Gemma and related tokenizers."""

from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from tfm.data.tokenizer.published.languages import NLLB
from tfm.data.tokenizer.published.recipe import Draft, Recipe

_SPACE = '▁'


def _pairs(draft: Draft, **options: Any) -> tokenizers.Tokenizer:
  given = {'fuse_unk': True, 'byte_fallback': True} | options
  return tokenizers.Tokenizer(models.BPE(draft.vocab, draft.merges or [], **given))


def _bytes_decoder(strip: bool) -> Any:
  steps: list[Any] = [decoders.Replace(_SPACE, ' '), decoders.ByteFallback(), decoders.Fuse()]
  return decoders.Sequence([*steps, decoders.Strip(content=' ', left=1)] if strip else steps)


def _llama(draft: Draft) -> tokenizers.Tokenizer:
  prefixed = draft.fields.get('add_prefix_space')
  prefixed = True if prefixed is None else prefixed
  inner = _pairs(draft)
  inner.pre_tokenizer = _llama_words(prefixed, draft.fields['legacy'])
  inner.decoder = _bytes_decoder(bool(prefixed))
  return inner


def _llama_words(prefixed: bool, legacy: bool) -> Any:
  schemes = {(True, True): 'always', (True, False): 'first'}
  scheme = schemes.get((prefixed, legacy), 'never')
  return pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme=scheme, split=False)


def _code_llama(draft: Draft) -> tokenizers.Tokenizer:
  prefixed = draft.fields.get('add_prefix_space')
  prefixed = True if prefixed is None else prefixed
  inner = _pairs(draft, unk_token=str(draft.fields['unk_token']))
  inner.pre_tokenizer = _llama_words(prefixed, False)
  inner.decoder = _bytes_decoder(True)
  return inner


def _code_llama_tokens(draft: Draft) -> None:
  fields = draft.fields
  infill = [fields[name] for name in _INFILL]
  known = fields.get('additional_special_tokens') or []
  fields['additional_special_tokens'] = [*known, *(t for t in infill if t is not None)]


def _gemma(draft: Draft) -> tokenizers.Tokenizer:
  inner = _pairs(draft, unk_token=str(draft.fields['unk_token']))
  inner.pre_tokenizer = pre_tokenizers.Split(' ', 'merged_with_previous')
  inner.decoder = _bytes_decoder(False)
  inner.normalizer = normalizers.Replace(' ', _SPACE)
  return inner


def _siglip2(draft: Draft) -> None:
  draft.inner.normalizer = normalizers.Sequence(
    [normalizers.Lowercase(), normalizers.Replace(' ', _SPACE)]
  )


def _words(draft: Draft) -> tokenizers.Tokenizer:
  inner = _pairs(draft, unk_token=str(draft.fields['unk_token']), byte_fallback=False)
  if draft.charsmap is not None:
    spaces = normalizers.Replace(tokenizers.Regex(' {2,}'), ' ')
    inner.normalizer = normalizers.Sequence([normalizers.Precompiled(draft.charsmap), spaces])
  inner.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme='always')
  inner.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme='always')
  return inner


def _nllb_order(draft: Draft, vocab: dict[str, int]) -> dict[str, int]:
  named = [('bos', '<s>'), ('pad', '<pad>'), ('eos', '</s>'), ('unk', '<unk>')]
  first = [str(draft.fields.get(f'{name}_token', text)) for name, text in named]
  return {text: i for i, text in enumerate(dict.fromkeys([*first, *vocab]))}


def _nllb_tokens(draft: Draft) -> None:
  fields = draft.fields
  known = fields.get('extra_special_tokens') or fields.get('additional_special_tokens')
  fields['extra_special_tokens'] = list(NLLB) if known is None else known


def _nllb_frame(draft: Draft) -> None:
  language, eos = draft.fields.get('src_lang') or 'eng_Latn', draft.text('eos_token')
  if draft.fields.get('legacy_behaviour'):
    draft.frame([], [eos, language])
  else:
    draft.frame([language], [eos])


_INFILL = ('prefix_token', 'middle_token', 'suffix_token', 'eot_token', 'fill_token')
_LLAMA = {'unk_token': '<unk>', 'bos_token': '<s>', 'eos_token': '</s>'}
_GEMMA = {
  'unk_token': '<unk>', 'bos_token': '<bos>', 'eos_token': '<eos>', 'pad_token': '<pad>',
  'mask_token': '<mask>',
}  # fmt: skip
_CODE = {
  'prefix_token': '▁<PRE>', 'middle_token': '▁<MID>', 'suffix_token': '▁<SUF>',
  'eot_token': '▁<EOT>',
  'fill_token': '<FILL_ME>',
}  # fmt: skip
_NLLB = {
  'bos_token': '<s>', 'eos_token': '</s>', 'sep_token': '</s>', 'cls_token': '<s>',
  'unk_token': '<unk>',
  'pad_token': '<pad>', 'mask_token': '<mask>',
}  # fmt: skip
_MASK = {'mask_token': {'lstrip': True, 'normalized': True, 'special': True}}

RECIPES = {
  'LlamaTokenizer': Recipe(
    _llama, 'BPE', 'tokenizer.model', tokens=_LLAMA, defaults={'legacy': False}
  ),
  'CodeLlamaTokenizer': Recipe(
    _code_llama, 'BPE', 'tokenizer.model', tokens=_LLAMA | _CODE, defaults={'add_bos_token': True},
    prepare=_code_llama_tokens,
  ),
  'GemmaTokenizer': Recipe(_gemma, 'BPE', tokens=_GEMMA),
  'Siglip2Tokenizer': Recipe(_gemma, 'BPE', tokens=_GEMMA, finish=_siglip2),
  'NllbTokenizer': Recipe(
    _words, 'BPE', 'sentencepiece.bpe.model', tokens=_NLLB, flags=_MASK, arrange=_nllb_order,
    prepare=_nllb_tokens,
    finish=_nllb_frame, language='src_lang',
  ),
  'ReformerTokenizer': Recipe(
    _words, 'BPE', 'spiece.model', tokens={'eos_token': '</s>', 'unk_token': '<unk>'},
    finish=Draft.make_special
  ),
}  # fmt: skip
