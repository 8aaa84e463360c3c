"""Published configs of BERT and BART variants match the zoo; unsupported ones raise errors."""

import pytest

from tfm import zoo
from tfm.core import errors
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.zoo import weights

_BERT = {
  'attention_probs_dropout_prob': 0.1, 'hidden_act': 'gelu', 'hidden_dropout_prob': 0.1,
  'hidden_size': 768, 'initializer_range': 0.02, 'intermediate_size': 3072,
  'num_attention_heads': 12, 'num_hidden_layers': 12,
}  # fmt: skip
_ROBERTA = {
  **_BERT, 'bos_token_id': 0, 'eos_token_id': 2, 'gradient_checkpointing': False,
  'layer_norm_eps': 1e-05,
  'max_position_embeddings': 514, 'pad_token_id': 1, 'type_vocab_size': 1, 'vocab_size': 50265,
}  # fmt: skip
_BART = {
  '_num_labels': 3, 'activation_dropout': 0.0, 'activation_function': 'gelu',
  'add_final_layer_norm': False, 'attention_dropout': 0.0, 'classif_dropout': 0.0,
  'classifier_dropout': 0.0, 'd_model': 768, 'decoder_attention_heads': 12, 'decoder_ffn_dim': 3072,
  'decoder_layerdrop': 0.0, 'decoder_layers': 6, 'dropout': 0.1, 'encoder_attention_heads': 12,
  'encoder_ffn_dim': 3072, 'encoder_layerdrop': 0.0, 'encoder_layers': 6, 'init_std': 0.02,
  'is_encoder_decoder': True, 'normalize_before': False, 'num_hidden_layers': 6, 'use_cache': True,
  'vocab_size': 50265,
}  # fmt: skip
_XLM = {
  'asm': False, 'attention_dropout': 0.1, 'bos_index': 0, 'causal': False, 'dropout': 0.1,
  'eos_index': 1, 'gelu_activation': True, 'init_std': 0.02, 'is_encoder': True,
  'layer_norm_eps': 1e-12, 'mask_index': 5, 'max_position_embeddings': 512, 'pad_index': 2,
  'sinusoidal_embeddings': False, 'summary_type': 'first', 'summary_use_proj': True, 'unk_index': 3,
  'use_lang_emb': True,
}  # fmt: skip
_SMALL = {**_BART, 'd_model': 512, **{f'{s}_{n}': v for s in ('encoder', 'decoder') for n, v in (
  ('attention_heads', 16), ('ffn_dim', 2048), ('layers', 8),
)}}  # fmt: skip
_SIDE = {
  **_BERT, 'layer_norm_eps': 1e-12, 'max_length': 20, 'max_position_embeddings': 512,
  'model_type': 'bert',
  'pad_token_id': 0, 'tie_encoder_decoder': False, 'type_vocab_size': 2, 'vocab_size': 30522,
}  # fmt: skip
_TWO = {
  'architectures': ['EncoderDecoderModel'], 'encoder': {**_SIDE, 'is_decoder': False},
  'decoder': {**_SIDE, 'is_decoder': True, 'add_cross_attention': True}, 'is_encoder_decoder': True,
  'model_type': 'encoder-decoder', 'num_beams': 4, 'tie_encoder_decoder': False,
}  # fmt: skip
# fmt: off
CONFIGS = {
  'ernie-3.0-base-zh': {
    **_BERT, 'layer_norm_eps': 1e-05, 'max_position_embeddings': 2048, 'model_type': 'ernie',
    'pad_token_id': 0, 'task_type_vocab_size': 3, 'type_vocab_size': 4, 'use_task_id': True,
    'vocab_size': 40000,
  },
  'deberta-base': {
    **_BERT, 'layer_norm_eps': 1e-07, 'max_position_embeddings': 512, 'max_relative_positions': -1,
    'model_type': 'deberta', 'padding_idx': 0, 'pos_att_type': 'c2p|p2c',
    'position_biased_input': False, 'relative_attention': True, 'type_vocab_size': 0,
    'vocab_size': 50265,
  },
  'esm2-8m': {
    'architectures': ['EsmForMaskedLM'], 'attention_probs_dropout_prob': 0.0,
    'classifier_dropout': None, 'emb_layer_norm_before': False, 'esmfold_config': None,
    'hidden_act': 'gelu', 'hidden_dropout_prob': 0.0, 'hidden_size': 320, 'initializer_range': 0.02,
    'intermediate_size': 1280, 'is_folding_model': False, 'layer_norm_eps': 1e-05,
    'mask_token_id': 32, 'max_position_embeddings': 1026, 'model_type': 'esm',
    'num_attention_heads': 20, 'num_hidden_layers': 6, 'pad_token_id': 1,
    'position_embedding_type': 'rotary', 'token_dropout': True, 'use_cache': True,
    'vocab_list': None, 'vocab_size': 33,
  },
  'eurobert-210m': {
    'architectures': ['EuroBertForMaskedLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'bos_token': '<|begin_of_text|>', 'bos_token_id': 128000, 'classifier_pooling': 'late',
    'eos_token_id': 128001, 'head_dim': 64, 'hidden_act': 'silu', 'hidden_dropout': 0.0,
    'hidden_size': 768, 'intermediate_size': 3072, 'mask_token': '<|mask|>',
    'mask_token_id': 128002, 'max_position_embeddings': 8192, 'mlp_bias': False,
    'model_type': 'eurobert', 'num_attention_heads': 12, 'num_hidden_layers': 12,
    'num_key_value_heads': 12, 'pretraining_tp': 1, 'rms_norm_eps': 1e-05, 'rope_scaling': None,
    'rope_theta': 250000, 'tie_word_embeddings': False, 'vocab_size': 128256,
  },
  'longformer-base-4096': {
    **_ROBERTA, 'attention_mode': 'longformer', 'attention_window': [512] * 12,
    'ignore_attention_mask': False, 'max_position_embeddings': 4098, 'model_type': 'longformer',
    'sep_token_id': 2,
  },
  'luke-base': {
    **_ROBERTA, 'architectures': ['LukeForMaskedLM'], 'bert_model_name': 'roberta-base',
    'entity_emb_size': 256, 'entity_vocab_size': 500000, 'model_type': 'luke',
    'use_entity_aware_attention': True, 'vocab_size': 50267,
  },
  'flaubert-base-cased': {
    **_XLM, 'amp': 1, 'architectures': ['FlaubertWithLMHeadModel'], 'bptt': 512,
    'clip_grad_norm': 5, 'emb_dim': 768, 'encoder_only': True, 'fp16': True, 'group_by_size': True,
    'id2lang': {'0': 'fr'}, 'lang2id': {'fr': 0}, 'langs': ['fr'], 'layerdrop': 0.0, 'lgs': 'fr',
    'max_vocab': -1, 'mlm_steps': [['fr', None]], 'model_type': 'flaubert', 'n_heads': 12,
    'n_langs': 1, 'n_layers': 12, 'pre_norm': False, 'share_inout_emb': True,
    'tokens_per_batch': -1, 'vocab_size': 68729, 'word_mask': 0.8, 'word_pred': 0.15,
  },
  'xlm-mlm-en-2048': {
    **_XLM, 'architectures': ['XLMWithLMHeadModel'], 'emb_dim': 2048, 'model_type': 'xlm',
    'n_heads': 16, 'n_langs': 1, 'n_layers': 12, 'vocab_size': 30145,
  },
  'led-base-16384': {
    **_BART, 'architectures': ['LEDForConditionalGeneration'], 'attention_window': [1024] * 6,
    'max_decoder_position_embeddings': 1024, 'max_encoder_position_embeddings': 16384,
    'model_type': 'led',
  },
  'blenderbot-small-90m': {
    **_SMALL, 'architectures': ['BlenderbotSmallForConditionalGeneration'],
    'do_blenderbot_90_layernorm': True, 'extra_layer_norm': False, 'extra_pos_embeddings': 0,
    'layernorm_variant': 'xlm', 'max_position_embeddings': 512, 'model_type': 'blenderbot-small',
    'normalize_embedding': True, 'num_hidden_layers': 8, 'scale_embedding': True,
    'static_position_embeddings': False, 'variant': 'xlm', 'vocab_size': 54944,
  },
  'plbart-base': {
    **_BART, 'architectures': ['PLBartForConditionalGeneration'], 'attention_dropout': 0.1,
    'max_position_embeddings': 1024, 'model_type': 'plbart', 'scale_embedding': True,
    'vocab_size': 50005,
  },
  'bert2bert-base': _TWO,
}
# fmt: on


@pytest.mark.parametrize('name', CONFIGS)
def test_published_config_matches_the_zoo(name):
  read = weights.published(CONFIGS[name]).spec
  assert flattened(normalised(read)) == flattened(normalised(zoo.get(name)))


@pytest.mark.parametrize(
  ('name', 'changes', 'message'),
  [
    ('xlm-mlm-en-2048', {'n_langs': 2}, 'use_lang_emb is true, and n_langs is 2'),
    ('xlm-mlm-en-2048', {'causal': True}, 'causal is True'),
    ('longformer-base-4096', {'attention_window': [512]}, 'Expected an even number, or 12 of them'),
    ('led-base-16384', {'attention_window': 7}, 'Expected an even number, or 6 of them'),
    ('deberta-base', {'talking_head': True}, 'talking_head is True'),
    ('esm2-8m', {'is_folding_model': True}, 'is_folding_model is True'),
    (
      'luke-base',
      {'architectures': ['LukeForEntityClassification']},
      "'ForEntityClassification', which model_type",
    ),
    (
      'bert2bert-base',
      {'decoder': {**_SIDE, 'is_decoder': True}},
      'add_cross_attention is False. Expected true for both',
    ),
    (
      'bert2bert-base',
      {'encoder': {**_SIDE, 'hidden_size': 384}},
      'hidden_size is 768, and the encoder has 384',
    ),
  ],
)
def test_unsupported_settings_raise_errors(name, changes, message):
  with pytest.raises(errors.UserError, match=message):
    weights.published({**CONFIGS[name], **changes})


def test_quantized_ibert_and_mvp_prompts_raise_errors():
  with pytest.raises(errors.UserError, match='quant_mode is True'):
    weights.published({**_ROBERTA, 'model_type': 'ibert', 'quant_mode': True})
  with pytest.raises(errors.UserError, match='use_prompt is True'):
    weights.published({**_BART, 'model_type': 'mvp', 'use_prompt': True})
