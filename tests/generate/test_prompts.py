"""Prompts that cannot be continued raise one error that names them."""

import re

import jax
import pytest

from tests.generate.models import MODELS, decoder
from tfm.core.errors import UserError
from tfm.generate import generate, stream
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention

PLAIN, TABLE, BOTH = MODELS['rope_gqa'], MODELS['learned'], MODELS['encdec']


@pytest.mark.parametrize(
  ('prompts', 'options', 'message'),
  [
    ([[1], []], {}, 'generate: prompt 1 is empty. Expected at least one token.'),
    ([], {}, 'generate: prompts is empty. Expected at least one.'),
    ([1, 2], {}, 'generate: prompts is a single prompt ([1, 2]). Expected a list of prompts.'),
    ('def ', {}, "generate: prompts is a single prompt ('def '). Expected a list of prompts."),
    (
      ['def '],
      {},
      "generate: prompt 0 is text ('def '), but there is no tokenizer. Expected tokenizer=, or "
      'token ids.',
    ),
    (
      [[1, 61]],
      {},
      'generate: prompt 0 has token 61, outside the vocabulary of 61. Expected 0 to 60.',
    ),
    (
      [[1, -1]],
      {},
      'generate: prompt 0 has token -1, outside the vocabulary of 61. Expected 0 to 60.',
    ),
    (
      [[1]],
      {'eos': (3, 99)},
      'generate: eos has token 99, outside the vocabulary of 61. Expected 0 to 60.',
    ),
    (
      [[1]],
      {'top_p': 0},
      'top_p=0 is not a probability. Expected more than 0 and at most 1, or None.',
    ),
    ([[1]], {'top_p': 1.5}, 'top_p=1.5 is not a probability.'),
    (
      [[1]],
      {'min_p': 2},
      'min_p=2 is not a share of the top probability. Expected 0 to 1, or None.',
    ),
    ([[1]], {'top_k': 0}, 'top_k=0 keeps no token. Expected at least 1, or None for all of them.'),
    (
      [[1]],
      {'temperature': -1},
      'generate: temperature=-1 is out of range. Expected 0 (greedy) or more',
    ),
    ([[1]], {'temperature': float('nan')}, 'temperature=nan is out of range.'),
    ([[1]], {'temperature': -1, 'top_k': 0}, 'usually 0.6 to 1.2. top_k=0 keeps no token.'),
    ([[1]], {'max_new_tokens': 0}, 'max_new_tokens=0 is too small. Expected at least 1.'),
    (
      [[1]],
      {'max_new_tokens': 4, 'min_new_tokens': 5},
      'min_new_tokens=5 is out of range. Expected 0 to max_new_tokens=4.',
    ),
    (
      [[1]],
      {'temprature': 1},
      "generate: unknown option 'temprature'. Did you mean 'temperature'?",
    ),
    (
      [[1]],
      {'decoder_start': 0},
      'generate: decoder_start=0 is given, but the model has no encoder. Expected None.',
    ),
    ([[1]], {'decoder_start': ()}, 'decoder_start=() is empty. Expected at least one token id.'),
    (
      [[1]],
      {'key': jax.random.split(jax.random.key(0), 2)},
      'generate: key has shape (2,) for 1 prompts. Expected one key, or one per prompt.',
    ),
  ],
)
def test_invalid_prompts_name_the_expected_value(prompts, options, message):
  with pytest.raises(UserError, match=re.escape(message)):
    generate(PLAIN, {}, prompts, **options)


def test_too_many_tokens_are_an_error_with_numbers():
  message = (
    'generate: prompt 1 has 40 tokens and max_new_tokens=9, in total 49, but the position table '
    'has 48 entries. '
    'Expected max_new_tokens of at most 8, or a shorter prompt.'
  )
  with pytest.raises(UserError, match=re.escape(message)):
    generate(TABLE, {}, [[1], [1] * 40], max_new_tokens=9)
  with pytest.raises(
    UserError, match=r'decoder_start has 1 tokens and max_new_tokens=48, in total 49'
  ):
    generate(BOTH, {}, [[1]], max_new_tokens=48, decoder_start=0)
  with pytest.raises(
    UserError, match=r"prompt 0 has 49 tokens, but the encoder's position table has 48 entries"
  ):
    generate(BOTH, {}, [[1] * 49], max_new_tokens=4, decoder_start=0)


def test_encoder_decoder_requires_decoder_start():
  with pytest.raises(
    UserError, match=r'generate: decoder_start is missing, but the model is an encoder-decoder'
  ):
    generate(BOTH, {}, [[1]])
  with pytest.raises(UserError, match=r'decoder_start has token 61, outside the vocabulary of 61'):
    generate(BOTH, {}, [[1]], decoder_start=(0, 61))


def test_model_that_attends_to_later_tokens_is_an_error():
  with pytest.raises(
    UserError, match=r'some layers attend to later tokens, which do not exist yet'
  ):
    generate(decoder(Attention(4, mask=Mask())), {}, [[1]])


def test_stream_checks_its_arguments_immediately():
  with pytest.raises(UserError, match=r'generate: chunk=0 is too small. Expected at least 1 step'):
    stream(PLAIN, {}, [[1]], chunk=0)
  with pytest.raises(UserError, match=r'prompt 0 is empty'):
    stream(PLAIN, {}, [[]])
