"""Published configs of encoders, with their old fields, match the models of the zoo."""

import pytest

from tfm import zoo
from tfm.hub.spec_equivalence import flattened, normalised
from tfm.zoo import weights

_BERT = {
  'attention_probs_dropout_prob': 0.1, 'hidden_act': 'gelu', 'hidden_dropout_prob': 0.1,
  'hidden_size': 768, 'initializer_range': 0.02, 'intermediate_size': 3072,
  'num_attention_heads': 12, 'num_hidden_layers': 12,
}  # fmt: skip
_ROBERTA = {
  **_BERT, 'bos_token_id': 0, 'eos_token_id': 2, 'layer_norm_eps': 1e-05,
  'max_position_embeddings': 514, 'output_past': True, 'pad_token_id': 1, 'type_vocab_size': 1,
}  # fmt: skip
# fmt: off
CONFIGS = {
  'bert-base': {
    **_BERT, 'architectures': ['BertForMaskedLM'], 'gradient_checkpointing': False,
    'layer_norm_eps': 1e-12, 'max_position_embeddings': 512, 'model_type': 'bert',
    'pad_token_id': 0, 'position_embedding_type': 'absolute', 'transformers_version': '4.6.0.dev0',
    'type_vocab_size': 2, 'use_cache': True, 'vocab_size': 30522, 'directionality': 'bidi',
    'pooler_fc_size': 768, 'pooler_num_attention_heads': 12, 'pooler_num_fc_layers': 3,
    'pooler_size_per_head': 128, 'pooler_type': 'first_token_transform',
  },
  'roberta-base': {
    **_ROBERTA, 'architectures': ['RobertaForMaskedLM'], 'model_type': 'roberta',
    'vocab_size': 50265,
  },
  'camembert-base': {
    **_ROBERTA, 'architectures': ['CamembertForMaskedLM'], 'bos_token_id': 5, 'eos_token_id': 6,
    'model_type': 'camembert', 'vocab_size': 32005,
  },
  'xlm-roberta-base': {
    **_ROBERTA, 'architectures': ['XLMRobertaForMaskedLM'], 'model_type': 'xlm-roberta',
    'vocab_size': 250002, 'position_embedding_type': 'absolute', 'use_cache': True,
  },
  'distilbert-base': {
    'activation': 'gelu', 'architectures': ['DistilBertForMaskedLM'], 'attention_dropout': 0.1,
    'dim': 768, 'dropout': 0.1, 'hidden_dim': 3072, 'initializer_range': 0.02,
    'max_position_embeddings': 512, 'model_type': 'distilbert', 'n_heads': 12, 'n_layers': 6,
    'pad_token_id': 0, 'qa_dropout': 0.1, 'seq_classif_dropout': 0.2, 'sinusoidal_pos_embds': False,
    'tie_weights_': True, 'vocab_size': 30522,
  },
  'electra-small': {
    **_BERT, 'architectures': ['ElectraForMaskedLM'], 'embedding_size': 128, 'hidden_size': 256,
    'intermediate_size': 1024, 'layer_norm_eps': 1e-12, 'max_position_embeddings': 512,
    'model_type': 'electra', 'num_attention_heads': 4, 'pad_token_id': 0,
    'position_embedding_type': 'absolute', 'summary_activation': 'gelu',
    'summary_last_dropout': 0.1, 'summary_type': 'first', 'summary_use_proj': True,
    'type_vocab_size': 2, 'vocab_size': 30522,
  },
  'albert-base': {
    **_BERT, 'architectures': ['AlbertForMaskedLM'], 'attention_probs_dropout_prob': 0,
    'bos_token_id': 2, 'classifier_dropout_prob': 0.1, 'down_scale_factor': 1,
    'embedding_size': 128, 'eos_token_id': 3, 'gap_size': 0, 'hidden_act': 'gelu_new',
    'hidden_dropout_prob': 0, 'inner_group_num': 1, 'layer_norm_eps': 1e-12,
    'max_position_embeddings': 512, 'model_type': 'albert', 'net_structure_type': 0,
    'num_hidden_groups': 1, 'num_memory_blocks': 0, 'pad_token_id': 0, 'type_vocab_size': 2,
    'vocab_size': 30000,
  },
  'modernbert-base': {
    'architectures': ['ModernBertForMaskedLM'], 'attention_bias': False, 'attention_dropout': 0.0,
    'bos_token_id': 50281, 'classifier_activation': 'gelu', 'classifier_bias': False,
    'classifier_dropout': 0.0, 'classifier_pooling': 'mean', 'cls_token_id': 50281,
    'decoder_bias': True, 'deterministic_flash_attn': False, 'embedding_dropout': 0.0,
    'eos_token_id': 50282, 'global_attn_every_n_layers': 3, 'global_rope_theta': 160000.0,
    'gradient_checkpointing': False, 'hidden_activation': 'gelu', 'hidden_size': 768,
    'initializer_cutoff_factor': 2.0, 'initializer_range': 0.02, 'intermediate_size': 1152,
    'layer_norm_eps': 1e-05, 'local_attention': 128, 'local_rope_theta': 10000.0,
    'max_position_embeddings': 8192, 'mlp_bias': False, 'mlp_dropout': 0.0,
    'model_type': 'modernbert', 'norm_bias': False, 'norm_eps': 1e-05, 'num_attention_heads': 12,
    'num_hidden_layers': 22, 'pad_token_id': 50283, 'position_embedding_type': 'absolute',
    'sep_token_id': 50282, 'tie_word_embeddings': True, 'torch_dtype': 'float32',
    'vocab_size': 50368,
  },
  'deberta-v2-xlarge': {
    **_BERT, 'attention_head_size': 64, 'conv_act': 'gelu', 'conv_kernel_size': 3,
    'hidden_size': 1536, 'intermediate_size': 6144, 'layer_norm_eps': 1e-07,
    'max_position_embeddings': 512, 'max_relative_positions': -1, 'model_type': 'deberta-v2',
    'norm_rel_ebd': 'layer_norm', 'num_attention_heads': 24, 'num_hidden_layers': 24,
    'pos_att_type': 'p2c|c2p', 'position_biased_input': False, 'position_buckets': 256,
    'relative_attention': True, 'share_att_key': True, 'type_vocab_size': 0, 'vocab_size': 128100,
  },
  'deberta-v3-base': {
    **_BERT, 'layer_norm_eps': 1e-07, 'max_position_embeddings': 512, 'max_relative_positions': -1,
    'model_type': 'deberta-v2', 'norm_rel_ebd': 'layer_norm', 'pad_token_id': 0,
    'pooler_dropout': 0, 'pooler_hidden_act': 'gelu', 'pooler_hidden_size': 768,
    'pos_att_type': 'p2c|c2p', 'position_biased_input': False, 'position_buckets': 256,
    'relative_attention': True, 'share_att_key': True, 'type_vocab_size': 0, 'vocab_size': 128100,
  },
  'xlnet-base': {
    'architectures': ['XLNetLMHeadModel'], 'attn_type': 'bi', 'bi_data': False, 'bos_token_id': 1,
    'clamp_len': -1, 'd_head': 64, 'd_inner': 3072, 'd_model': 768, 'dropout': 0.1, 'end_n_top': 5,
    'eos_token_id': 2, 'ff_activation': 'gelu', 'initializer_range': 0.02, 'layer_norm_eps': 1e-12,
    'mem_len': None, 'model_type': 'xlnet', 'n_head': 12, 'n_layer': 12, 'pad_token_id': 5,
    'reuse_len': None, 'same_length': False, 'start_n_top': 5, 'summary_activation': 'tanh',
    'summary_last_dropout': 0.1, 'summary_type': 'last', 'summary_use_proj': True,
    'task_specific_params': {'text-generation': {'do_sample': True}}, 'untie_r': True,
    'vocab_size': 32000,
  },
}
# fmt: on


@pytest.mark.parametrize('name', CONFIGS)
def test_published_config_matches_the_zoo(name):
  read = weights.published(CONFIGS[name]).spec
  assert flattened(normalised(read)) == flattened(normalised(zoo.get(name)))
