"""Encoders of transformers at toy size, with their heads."""

from hub.published import SIZES, Case

CASES = {
  'bert': Case('BertConfig', 'BertForMaskedLM', SIZES),
  'bert-pretraining': Case('BertConfig', 'BertForPreTraining', SIZES),
  'bert-sequence': Case('BertConfig', 'BertForSequenceClassification', {**SIZES, 'num_labels': 3}),
  'bert-tokens': Case('BertConfig', 'BertForTokenClassification', {**SIZES, 'num_labels': 5}),
  'bert-questions': Case('BertConfig', 'BertForQuestionAnswering', SIZES),
  'bert-next': Case('BertConfig', 'BertForNextSentencePrediction', SIZES),
  'bert-body': Case('BertConfig', 'BertModel', SIZES),
}
