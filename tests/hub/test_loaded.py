"""A loaded model generates with the settings of its folder, as in transformers."""

import json
import math

import jax
import numpy as np
import pytest

from tests.hub.folders import byte_level, chat_folder, with_vocab
import tfm
from tfm import hub, zoo
from tfm.cli import main
from tfm.core import errors
from tfm.hub.files import FolderFiles
from tfm.hub.generation import decoding_options, generation_settings, merge_options
from tfm.model.transformer import init


def files_of(generation=None, **config):
  contents = {'config.json': config} | (
    {} if generation is None else {'generation_config.json': generation}
  )
  return FolderFiles({name: json.dumps(fields).encode() for name, fields in contents.items()})


@pytest.mark.parametrize(
  ('generation', 'options'),
  [
    ({}, {'temperature': 0.0}),
    ({'do_sample': False, 'temperature': 0.6, 'top_p': 0.9}, {'temperature': 0.0}),
    ({'do_sample': True}, {'top_k': 50}),
    ({'do_sample': True, 'top_k': 0, 'temperature': 0.7}, {'temperature': 0.7}),
    ({'do_sample': True, 'top_k': 20, 'min_p': 0.1}, {'top_k': 20, 'min_p': 0.1}),
    ({'num_beams': 4, 'length_penalty': 2.0, 'early_stopping': True},
     {'beams': 4, 'length_penalty': 2.0, 'early_stopping': True, 'temperature': 0.0}),
    ({'length_penalty': 2.0, 'num_beams': 1}, {'beams': 1, 'temperature': 0.0}),
    ({'repetition_penalty': 1.05, 'no_repeat_ngram_size': 3},
     {'repetition_penalty': 1.05, 'no_repeat_ngram': 3, 'temperature': 0.0}),
    ({'stop_strings': ['\n'], 'max_new_tokens': 9},
     {'stop': ['\n'], 'max_new_tokens': 9, 'temperature': 0.0}),
    ({'no_repeat_ngram_size': 0, 'typical_p': 1.0, 'max_length': 20, 'pad_token_id': 0},
     {'temperature': 0.0}),
  ],
)  # fmt: skip
def test_generation_config_becomes_options(generation, options):
  assert decoding_options(files_of(generation)) == options
  # Older folders have the fields in config.json, without the other file.
  assert decoding_options(files_of(**generation)) == options
  assert decoding_options(files_of({}, **generation)) == {'temperature': 0.0}


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('typical_p', 0.9),
    ('encoder_no_repeat_ngram_size', 3),
    ('bad_words_ids', [[1, 2]]),
    ('sequence_bias', {'1': 2}),
  ],
)
def test_unsupported_settings_raise_errors(name, value):
  files = files_of({name: value})
  with pytest.raises(
    errors.UserError, match=rf"generation_config\.json: {name}=.*ignore=\('{name}',\)"
  ):
    decoding_options(files)
  assert decoding_options(files, ignore=[name]) == {'temperature': 0.0}


def test_sampled_beams_raise_an_error():
  with pytest.raises(errors.UserError, match='tfm does not sample beams'):
    decoding_options(files_of({'do_sample': True, 'num_beams': 2}))


def test_explicit_options_override_settings():
  greedy, beams = (
    {'temperature': 0.0, 'eos': 2},
    {'temperature': 0.0, 'beams': 4, 'min_new_tokens': 9},
  )
  assert merge_options(greedy, {'top_p': 0.9}) == {
    'temperature': 1.0,
    'eos': 2,
    'top_p': 0.9,
    'beams': 1,
  }
  assert merge_options(greedy, {'eos': 5}) == {'temperature': 0.0, 'eos': 5}
  assert merge_options({'temperature': 0.7, 'top_k': 50}, {'beams': 3}) == {
    'temperature': 0.0,
    'beams': 3,
  }
  assert merge_options(beams, {'temperature': 0.5})['beams'] == 1
  assert merge_options(beams, {'max_new_tokens': 4}) == beams | {
    'max_new_tokens': 4,
    'min_new_tokens': 4,
  }
  assert merge_options({}, {'beams': 2}) == {'beams': 2, 'temperature': 0.0}


