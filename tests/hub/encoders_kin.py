"""Toy configs of BERT variants in transformers, with their heads."""

from tests.hub.encoders import heads
from tests.hub.published import SIZES, Case, D, K, L, N, V

_ERNIE = {**SIZES, 'type_vocab_size': 4, 'use_task_id': True}
_REMBERT = {**SIZES, 'input_embedding_size': 24, 'output_embedding_size': 40, 'hidden_act': 'relu'}
_ESM = {
  **SIZES, 'pad_token_id': 1, 'mask_token_id': 5, 'token_dropout': True,
  'position_embedding_type': 'rotary',
}  # fmt: skip
_EURO = {**SIZES, 'num_key_value_heads': K, 'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2}
XLM = {
  'vocab_size': V,
  'emb_dim': D,
  'n_layers': L,
  'n_heads': N,
  'pad_token_id': 0,
  'max_position_embeddings': 64,
}
_DEBERTA = {
  **SIZES,
  'relative_attention': True,
  'pos_att_type': 'c2p|p2c',
  'position_biased_input': False,
}
_LUKE = {**SIZES, 'entity_vocab_size': 7, 'entity_emb_size': 6}
_LONGFORMER = {**SIZES, 'attention_window': [4, 6]}
_ENTITIES = r'entity|(w2e|e2w|e2e)_query'
#: transformers has a pooler for every class.
_ENTITIES_AND_POOLER = rf'{_ENTITIES}|pooler|^lm_head.bias$'
#: Unused tensors of transformers: a head on attention maps, and integer buffers.
_CONTACTS = r'contact_head|inv_freq'
_INTEGERS = r'_integer$|scaling_factor$|x_min$|x_max$|shift$'

CASES = {
  'ernie': Case('ErnieConfig', 'ErnieForMaskedLM', _ERNIE),
  'ernie-plain': Case('ErnieConfig', 'ErnieForMaskedLM', SIZES),
  'ernie-pretraining': Case('ErnieConfig', 'ErnieForPreTraining', _ERNIE, whole=True),
  **heads('ernie', 'Ernie', _ERNIE, 'sequence', 'tokens', 'body'),
  'megatron-bert': Case('MegatronBertConfig', 'MegatronBertForMaskedLM', SIZES, whole=True),
  **heads('megatron-bert', 'MegatronBert', SIZES, 'sequence', 'questions', 'body'),
  'data2vec-text': Case('Data2VecTextConfig', 'Data2VecTextForMaskedLM', SIZES, first=2),
  **heads('data2vec-text', 'Data2VecText', SIZES, 'sequence', 'tokens', first=2),
  'ibert': Case('IBertConfig', 'IBertForMaskedLM', SIZES, first=2, idle=_INTEGERS),
  **heads('ibert', 'IBert', SIZES, 'sequence', 'questions', first=2, idle=_INTEGERS),
  'roberta-prelayernorm': Case(
    'RobertaPreLayerNormConfig', 'RobertaPreLayerNormForMaskedLM', SIZES, first=2,
  ),
  **heads(
    'roberta-prelayernorm', 'RobertaPreLayerNorm', SIZES, 'sequence', 'choices', 'body', first=2,
  ),
  'xlm-roberta-xl': Case('XLMRobertaXLConfig', 'XLMRobertaXLForMaskedLM', SIZES, first=2),
  **heads('xlm-roberta-xl', 'XLMRobertaXL', SIZES, 'sequence', 'tokens', 'body', first=2),
  'rembert': Case('RemBertConfig', 'RemBertForMaskedLM', _REMBERT, whole=True),
  **heads('rembert', 'RemBert', _REMBERT, 'sequence', 'tokens', 'body'),
  'esm': Case(
    'EsmConfig', 'EsmForMaskedLM', _ESM, first=2, idle=_CONTACTS, merged=True, whole=True,
  ),
  'esm-absolute': Case('EsmConfig', 'EsmForMaskedLM', {
    **_ESM, 'position_embedding_type': 'absolute', 'emb_layer_norm_before': True,
    'token_dropout': False,
  }, first=2, idle=_CONTACTS, merged=True),
  **heads('esm', 'Esm', _ESM, 'sequence', 'tokens', 'body', first=2, idle=_CONTACTS, merged=True),
  'eurobert': Case('EuroBertConfig', 'EuroBertForMaskedLM', _EURO),
  'eurobert-biased': Case('EuroBertConfig', 'EuroBertForMaskedLM', {
    **_EURO, 'attention_bias': True, 'mlp_bias': True, 'tie_word_embeddings': True, 'head_dim': 6,
  }, whole=True),
  **heads('eurobert', 'EuroBert', _EURO, 'sequence', 'tokens', 'body'),
  'eurobert-mean': Case('EuroBertConfig', 'EuroBertForSequenceClassification', {
    **_EURO, 'classifier_pooling': 'mean', 'num_labels': 3,
  }),
  'eurobert-first': Case('EuroBertConfig', 'EuroBertForSequenceClassification', {
    **_EURO, 'classifier_pooling': 'bos', 'num_labels': 3,
  }),
  'xlm': Case('XLMConfig', 'XLMWithLMHeadModel', XLM),
  'xlm-sequence': Case('XLMConfig', 'XLMForSequenceClassification', {**XLM, 'num_labels': 3}),
  'xlm-questions': Case('XLMConfig', 'XLMForQuestionAnsweringSimple', XLM),
  'flaubert': Case('FlaubertConfig', 'FlaubertWithLMHeadModel', {
    **XLM, 'gelu_activation': False, 'tie_word_embeddings': False,
  }, whole=True),
  'flaubert-tokens': Case(
    'FlaubertConfig', 'FlaubertForTokenClassification', {**XLM, 'num_labels': 5},
  ),
  # The cases `deberta` are DeBERTa v2.
  'deberta-v1': Case('DebertaConfig', 'DebertaForMaskedLM', {
    **_DEBERTA, 'max_relative_positions': 5,
  }, whole=True),
  'deberta-v1-content': Case('DebertaConfig', 'DebertaForMaskedLM', {
    **_DEBERTA, 'pos_att_type': 'c2p', 'type_vocab_size': 2, 'position_biased_input': True,
  }),
  'deberta-v1-plain': Case('DebertaConfig', 'DebertaForMaskedLM', SIZES),
  **heads('deberta-v1', 'Deberta', _DEBERTA, 'sequence', 'tokens', 'body'),
  'luke': Case(
    'LukeConfig', 'LukeForMaskedLM', _LUKE, first=2, idle=_ENTITIES_AND_POOLER, whole=True,
  ),
  **heads('luke', 'Luke', _LUKE, 'sequence', 'body', first=2, idle=_ENTITIES),
  **heads('luke', 'Luke', _LUKE, 'tokens', 'questions', first=2, idle=_ENTITIES_AND_POOLER),
  'longformer': Case(
    'LongformerConfig', 'LongformerForMaskedLM', _LONGFORMER, first=2, left=False, whole=True,
  ),
  **heads('longformer', 'Longformer', _LONGFORMER, 'tokens', 'body', first=2, left=False),
}  # fmt: skip
