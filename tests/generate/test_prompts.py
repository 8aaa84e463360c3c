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
    ([[1], []], {}, 'generate: prompt 1 is empty. Expected at least one token to go on from.'),
    ([], {}, 'generate: prompts is empty. Expected at least one.'),
    ([1, 2], {}, 'generate: prompts is a single prompt, [1, 2]. Expected a list of them.'),
    ('def ', {}, "generate: prompts is a single prompt, 'def '. Expected a list of them."),
    (
      ['def '],
      {},
      "generate: prompt 0 is text, 'def ', but there is no tokenizer. Expected tokenizer=, or "
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
      'top_p=0 is not a share of the probability. Expected more than 0 and at most 1, or None.',
    ),
    ([[1]], {'top_p': 1.5}, 'top_p=1.5 is not a share of the probability.'),
    (
      [[1]],
      {'min_p': 2},
      'min_p=2 is not a share of the top probability. Expected 0 to 1, or None.',
    ),
    ([[1]], {'top_k': 0}, 'top_k=0 keeps no token. Expected at least 1, or None for all of them.'),
    (
      [[1]],
      {'temperature': -1},
      'generate: temperature=-1 is not one. Expected 0 (the likeliest token) or more',
    ),
    ([[1]], {'temperature': float('nan')}, 'temperature=nan is not one.'),
    ([[1]], {'temperature': -1, 'top_k': 0}, 'usually 0.6 to 1.2. top_k=0 keeps no token.'),
    ([[1]], {'max_new_tokens': 0}, 'max_new_tokens=0 asks for nothing. Expected at least 1.'),
    (
      [[1]],
      {'max_new_tokens': 4, 'min_new_tokens': 5},
      'min_new_tokens=5 is not between 0 and max_new_tokens=4.',
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
    ([[1]], {'decoder_start': ()}, 'decoder_start=() gives the decoder nothing to begin with.'),
    (
      [[1]],
      {'key': jax.random.split(jax.random.key(0), 2)},
      'generate: key has shape (2,) for 1 prompts. Expected one key, or one a prompt.',
    ),
  ],
)
def test_mistakes_name_the_expected_value(prompts, options, message):
  with pytest.raises(UserError, match=re.escape(message)):
    generate(PLAIN, {}, prompts, **options)


def test_more_tokens_than_positions_are_refused_with_the_numbers():
  message = (
    'generate: prompt 1 has 40 tokens, and 9 new ones make 49, but the position table has 48 rows. '
    'Expected max_new_tokens of at most 8, or a shorter prompt.'
  )
  with pytest.raises(UserError, match=re.escape(message)):
    generate(TABLE, {}, [[1], [1] * 40], max_new_tokens=9)
  with pytest.raises(UserError, match=r'decoder_start has 1 tokens, and 48 new ones make 49'):
    generate(BOTH, {}, [[1]], max_new_tokens=48, decoder_start=0)
  with pytest.raises(
    UserError, match=r"prompt 0 has 49 tokens, but the encoder's position table has 48 rows"
  ):
    generate(BOTH, {}, [[1] * 49], max_new_tokens=4, decoder_start=0)


def test_an_encoder_decoder_needs_to_be_told_how_its_decoder_begins():
  with pytest.raises(
    UserError, match=r'generate: decoder_start is missing: the model reads prompts in its encoder'
  ):
    generate(BOTH, {}, [[1]])
  with pytest.raises(UserError, match=r'decoder_start has token 61, outside the vocabulary of 61'):
    generate(BOTH, {}, [[1]], decoder_start=(0, 61))


def test_a_model_that_looks_ahead_is_refused():
  with pytest.raises(
    UserError, match=r'layers whose tokens see later ones, which are not there yet'
  ):
    generate(decoder(Attention(4, mask=Mask())), {}, [[1]])


def test_a_stream_refuses_before_its_first_token_is_asked_for():
  with pytest.raises(
    UserError, match=r'generate: chunk=0 is no number of steps. Expected at least 1'
  ):
    stream(PLAIN, {}, [[1]], chunk=0)
  with pytest.raises(UserError, match=r'prompt 0 is empty'):
    stream(PLAIN, {}, [[]])