def test_lengths_count_the_start_of_a_decoder():
  spec = zoo.tiny(zoo.get('t5-small'))
  files = files_of(
    {'max_length': 20, 'min_length': 5}, is_encoder_decoder=True, decoder_start_token_id=0
  )
  assert generation_settings(files, spec, None) == {
    'decoder_start': 0, 'temperature': 0.0, 'max_new_tokens': 19, 'min_new_tokens': 4
  }  # fmt: skip
  decoder = zoo.tiny(zoo.get('llama3.2-1b'))
  assert generation_settings(files_of({'max_length': 4096}), decoder, None) == {'temperature': 0.0}


def test_model_of_tfm_keeps_the_defaults_of_generate():
  assert generation_settings(FolderFiles({}), zoo.tiny(zoo.get('llama3.2-1b')), None) == {}


def test_folder_ends_and_sampling_are_used(tmp_path, capsys):
  """m.generate equals tfm.generate with the folder's options, also after conversion."""
  folder = chat_folder(tmp_path / 'a')
  m = tfm.load(folder)
  ids = m.tokenizer.prompt('the cat').tolist()
  greedy = m.generate([ids], max_new_tokens=12, temperature=0)[0]
  settings = {'eos_token_id': [greedy[4], 270], 'do_sample': False, 'suppress_tokens': [greedy[0]]}
  (folder / 'generation_config.json').write_text(json.dumps(settings))
  m = tfm.load(folder)
  assert m.settings() == {
    'eos': [greedy[4], 270],
    'logit_bias': {greedy[0]: -math.inf},
    'temperature': 0.0,
  }
  found = m.generate([ids], max_new_tokens=12)
  assert found == tfm.generate(m.spec, m.params, [ids], max_new_tokens=12, **m.settings())
  assert greedy[0] not in found[0]
  assert m.generate(['the cat'], max_new_tokens=12, eos=()) != m.generate(
    ['the cat'], max_new_tokens=1
  )
  assert main.run(['convert', f'--input={folder}', f'--output={tmp_path / "b"}']) == 0
  capsys.readouterr()
  texts = []
  for path in (folder, tmp_path / 'b'):
    assert (
      main.run(
        ['generate', f'--checkpoint={path}', '--prompt=the cat', '--max_new_tokens=12', '--json']
      )
      == 0
    )
    texts.append(json.loads(capsys.readouterr().out)['text'])
  assert texts == [m.generate(['the cat'], max_new_tokens=12)[0]] * 2


def test_apply_and_prepared_match_the_functions(tmp_path):
  m = tfm.load(chat_folder(tmp_path / 'a'))
  ids = np.array([[5, 6, 7]])
  np.testing.assert_array_equal(
    m.apply(input_ids=ids)['logits'], tfm.apply(m.spec, m.params, input_ids=ids)['logits']
  )
  rows = [[5, 6, 7]]
  assert m.prepared().generate(rows, max_new_tokens=3, temperature=0) == m.generate(
    rows, max_new_tokens=3, temperature=0
  )
  assert 'parameters' in repr(m)


def test_published_folder_is_scored_on_a_text(tmp_path, capsys):
  inner = byte_level(specials=('<|endoftext|>',), vocab=280)
  spec = with_vocab(zoo.tiny(zoo.get('llama3.2-1b')), inner.get_vocab_size())
  hub.export_hf(spec, init(spec, jax.random.key(0)), tmp_path / 'hf')
  inner.save(str(tmp_path / 'hf' / 'tokenizer.json'))
  (tmp_path / 'text.txt').write_text('the cat sat on the mat. ' * 200)
  command = ['eval', f'--checkpoint={tmp_path / "hf"}', '--split=train', '--json']
  files, cache = tmp_path / 'text.txt', tmp_path / 'cache'
  text = f'--config.data=text(files={files}, val_tail=0, length=32, cache={cache})'
  assert main.run([*command, text]) == 0
  scores = json.loads(capsys.readouterr().out)
  assert scores['val_loss_nats'] == pytest.approx(math.log(spec.vocab), abs=0.5)
  assert main.run(command) == 2
  assert 'names no data. Expected data' in capsys.readouterr().err
  assert main.run(['convert', f'--input={tmp_path / "hf"}', f'--output={tmp_path / "ours"}']) == 0
  capsys.readouterr()
  assert (
    main.run(['eval', f'--checkpoint={tmp_path / "ours"}', '--split=train', '--json', text]) == 0
  )
  assert json.loads(capsys.readouterr().out)['val_loss_nats'] == scores['val_loss_nats']


