"""Configs of encoders with a causal mask."""

import pytest

from tests.hub.published import SIZES
from tfm.core import errors
from tfm.zoo import weights


def test_masked_lm_with_is_decoder_raises_an_error():
  values = {**SIZES, 'model_type': 'bert', 'architectures': ['BertForMaskedLM'], 'is_decoder': True}
  with pytest.raises(
    errors.UserError,
    match=r'is_decoder is true\. Expected is_decoder=false, or a decoder class',
  ):
    weights.published(values)


def test_cross_attention_of_a_decoder_raises_an_error():
  values = {**SIZES, 'model_type': 'bert', 'architectures': ['BertLMHeadModel'], 'is_decoder': True}
  with pytest.raises(errors.UserError, match='add_cross_attention is True'):
    weights.published({**values, 'add_cross_attention': True})


def test_window_of_no_tokens_raises_an_error():
  values = {**SIZES, 'model_type': 'modernbert-decoder', 'local_attention': None}
  with pytest.raises(errors.UserError, match=r'sliding_window is 0 \(half of local_attention\)'):
    weights.published(values)
