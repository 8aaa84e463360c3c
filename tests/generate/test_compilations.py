"""Calls with other lengths and option values reuse compiled functions."""

import jax
import pytest

from tests.generate.models import MODELS, weights
from tfm.generate import LookupDraft, ModelDraft, generate
from tfm.parts.cache import PagedCache
from tfm.parts.context import Run

SPEC = MODELS['alibi_mqa']
SMALL = ModelDraft(SPEC, weights(SPEC))


class Digits:
  """A vocabulary of the last digit of each id."""

  def decode(self, ids):
    return ''.join(str(i % 10) for i in ids)


MODES = {
  'greedy': (
    {'temperature': 0},
    {'temperature': 0, 'eos': 7, 'min_new_tokens': 3, 'logit_bias': {5: 2.0}},
  ),
  'sampled': (
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
  'beams with stops': (
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
  """Yield the list of functions that were compiled and not cached."""
  lowered = []

  def listen(event, seconds, **metadata):
    if event == '/jax/core/compile/jaxpr_to_mlir_module_duration':
      lowered.append(metadata.get('fun_name', 'a program'))

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield lowered
  jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.large(
  when=lambda mode: mode in ('sampled', 'penalised', 'lookup', 'beams', 'small draft')
)
def test_lengths_in_the_same_buckets_compile_nothing(compiled, mode):
  first, other = MODES[mode]
  generated = lambda prompts, new, options: generate(
    SPEC, weights(SPEC), prompts, max_new_tokens=new, **({'run': Run()} | options)
  )
  generated([[1] * 3, [2] * 5], 9, first)
  before = len(compiled)
  for length, new, options in ((2, 9, first), (7, 11, other), (16, 16, other)):
    generated([[1] * length, [2]], new, options)
  assert compiled[before:] == []
  generated([[1] * 17, [2]], 16, first)
  assert len(compiled) > before
