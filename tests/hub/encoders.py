"""Encoders of transformers at toy size, with their heads."""

from hub.published import SIZES, Case, D, F, L, N, V

_DISTIL = {'vocab_size': V, 'dim': D, 'n_layers': L, 'n_heads': N, 'hidden_dim': F, 'max_position_embeddings': 64}


def _heads(name: str, stem: str, fields: dict, *, config: str | None = None, **case) -> dict[str, Case]:
  """A family's classifiers and its body."""
  config = config or f'{stem}Config'
  tops = {
    'sequence': ('ForSequenceClassification', {'num_labels': 3}),
    'tokens': ('ForTokenClassification', {'num_labels': 5}),
    'questions': ('ForQuestionAnswering', {}),
    'choices': ('ForMultipleChoice', {}),
    'body': ('Model', {}),
  }
  return {f'{name}-{n}': Case(config, stem + end, {**fields, **more}, **case) for n, (end, more) in tops.items()}


CASES = {
  'bert': Case('BertConfig', 'BertForMaskedLM', SIZES),
  'bert-pretraining': Case('BertConfig', 'BertForPreTraining', SIZES),
  'bert-next': Case('BertConfig', 'BertForNextSentencePrediction', SIZES),
  **_heads('bert', 'Bert', SIZES),
  'roberta': Case('RobertaConfig', 'RobertaForMaskedLM', {**SIZES, 'hidden_act': 'relu'}, first=2),
  'roberta-no-pad': Case('RobertaConfig', 'RobertaForMaskedLM', {**SIZES, 'pad_token_id': 0}, first=1),
  **_heads('roberta', 'Roberta', {**SIZES, 'type_vocab_size': 1}, first=2),
  'camembert': Case('CamembertConfig', 'CamembertForMaskedLM', SIZES, first=2),
  'xlm-roberta': Case('XLMRobertaConfig', 'XLMRobertaForMaskedLM', SIZES, first=2),
  'xlm-roberta-sequence': Case('XLMRobertaConfig', 'XLMRobertaForSequenceClassification', SIZES, first=2),
  'distilbert': Case('DistilBertConfig', 'DistilBertForMaskedLM', _DISTIL),
  **_heads('distilbert', 'DistilBert', _DISTIL),
}
