"""BART's kin of transformers at toy size."""

from tests.hub.published import Case
from tests.hub.seq2seq import BART, BIAS

CASES = {
  'blenderbot-small': Case(
    'BlenderbotSmallConfig', 'BlenderbotSmallForConditionalGeneration', BART, **BIAS, whole=True
  ),
  'plbart': Case('PLBartConfig', 'PLBartForConditionalGeneration', BART, **BIAS),
  'plbart-sequence': Case('PLBartConfig', 'PLBartForSequenceClassification', {**BART, 'num_labels': 3}, left=False),
  'mvp': Case('MvpConfig', 'MvpForConditionalGeneration', BART, **BIAS),
  'mvp-sequence': Case('MvpConfig', 'MvpForSequenceClassification', {**BART, 'num_labels': 3}, left=False),
  'mvp-questions': Case('MvpConfig', 'MvpForQuestionAnswering', BART, left=False),
}
