"""Toy configs of encoders with special layers in transformers, with their heads."""

from tests.hub.encoders import heads
from tests.hub.published import SIZES, Case, D

_CONV = {**SIZES, 'embedding_size': 24, 'conv_kernel_size': 5, 'pad_token_id': 0}
_MOBILE = {
  **SIZES, 'embedding_size': 12, 'intra_bottleneck_size': 16, 'num_feedforward_networks': 3,
  'type_vocab_size': 2,
}  # fmt: skip
_SQUEEZE = {**SIZES, 'embedding_size': D}
_XMOD = {**SIZES, 'languages': ['en_XX', 'de_DE', 'sw_KE']}
#: Every class of SqueezeBERT has a pooler.
_POOLER = r'pooler\.'

CASES = {
  'xmod': Case('XmodConfig', 'XmodForMaskedLM', _XMOD, first=2, whole=True),
  'xmod-pre-norm': Case('XmodConfig', 'XmodForMaskedLM', {
    **_XMOD, 'pre_norm': True, 'adapter_layer_norm': True, 'ln_before_adapter': False,
    'hidden_act': 'relu',
    'default_language': 'sw_KE', 'adapter_reduction_factor': 4,
  }, first=2, whole=True),
  'xmod-no-norm': Case('XmodConfig', 'XmodForMaskedLM', {
    **_XMOD, 'adapter_reuse_layer_norm': False, 'ln_before_adapter': False,
  }, first=2),
  **heads('xmod', 'Xmod', _XMOD, 'sequence', 'tokens', 'body', first=2),
  'squeezebert': Case(
    'SqueezeBertConfig', 'SqueezeBertForMaskedLM', _SQUEEZE, idle=_POOLER, whole=True
  ),
  'squeezebert-groups': Case('SqueezeBertConfig', 'SqueezeBertForMaskedLM', {
    **_SQUEEZE, 'q_groups': 1, 'k_groups': 2, 'v_groups': 8, 'post_attention_groups': 2,
    'intermediate_groups': 1,
    'output_groups': 16, 'layer_norm_eps': 0.01, 'hidden_act': 'relu',
  }, idle=_POOLER, whole=True),
  **heads('squeezebert', 'SqueezeBert', _SQUEEZE, 'sequence', 'body'),
  **heads('squeezebert', 'SqueezeBert', _SQUEEZE, 'tokens', 'questions', idle=_POOLER),
  # The convolutions of transformers include the hidden states of padding.
  'convbert': Case('ConvBertConfig', 'ConvBertForMaskedLM', _CONV, padded=False, whole=True),
  'convbert-groups': Case('ConvBertConfig', 'ConvBertForMaskedLM', {
    **_CONV, 'embedding_size': D, 'num_groups': 2, 'head_ratio': 4, 'conv_kernel_size': 3,
    'hidden_act': 'relu',
  }, padded=False, whole=True),
  **heads('convbert', 'ConvBert', _CONV, 'sequence', 'tokens', 'questions', 'body', padded=False),
  # The trigrams of transformers include the embedding of padding, which is initially 0.
  'mobilebert': Case(
    'MobileBertConfig', 'MobileBertForMaskedLM', _MOBILE, kept='word_embeddings', whole=True
  ),
  'mobilebert-narrow': Case('MobileBertConfig', 'MobileBertForMaskedLM', {
    **_MOBILE, 'use_bottleneck_attention': True, 'num_feedforward_networks': 1,
    'hidden_act': 'gelu',
  }, kept='word_embeddings', idle=r'bottleneck\.attention', whole=True),
  'mobilebert-pretraining': Case(
    'MobileBertConfig', 'MobileBertForPreTraining', _MOBILE, kept='word_embeddings'
  ),
  **heads(
    'mobilebert', 'MobileBert', _MOBILE, 'sequence', 'tokens', 'questions', 'choices', 'body',
    kept='word_embeddings'
  ),
}  # fmt: skip
