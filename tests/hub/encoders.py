"""Toy configs of encoders in transformers, with their heads."""

from tests.hub.published import SIZES, Case, D, F, L, N, V

_DISTIL = {
  'vocab_size': V,
  'dim': D,
  'n_layers': L,
  'n_heads': N,
  'hidden_dim': F,
  'max_position_embeddings': 64,
}

_ALBERT = {**SIZES, 'embedding_size': 24, 'num_hidden_layers': 3}
_FNET = {**{n: x for n, x in SIZES.items() if n != 'num_attention_heads'}, 'pad_token_id': 0}
_MODERN = {
  **SIZES, 'num_hidden_layers': 5, 'local_attention': 4, 'pad_token_id': 0, 'bos_token_id': 1,
  'eos_token_id': 2, 'cls_token_id': 1, 'sep_token_id': 2,
}  # fmt: skip
_DEBERTA = {
  **SIZES, 'relative_attention': True, 'pos_att_type': 'p2c|c2p', 'position_buckets': 8,
  'share_att_key': True,
  'norm_rel_ebd': 'layer_norm', 'position_biased_input': False, 'max_relative_positions': -1,
}  # fmt: skip
_XLNET = {'vocab_size': V, 'd_model': D, 'n_layer': L, 'n_head': N, 'd_inner': F}


def heads(
  name: str, stem: str, fields: dict, *tops: str, idle: str | None = None, **case
) -> dict[str, Case]:
  """Return the cases of further classes of a family.

  Args:
    name: The prefix of the case names.
    stem: The prefix of the classes.
    fields: The fields of the config.
    *tops: The heads: sequence, tokens, questions, choices or body.
    idle: See `Case`.
    **case: Further fields of `Case`.

  Returns:
    The cases by name.
  """
  endings = {
    'sequence': ('ForSequenceClassification', {'num_labels': 3}),
    'tokens': ('ForTokenClassification', {'num_labels': 5}),
    'questions': ('ForQuestionAnswering', {}),
    'choices': ('ForMultipleChoice', {}),
    'body': ('Model', {}),
  }
  chosen = {n: endings[n] for n in tops}
  return {
    f'{name}-{n}': Case(f'{stem}Config', stem + end, {**fields, **more}, idle=idle, **case)
    for n, (end, more) in chosen.items()
  }


