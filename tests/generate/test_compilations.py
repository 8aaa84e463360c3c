"""What one call has compiled serves the next, of other lengths and with other values, in every way
of decoding.
"""

import jax
import pytest

from tests.generate.models import MODELS, weights
from tfm.generate import LookupDraft, ModelDraft, generate
from tfm.parts.cache import PagedCache
from tfm.parts.context import Run

SPEC = MODELS['alibi_mqa']
SMALL = ModelDraft(SPEC, weights(SPEC))


class Digits:
  """The last digit of each id."""

  def decode(self, ids):
    return ''.join(str(i % 10) for i in ids)


WAYS = {
  'greedy': (
    {'temperature': 0},
    {'temperature': 0, 'eos': 7, 'min_new_tokens': 3, 'logit_bias': {5: 2.0}},
  ),
  'drawn': (
    {'temperature': 0.5, 'top_k': 9, 'top_p': 0.9, 'min_p': 0.1},
    {
      'temperature': 1.5,
      'top_k': 2,
      'top_p': 0.1,
      'min_p': 0.01,
      'key': jax.random.key(5),
      'allowed': range(30),
    },
  ),
  'penalised': (
    {'temperature': 0, 'repetition_penalty': 1.1, 'frequency_penalty': 0.5, 'no_repeat_ngram': 2},
    {'temperature': 0, 'repetition_penalty': 1.6, 'presence_penalty': 0.1, 'no_repeat_ngram': 4},
  ),
  'small draft': ({'draft': SMALL, 'top_k': 9}, {'draft': SMALL, 'top_k': 3, 'temperature': 0.3}),
  'lookup': (
    {'draft': LookupDraft(), 'temperature': 0},
    {'draft': LookupDraft(), 'temperature': 0, 'eos': (3, 4)},
  ),
  'beams': (
    {'beams': 3, 'temperature': 0},
    {
      'beams': 3,
      'temperature': 0,
      'length_penalty': -1.0,
      'early_stopping': 'never',
      'eos': (3, 4),
    },
  ),
  'shared blocks': (
    {'beams': 3, 'temperature': 0, 'run': Run(cache=PagedCache(4))},
    {'beams': 3, 'temperature': 0, 'run': Run(cache=PagedCache(4)), 'eos': (3, 4)},
  ),
  'beams to a text': (
    {'beams': 3, 'temperature': 0, 'tokenizer': Digits(), 'stop': ['12', '3']},
    {
      'beams': 3,
      'temperature': 0,
      'tokenizer': Digits(),
      'stop': ['4', '2'],
      'length_penalty': -1.0,
    },
  ),
}


@pytest.fixture
def compiled():
  """The programs that were lowered, by the names of their functions: one line for each that was not
  cached.
  """
  lowered = []

  def heard(event, seconds, **about):
    if event == '/jax/core/compile/jaxpr_to_mlir_module_duration':
      lowered.append(about.get('fun_name', 'a program'))

  jax.monitoring.register_event_duration_secs_listener(heard)
  yield lowered
  jax.monitoring.unregister_event_duration_listener(heard)


@pytest.mark.parametrize('way', WAYS)
@pytest.mark.large(when=lambda way: way in ('drawn', 'penalised', 'lookup', 'beams', 'small draft'))
def test_nothing_is_compiled_again_while_lengths_stay_in_their_buckets(compiled, way):
  first, other = WAYS[way]
  say = lambda prompts, new, options: generate(
    SPEC, weights(SPEC), prompts, max_new_tokens=new, **({'run': Run()} | options)
  )
  say([[1] * 3, [2] * 5], 9, first)
  before = len(compiled)
  for length, new, options in ((2, 9, first), (7, 11, other), (16, 16, other)):
    say([[1] * length, [2]], new, options)
  assert compiled[before:] == []
  say([[1] * 17, [2]], 16, first)
  assert len(compiled) > before
