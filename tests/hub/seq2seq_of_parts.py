"""Toy configs of encoder-decoders with special attention in transformers."""

from tests.hub.published import Case
from tests.hub.seq2seq import BART, BIAS

#: Documents of up to 9 tokens have full attention, and the test uses 12.
_SPARSE = {**BART, 'attention_type': 'block_sparse', 'block_size': 1, 'num_random_blocks': 2}
_FULL = {**BART, 'attention_type': 'original_full', 'use_bias': True, 'activation_function': 'relu'}

_BLOCKS = {
  **BART,
  'num_global_tokens': 3,
  'block_size': 4,
  'encoder_layers': 3,
  'scale_embedding': True,
}

CASES = {
  'pegasus-x': Case(
    'PegasusXConfig', 'PegasusXForConditionalGeneration', _BLOCKS, left=False, whole=True
  ),
  'pegasus-x-plain': Case('PegasusXConfig', 'PegasusXForConditionalGeneration', {
    **_BLOCKS, 'stagger_local_blocks': False, 'block_size': 3, 'activation_function': 'relu',
    'scale_embedding': False,
  }, left=False),
  'pegasus-x-body': Case('PegasusXConfig', 'PegasusXModel', _BLOCKS, left=False),
  'bigbird-pegasus': Case(
    'BigBirdPegasusConfig', 'BigBirdPegasusForConditionalGeneration', _SPARSE,
    buffers=BIAS['buffers'], padded=False,
    whole=True,
  ),
  'bigbird-pegasus-short': Case(
    'BigBirdPegasusConfig', 'BigBirdPegasusForConditionalGeneration', {**_SPARSE, 'block_size': 2},
    **BIAS
  ),
  'bigbird-pegasus-full': Case(
    'BigBirdPegasusConfig', 'BigBirdPegasusForConditionalGeneration', _FULL, **BIAS, whole=True
  ),
  'bigbird-pegasus-sequence': Case(
    'BigBirdPegasusConfig', 'BigBirdPegasusForSequenceClassification', {**_FULL, 'num_labels': 3},
    left=False
  ),
  'bigbird-pegasus-questions': Case(
    'BigBirdPegasusConfig', 'BigBirdPegasusForQuestionAnswering', _FULL, left=False
  ),
  'bigbird-pegasus-body': Case('BigBirdPegasusConfig', 'BigBirdPegasusModel', _FULL, left=False),
}  # fmt: skip