CASES = {
  'bert': Case('BertConfig', 'BertForMaskedLM', SIZES),
  'bert-pretraining': Case('BertConfig', 'BertForPreTraining', SIZES, whole=True),
  'bert-next': Case('BertConfig', 'BertForNextSentencePrediction', SIZES),
  **heads('bert', 'Bert', SIZES, 'sequence', 'tokens', 'questions', 'choices', 'body'),
  'roberta': Case('RobertaConfig', 'RobertaForMaskedLM', {**SIZES, 'hidden_act': 'relu'}, first=2),
  'roberta-no-pad': Case('RobertaConfig', 'RobertaForMaskedLM', {
    **SIZES, 'pad_token_id': 0,
  }, first=1),
  **heads('roberta', 'Roberta', {**SIZES, 'type_vocab_size': 1}, 'sequence', 'choices', first=2),
  'camembert': Case('CamembertConfig', 'CamembertForMaskedLM', SIZES, first=2),
  'xlm-roberta': Case('XLMRobertaConfig', 'XLMRobertaForMaskedLM', SIZES, first=2),
  'distilbert': Case('DistilBertConfig', 'DistilBertForMaskedLM', _DISTIL),
  **heads('distilbert', 'DistilBert', _DISTIL, 'sequence', 'tokens', 'questions', 'body'),
  'electra': Case('ElectraConfig', 'ElectraForMaskedLM', {
    **SIZES, 'embedding_size': 24, 'hidden_act': 'relu',
  }),
  'electra-wide': Case('ElectraConfig', 'ElectraForMaskedLM', {**SIZES, 'embedding_size': D}),
  'electra-found': Case('ElectraConfig', 'ElectraForPreTraining', {**SIZES, 'embedding_size': 24}),
  **heads('electra', 'Electra', {**SIZES, 'embedding_size': 24}, 'sequence', 'choices'),
  'albert': Case('AlbertConfig', 'AlbertForMaskedLM', _ALBERT),
  'albert-groups': Case('AlbertConfig', 'AlbertForMaskedLM', {
    **_ALBERT, 'num_hidden_layers': 5, 'num_hidden_groups': 2, 'inner_group_num': 2,
    'embedding_size': D,
  }, whole=True),
  'albert-pretraining': Case('AlbertConfig', 'AlbertForPreTraining', _ALBERT),
  **heads('albert', 'Albert', _ALBERT, 'sequence', 'tokens', 'questions', 'body'),
  'mpnet': Case('MPNetConfig', 'MPNetForMaskedLM', SIZES, first=2),
  **heads('mpnet', 'MPNet', SIZES, 'body', first=2),
  'roformer': Case('RoFormerConfig', 'RoFormerForMaskedLM', {
    **SIZES, 'embedding_size': 24,
  }, kept='embed_positions'),
  **heads('roformer', 'RoFormer', SIZES, 'sequence', kept='embed_positions'),
  'fnet': Case('FNetConfig', 'FNetForMaskedLM', _FNET, padded=False),
  # transformers has a pooler for every class.
  **heads('fnet', 'FNet', _FNET, 'tokens', padded=False, idle='pooler'),
  'modernbert': Case('ModernBertConfig', 'ModernBertForMaskedLM', _MODERN),
  'modernbert-biased': Case('ModernBertConfig', 'ModernBertForMaskedLM', {
    **_MODERN, 'attention_bias': True, 'mlp_bias': True, 'norm_bias': True, 'classifier_bias': True,
    'decoder_bias': False, 'tie_word_embeddings': False, 'num_hidden_layers': 3,
    'global_attn_every_n_layers': 2,
  }),
  'modernbert-mean': Case('ModernBertConfig', 'ModernBertForSequenceClassification', {
    **_MODERN, 'classifier_pooling': 'mean', 'num_labels': 3,
  }, whole=True),
  **heads('modernbert', 'ModernBert', _MODERN, 'sequence', 'tokens'),
  'nomic-bert': Case('NomicBertConfig', 'NomicBertForMaskedLM', SIZES, merged=True),
  'deberta': Case('DebertaV2Config', 'DebertaV2ForMaskedLM', _DEBERTA),
  'deberta-far': Case('DebertaV2Config', 'DebertaV2ForMaskedLM', {
    **_DEBERTA, 'position_buckets': 6, 'max_relative_positions': 10, 'share_att_key': False,
    'norm_rel_ebd': 'none',
    'pos_att_type': ['p2c'], 'type_vocab_size': 2, 'position_biased_input': True,
  }),
  'deberta-near': Case('DebertaV2Config', 'DebertaV2ForMaskedLM', {
    **_DEBERTA, 'position_buckets': -1, 'max_relative_positions': 5, 'share_att_key': False,
  }),
  'deberta-plain': Case('DebertaV2Config', 'DebertaV2ForMaskedLM', SIZES),
  'deberta-conv': Case('DebertaV2Config', 'DebertaV2ForMaskedLM', {
    **_DEBERTA, 'conv_kernel_size': 5, 'conv_groups': 2, 'conv_act': 'gelu',
  }, whole=True),
  **heads('deberta', 'DebertaV2', _DEBERTA, 'sequence', 'questions'),
  'xlnet': Case('XLNetConfig', 'XLNetLMHeadModel', _XLNET),
  'xlnet-sequence': Case(
    'XLNetConfig', 'XLNetForSequenceClassification', {**_XLNET, 'num_labels': 3}, padded=False
  ),
  'xlnet-tokens': Case('XLNetConfig', 'XLNetForTokenClassification', {**_XLNET, 'num_labels': 5}),
  'xlnet-questions': Case('XLNetConfig', 'XLNetForQuestionAnsweringSimple', _XLNET),
  'xlnet-body': Case('XLNetConfig', 'XLNetModel', _XLNET),
  **heads('nomic-bert', 'NomicBert', SIZES, 'sequence', 'body', merged=True),
}  # fmt: skip