@pytest.mark.parametrize(
  ('fields', 'problem'),
  [
    (
      {'temprature': 0.3, 'do_sample': True},
      'unknown setting temprature. .* Did you mean temperature',
    ),
    ({'eos_token_id': '1'}, "eos_token_id is '1'. Expected a token id"),
    ({'eos_token_id': [1, 2.0]}, r'eos_token_id is \[1, 2.0\]. Expected a token id'),
  ],
  ids=lambda value: f'fields={next(iter(value))}' if isinstance(value, dict) else 'problem=named',
)
def test_misspelt_settings_raise_errors(fields, problem):
  with pytest.raises(errors.UserError, match=rf'generation_config\.json: {problem}'):
    generation_settings(files_of(fields), zoo.tiny(zoo.get('llama3.2-1b')), None)


@pytest.mark.parametrize(
  'dtype', ['int8', 'bool', 'bf16', 'float33', 'float8_e4m3fn'], ids=lambda d: f'dtype={d}'
)
def test_invalid_dtypes_raise_errors(dtype, tmp_path):
  folder = chat_folder(tmp_path / 'a')
  with pytest.raises(errors.UserError, match=f'dtype is .{dtype}.. Expected float32, bfloat16'):
    tfm.load(folder, dtype=dtype)


MODELS = {
  'llama': ('LlamaConfig', 'LlamaForCausalLM', {
    'num_hidden_layers': 2, 'num_attention_heads': 4, 'hidden_size': 32, 'intermediate_size': 48,
    'vocab_size': 61,
  }),
  't5': ('T5Config', 'T5ForConditionalGeneration', {
    'num_layers': 2, 'num_heads': 4, 'd_model': 32, 'd_ff': 48, 'd_kv': 8, 'vocab_size': 61,
    'decoder_start_token_id': 0,
  }),
  'bart': ('BartConfig', 'BartForConditionalGeneration', {
    'encoder_layers': 2, 'decoder_layers': 2, 'encoder_attention_heads': 4,
    'decoder_attention_heads': 4, 'd_model': 32, 'encoder_ffn_dim': 48, 'decoder_ffn_dim': 48,
    'vocab_size': 61, 'max_position_embeddings': 64, 'forced_eos_token_id': 2, 'bos_token_id': 0,
    'eos_token_id': 2, 'pad_token_id': 1,
    'decoder_start_token_id': 2}),
}  # fmt: skip
SETTINGS = [
  {},
  {'eos_token_id': [3, 7, 11, 20, 33], 'min_new_tokens': 2},
  {'num_beams': 3, 'length_penalty': 0.5, 'early_stopping': True, 'eos_token_id': [5, 9]},
  {'repetition_penalty': 1.5, 'no_repeat_ngram_size': 2, 'suppress_tokens': [1, 4, 9]},
  {'begin_suppress_tokens': [*range(30)], 'bad_words_ids': [[40], [41]]},
  {'max_length': 9, 'min_length': 4, 'eos_token_id': [*range(0, 60, 3)]},
]


@pytest.mark.oracle
@pytest.mark.parametrize('number', range(len(SETTINGS)), ids=lambda number: f'number={number}')
@pytest.mark.parametrize('name', MODELS, ids=lambda name: f'name={name}')
def test_generation_matches_transformers(name, number, tmp_path):
  import torch
  import transformers

  config, cls, fields = MODELS[name]
  settings = SETTINGS[number]
  torch.manual_seed(number)
  model = getattr(transformers, cls)(
    getattr(transformers, config)(**fields, attn_implementation='eager')
  ).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.mul_(3)
  for field, value in settings.items():
    setattr(model.generation_config, field, value)
  model.save_pretrained(tmp_path / 'model')
  rows = [[5, 9, 12, 17], [6, 30, 22, 8]]
  length = {} if 'max_length' in settings else {'max_new_tokens': 8}
  theirs = model.generate(torch.tensor(rows), **length).tolist()
  ends = model.generation_config.eos_token_id
  ends = [ends] if isinstance(ends, int) else ends or []
  start = len(rows[0]) if name == 'llama' else 1
  for row, ours in zip(theirs, tfm.load(tmp_path / 'model').generate(rows, **length), strict=True):
    new = row[start:]
    end = next((i + 1 for i, token in enumerate(new) if token in ends), len(new))
    assert ours == new[:end]
