"""Wrong arguments of apply and generate raise one UserError that names them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.doors import attempt, rng, wrong_values
from tests.generate.models import MODELS
import tfm
from tfm.core.errors import UserError
from tfm.generate import generate, memory_limit, penalties, prepare, stream
from tfm.generate.options import Options, parse

SPEC = MODELS['rope_gqa']
IDS = np.ones((1, 3), np.int32)


@pytest.fixture(scope='module')
def params():
  return tfm.init(SPEC, jax.random.key(0))


@pytest.mark.parametrize(
  ('inputs', 'message'),
  [
    ({'input_ids': 'text'}, 'apply: input_ids is of type str. Expected integers.'),
    ({'input_ids': {}}, 'apply: input_ids is of type dict. Expected integers.'),
    ({'input_ids': jnp.ones((1, 2))}, 'apply: input_ids has dtype float32. Expected integers.'),
    (
      {'input_ids': np.zeros((0, 3), int)},
      r'apply: input_ids has shape \(0, 3\), which is empty. Expected at least 1 on each axis.',
    ),
    ({'input_ids': [[]]}, 'apply: input_ids has dtype float64. Expected integers.'),
    ({'input_ids': np.zeros((1, 0), int)}, r'has shape \(1, 0\), which is empty'),
    (
      {'input_ids': IDS, 'attention_mask': np.full((1, 3), -np.inf)},
      'apply: attention_mask has floats other than 0 and 1. Expected 1 for tokens',
    ),
    (
      {'input_ids': IDS, 'attention_mask': [['a', 'b', 'c']]},
      'apply: attention_mask has dtype <U1. Expected numbers.',
    ),
    (
      {'input_ids': IDS, 'segment_ids': np.ones((1, 3))},
      'apply: segment_ids has dtype float64. Expected integers.',
    ),
    ({'input_ids': IDS, 'run': 'x'}, 'apply: run is of type str. Expected a tfm.Run.'),
    ({'input_ids': IDS, 'key': 3}, r'apply: key is not a random key \(3\). Expected jax.random.'),
    ({'input_ids': IDS, 'cache': {}}, 'apply: cache is of type dict. Expected the result of init_'),
    ({'input_ids': IDS, 'logits_to_keep': -1}, 'logits_to_keep=-1 is not a number of tokens. Exp'),
    ({'input_ids': IDS, 'mtp': 'x'}, "apply: mtp='x' is not a switch. Expected True or False."),
  ],
)
def test_apply_names_the_wrong_argument(params, inputs, message):
  with pytest.raises(UserError, match=message):
    tfm.apply(SPEC, params, **inputs)


def test_outputs_of_another_tower_are_checked():
  spec = MODELS['encdec']
  weights = tfm.init(spec, jax.random.key(0))
  with pytest.raises(UserError, match=r'encoder_outputs has shape .* Expected floats \[B, S, D='):
    tfm.apply(spec, weights, decoder_input_ids=IDS, encoder_outputs=np.ones((1, 2)))


def test_params_of_another_model_name_the_first_path(params):
  with pytest.raises(UserError, match=r'apply: params is of type NoneType. Expected the result'):
    tfm.apply(SPEC, None, input_ids=IDS)
  with pytest.raises(UserError, match=r'apply: spec is of type str. Expected a tfm.Model'):
    tfm.apply('gpt2', params, input_ids=IDS)
  with pytest.raises(UserError, match=r'apply: params has no \S+ \[.*Expected the result of init'):
    tfm.apply(SPEC, {}, input_ids=IDS)
  first = lambda leaf: leaf[:1]
  with pytest.raises(UserError, match=r'params: \S+ has shape \[1, .*, the model has \['):
    tfm.apply(SPEC, jax.tree.map(first, params), input_ids=IDS)
  with pytest.raises(UserError, match='is of type str, not an array'):
    tfm.apply(SPEC, jax.tree.map(lambda leaf: 'a', params), input_ids=IDS)
  with pytest.raises(UserError, match='has dtype int32, not a floating-point one'):
    tfm.apply(SPEC, jax.tree.map(lambda leaf: leaf.astype(int), params), input_ids=IDS)
  more = params | {'segment_9': params['segment_0']}
  with pytest.raises(UserError, match=r'params has segment_9/.*, which the model does not have'):
    tfm.apply(SPEC, more, input_ids=IDS)


def test_prepared_params_of_another_model_raise(params):
  ready = prepare(SPEC, params)
  assert len(ready['segment_0']) > 1
  with pytest.raises(UserError, match=r'generate: params: segment_0 has 1 layers, the model has'):
    generate(SPEC, ready | {'segment_0': ready['segment_0'][:1]}, [[1]])
  with pytest.raises(UserError, match='generate: params has no embed'):
    generate(SPEC, {name: tree for name, tree in ready.items() if name != 'embed'}, [[1]])
  with pytest.raises(UserError, match='generate: params has segment_9, which the model does not'):
    generate(SPEC, ready | {'segment_9': ready['segment_0']}, [[1]])


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'max_new_tokens': '9'}, "max_new_tokens='9' is not an integer. Expected an integer up to"),
    ({'max_new_tokens': 2**31}, 'is not an integer. Expected an integer up to 2147483647.'),
    ({'top_k': 1.5}, 'top_k=1.5 is not an integer. Expected an integer up to 2147483647, or None.'),
    ({'temperature': 'hot'}, "temperature='hot' is not a number. Expected a number."),
    ({'temperature': 10**400}, 'is not a number. Expected a number.'),
    ({'top_p': [0.5]}, r'top_p=\[0.5\] is not a number. Expected a number, or None.'),
    ({'eos': 'x'}, "eos='x' is not a token id or several. Expected integers, or None."),
    ({'forbidden_first': None}, 'is not a token id or several. Expected integers.'),
    ({'logit_bias': [1]}, r'logit_bias=\[1\] is not a mapping of token ids to numbers. Expected a'),
    ({'stop': b'x'}, "stop=b'x' is not text. Expected one or more strings; use eos"),
    ({'early_stopping': 3}, "early_stopping=3 is not known. Expected True, False or 'never'."),
    ({'prompt_cache': 3}, 'prompt_cache=3 is not a path. Expected a path, or None.'),
    ({'key': 3}, r'generate: key is not a random key \(3\)'),
    ({'run': 3}, 'generate: run is of type int. Expected a tfm.Run.'),
    ({'draft': 3}, 'generate: draft is of type int. Expected a draft such as LookupDraft'),
    ({'tokenizer': 3}, 'generate: tokenizer is of type int. Expected m.tokenizer, or None.'),
  ],
)
def test_generate_names_the_option_of_a_wrong_type(params, options, message):
  with pytest.raises(UserError, match=message):
    generate(SPEC, params, [[1]], **options)


@pytest.mark.parametrize(
  ('prompts', 'message'),
  [
    (None, 'generate: prompts is of type NoneType. Expected a list of texts or of lists of token'),
    (['a', [1]], 'generate: prompts has both texts and token ids. Expected only texts, or only'),
    ([None], 'generate: prompt 0 is of type NoneType .* Expected a text, or a list of token ids.'),
    ([[1.5]], 'generate: prompt 0 has 1.5, which is no token id. Expected integers.'),
    ([[True]], 'generate: prompt 0 has True, which is no token id. Expected integers.'),
    (np.zeros((2, 3)), 'generate: prompt 0 has 0.0, which is no token id.'),
  ],
)
def test_prompts_of_a_wrong_type_raise(params, prompts, message):
  with pytest.raises(UserError, match=message):
    generate(SPEC, params, prompts)


def test_array_of_ids_is_a_batch_of_prompts(params):
  options = {'max_new_tokens': 2, 'temperature': 0}
  found = generate(SPEC, params, np.array([[1, 2], [3, 4]]), **options)
  assert found == generate(SPEC, params, [[1, 2], [3, 4]], **options)


def test_stream_needs_an_integer_chunk(params):
  with pytest.raises(UserError, match=r'chunk=1.5 is not an integer. Expected 1 or more.'):
    stream(SPEC, params, [[1]], chunk=1.5)


def test_cache_larger_than_memory_states_the_bound(params, monkeypatch):
  monkeypatch.setattr(memory_limit, '_memory', lambda: 1 << 30)
  message = r'max_new_tokens=1000000000 for 2 sequences needs a cache of .* Expected at most (\d+) '
  with pytest.raises(UserError, match=message) as error:
    generate(SPEC, params, [[1], [2]], max_new_tokens=10**9)
  fitting = int(str(error.value).split('at most ')[1].split()[0])
  assert 10**4 < fitting < 10**8


def test_memory_of_this_machine_is_positive():
  assert memory_limit._memory() > 1 << 28


def test_ngram_longer_than_the_text_does_not_hang():
  tokens_BS = jnp.array([[1, 2, 1, 2, 1]])
  args = jnp.zeros((1, 4)), tokens_BS, jnp.ones((1, 5), bool), jnp.array([5])
  huge = penalties.apply_penalties(*args, {'ngram': jnp.int32(10**9)})
  np.testing.assert_array_equal(huge, jnp.zeros((1, 4)))
  two = penalties.apply_penalties(*args, {'ngram': jnp.int32(2)})
  assert jnp.isneginf(two[0]).tolist() == [False, False, True, False]


def test_wrong_inputs_of_apply_raise_only_user_errors(params):
  for value in wrong_values():
    assert attempt(tfm.apply, SPEC, params, input_ids=value), value
    assert attempt(tfm.apply, SPEC, value, input_ids=IDS), value
    assert attempt(tfm.apply, value, params, input_ids=IDS), value


def test_wrong_options_raise_only_user_errors():
  numbers = rng(0)
  names = [field.name for field in dataclasses.fields(Options)]
  raised = 0
  for _ in range(1000):
    chosen = {name: numbers.choice(wrong_values()) for name in numbers.sample(names, 2)}
    raised += attempt(parse, chosen)
  assert raised > 600


def test_wrong_prompts_raise_only_user_errors(params):
  for value in wrong_values():
    valid = isinstance(value, list) and value[:1] == [[1]]
    assert valid or attempt(generate, SPEC, params, value), value
    assert isinstance(value, range) or attempt(generate, SPEC, params, [value]), value


@pytest.mark.large
def test_any_two_wrong_arguments_of_apply_raise_user_errors(params):
  numbers = rng(1)
  names = ('attention_mask', 'segment_ids', 'position_ids', 'run', 'key', 'cache', 'tower')
  with jax.disable_jit():
    for _ in range(500):
      chosen = {name: numbers.choice(wrong_values()) for name in numbers.sample(names, 2)}
      attempt(tfm.apply, SPEC, params, input_ids=IDS, **chosen)
