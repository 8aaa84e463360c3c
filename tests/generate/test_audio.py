"""Transcription: audio inputs of an encoder, and the start tokens of a speech decoder."""

import dataclasses
import json
import math
import wave

import jax
import numpy as np
import pytest
import tokenizers

import tfm
from tfm import hub, zoo
from tfm.cli import main
from tfm.core import errors
import tfm.data.processors
from tfm.data.processors import WhisperFeatures
import tfm.data.recordings
from tfm.data.tokenizer.file import FileVocabulary
from tfm.generate import ModelDraft, detect_language, generate
from tfm.model.transformer import apply, init

NEW = 12
#: Token ids of the small model: end, start, languages, tasks, and no timestamps (the last id).
END, START, ENGLISH, GERMAN, TRANSLATE, TRANSCRIBE, SILENT = 60, 61, 62, 63, 64, 65, 79
SETTINGS = {
  'is_multilingual': True, 'lang_to_id': {'<|en|>': ENGLISH, '<|de|>': GERMAN},
  'task_to_id': {'translate': TRANSLATE, 'transcribe': TRANSCRIBE},
  'no_timestamps_token_id': SILENT,
  'suppress_tokens': [3, 7, START, TRANSLATE, TRANSCRIBE, SILENT],
  'begin_suppress_tokens': [20, END],
}  # fmt: skip
X = np.random.default_rng(0).standard_normal((3, 10, 24)).astype(np.float32)


@pytest.fixture(scope='module')
def theirs(tmp_path_factory):
  """Return a random Whisper of transformers, and the folder that it was saved to."""
  import torch
  import transformers

  torch.manual_seed(0)
  sizes = {
    f'{s}_{n}': v
    for s in ('encoder', 'decoder')
    for n, v in (('layers', 2), ('attention_heads', 4), ('ffn_dim', 48))
  }
  config = transformers.WhisperConfig(
    vocab_size=80, num_mel_bins=10, d_model=32, max_source_positions=12, max_target_positions=64,
    pad_token_id=END,
    bos_token_id=END, eos_token_id=END, decoder_start_token_id=START, suppress_tokens=None,
    begin_suppress_tokens=None, **sizes,
  )  # fmt: skip
  model = transformers.WhisperForConditionalGeneration(config).eval()
  with torch.no_grad():
    for p in model.parameters():
      p.add_(0.3 * torch.randn_like(p))
    model.model.decoder.embed_positions.weight *= 5  # otherwise it repeats tokens
  for name, value in SETTINGS.items():
    setattr(model.generation_config, name, value)
  folder = tmp_path_factory.mktemp('whisper') / 'small'
  model.save_pretrained(folder)
  return model, folder


@pytest.fixture(scope='module')
def small():
  """Return a tiny Whisper without transformers."""
  spec = zoo.tiny(zoo.get('whisper-tiny'))
  return spec, init(spec, jax.random.key(0))


def before_end(rows):
  """Return rows up to their end, which transformers excludes, without padding."""
  return [row[: [*row, END].index(END)] for row in rows]


@pytest.mark.oracle
@pytest.mark.parametrize('language', ['en', 'de'])
@pytest.mark.parametrize('task', ['transcribe', 'translate'])
def test_greedy_ids_equal_transformers(theirs, language, task):
  import torch

  model, folder = theirs
  rows = model.generate(
    torch.tensor(X), language=language, task=task, do_sample=False, max_new_tokens=NEW
  ).tolist()
  m = tfm.load(folder)
  options = hub.generation_options(folder, language=language, task=task)
  found = generate(m.spec, m.params, X, temperature=0, max_new_tokens=NEW, **options)
  assert before_end(found) == before_end(rows)
  assert len({token for row in found for token in row}) > 2


@pytest.mark.oracle
def test_suppressed_first_tokens_equal_transformers(theirs):
  import torch

  model, folder = theirs
  m = tfm.load(folder)
  options = hub.generation_options(folder, language='de')
  first = {
    row[0] for row in generate(m.spec, m.params, X, temperature=0, max_new_tokens=1, **options)
  }
  forbidden = sorted({*SETTINGS['begin_suppress_tokens'], *first})
  found = generate(
    m.spec, m.params, X, temperature=0, max_new_tokens=NEW,
    **{**options, 'forbidden_first': forbidden}
  )  # fmt: skip
  model.generation_config.begin_suppress_tokens = forbidden
  try:
    rows = model.generate(
      torch.tensor(X), language='de', do_sample=False, max_new_tokens=NEW
    ).tolist()
  finally:
    model.generation_config.begin_suppress_tokens = SETTINGS['begin_suppress_tokens']
  assert before_end(found) == before_end(rows)
  assert not first & {row[0] for row in found}


@pytest.mark.oracle
def test_best_beam_equals_transformers(theirs):
  import torch

  model, folder = theirs
  m = tfm.load(folder)
  options = hub.generation_options(folder, language='de')
  rows = model.generate(
    torch.tensor(X), language='de', do_sample=False, max_new_tokens=6, num_beams=3
  ).tolist()
  found = generate(m.spec, m.params, X, temperature=0, max_new_tokens=6, beams=3, **options)
  assert before_end(found) == before_end(rows)


@pytest.mark.oracle
def test_detected_language_equals_transformers(theirs):
  import torch

  model, folder = theirs
  m = tfm.load(folder)
  names = {ENGLISH: 'en', GERMAN: 'de'}
  for x in (X, 4 * X, -X):
    ids = model.detect_language(input_features=torch.tensor(x)).tolist()
    assert detect_language(
      m.spec, m.params, {'input_features': x}, hub.languages(SETTINGS), START
    ) == [names[token] for token in ids]


def test_dict_array_and_draft_give_the_same_tokens(small):
  spec, params = small
  x = np.random.default_rng(1).standard_normal((2, 80, 100)).astype(np.float32)
  options = {'temperature': 0, 'max_new_tokens': 8, 'decoder_start': (1, 2), 'eos': ()}
  found = generate(spec, params, x, **options)
  assert found == generate(spec, params, {'input_features': x}, **options)
  assert found == [generate(spec, params, x[i : i + 1], **options)[0] for i in range(2)]
  assert found == generate(spec, params, x, draft=ModelDraft(spec, params), **options)
  ids = [1, 2]
  for token in found[0]:  # one full pass per token, without a cache
    logits = apply(spec, params, input_features=x[:1], decoder_input_ids=np.asarray([ids]))[
      'logits'
    ][0, -1]
    assert int(logits.argmax()) == token
    ids.append(token)


def test_forbidden_first_token_comes_later(small):
  spec, params = small
  x = np.zeros((1, 80, 40), np.float32)
  options = {'temperature': 0, 'max_new_tokens': 4, 'decoder_start': 1, 'eos': ()}
  (free,) = generate(spec, params, x, **options)
  bias = {free[0]: 100.0}
  assert generate(spec, params, x, logit_bias=bias, **options)[0] == [free[0]] * 4
  (row,) = generate(spec, params, x, logit_bias=bias, forbidden_first=[free[0]], **options)
  assert row[0] != free[0]
  assert row[1:] == [free[0]] * 3


def test_encoder_outputs_can_be_prompts(small):
  spec, params = small
  x = np.random.default_rng(1).standard_normal((2, 80, 64)).astype(np.float32)
  options = {'temperature': 0, 'max_new_tokens': 5, 'decoder_start': 1, 'eos': ()}
  outputs = apply(spec, params, tower='encoder', input_features=x)['encoder_last_hidden_state']
  assert generate(spec, params, {'encoder_outputs': outputs}, **options) == generate(
    spec, params, x, **options
  )


@pytest.mark.parametrize(
  ('prompts', 'options', 'problem'),
  [
    (['a'], {}, r"prompts is \['a'\], but the encoder takes input_features. Expected a dict"),
    ([[1, 2]], {}, 'the encoder takes input_features'),
    (
      {'input_features': np.zeros((2, 80, 8)), 'attention_mask': np.ones((1, 8))},
      {},
      'prompts has batch sizes .* Expected arrays of one batch size',
    ),
    ({}, {}, 'Expected arrays of one batch size'),
    ({'input_featurs': np.zeros((1, 80, 8))}, {}, "unknown input 'input_featurs'"),
    (
      np.zeros((1, 80, 8)),
      {'prompt_cache': 'x'},
      'supports token prompts only, but the encoder takes input_features',
    ),
    (np.zeros((1, 80, 8)), {'prefill_chunk': 4}, 'prefill_chunk=4'),
    (np.zeros((1, 80, 8)), {'decoder_start': None}, 'decoder_start is missing'),
    (
      np.zeros((1, 80, 8)),
      {'forbidden_first': [64]},
      'forbidden_first has token 64, outside the vocabulary',
    ),
    (np.zeros((1, 80, 8)), {'forbidden_first': range(64)}, 'forbids every first token'),
  ],
)
def test_invalid_prompts_are_errors(small, prompts, options, problem):
  with pytest.raises(errors.UserError, match=problem):
    generate(
      *small, prompts, **{'decoder_start': 1, 'max_new_tokens': 2, 'temperature': 0, **options}
    )


def test_dict_prompt_without_an_encoder_is_an_error():
  spec = zoo.tiny(zoo.get('gpt2'))
  with pytest.raises(errors.UserError, match='the model has no encoder'):
    generate(
      spec,
      init(spec, jax.random.key(0)),
      {'input_features': np.zeros((1, 80, 8))},
      max_new_tokens=2,
    )


@pytest.mark.parametrize(
  ('fields', 'given', 'ids'),
  [
    ({'forced_decoder_ids': [[1, 9]], 'no_timestamps_token_id': 9}, {}, [5, 9]),
    ({'no_timestamps_token_id': 9}, {}, [5, 9]),
    (
      {**SETTINGS, 'forced_decoder_ids': [[1, None], [2, TRANSCRIBE]]},
      {'language': 'en'},
      [5, 62, 65, SILENT],
    ),
    ({**SETTINGS, 'forced_decoder_ids': [[1, ENGLISH], [2, TRANSLATE]]}, {}, [5, 62, 64, SILENT]),
    (SETTINGS, {'language': '<|de|>', 'task': 'translate'}, [5, 63, 64, SILENT]),
  ],
)
def test_decoder_begins_with_language_and_task(tmp_path, fields, given, ids):
  _write(tmp_path, fields)
  assert hub.generation_options(tmp_path, **given)['decoder_start'] == ids


@pytest.mark.parametrize(
  ('fields', 'given', 'problem'),
  [
    (
      SETTINGS,
      {},
      r'language is None, but the model has 2 languages\. Expected a code such as en, de',
    ),
    (SETTINGS, {'language': 'dee'}, "unknown language 'dee'. Did you mean 'de'"),
    (
      SETTINGS,
      {'language': 'de', 'task': 'transcripe'},
      "unknown task 'transcripe'. Did you mean 'transcribe'",
    ),
    ({'no_timestamps_token_id': 9}, {'language': 'de'}, 'the model has only one language'),
  ],
)
def test_unknown_language_is_an_error(tmp_path, fields, given, problem):
  _write(tmp_path, fields)
  with pytest.raises(errors.UserError, match=problem):
    hub.generation_options(tmp_path, **given)


def _write(folder, fields):
  (folder / 'generation_config.json').write_text(
    json.dumps({'decoder_start_token_id': 5, **fields})
  )


@pytest.fixture
def folder(tmp_path):
  """Return a folder of a tiny Whisper with a tokenizer and a processor of 1 s windows."""
  spec = zoo.tiny(zoo.get('whisper-tiny'))
  words = tokenizers.ByteLevelBPETokenizer()
  words.train_from_iterator(['the cat sat on the mat'] * 8, 280, special_tokens=['<|endoftext|>'])
  spec = _wide(spec, 290)
  start = {'decoder_start_token_id': 281, 'eos_token_id': 0}
  tokens = {
    'config.json': start,
    'generation_config.json': {
      **start, 'suppress_tokens': list(range(280, 290)),
      'lang_to_id': {'<|en|>': 282, '<|de|>': 283},
      'task_to_id': {'transcribe': 284}, 'no_timestamps_token_id': 285,
      'begin_suppress_tokens': [0],
    },
  }  # fmt: skip
  files = hub.FolderFiles.of_processor(WhisperFeatures(chunk_length=1))
  files = files.with_files({name: json.dumps(fields).encode() for name, fields in tokens.items()})
  vocabulary = FileVocabulary(words._tokenizer).with_specials(['eos'])
  hub.export_hf(
    spec, init(spec, jax.random.key(0)), tmp_path / 'whisper', tokenizer=vocabulary, files=files
  )
  return tmp_path / 'whisper'


def _wide(spec, vocab):
  return dataclasses.replace(spec, embed=dataclasses.replace(spec.embed, vocab=vocab))


def _record(path, rate, seconds):
  t = np.arange(int(rate * seconds)) / rate
  with wave.open(str(path), 'wb') as file:
    file.setparams((1, 2, rate, 0, 'NONE', ''))
    file.writeframes((8000 * np.sin(700 * t * (1 + t))).astype('<i2').tobytes())


def test_recordings_are_transcribed_on_the_command_line(folder, tmp_path, capsys):
  _record(tmp_path / 'a.wav', 8000, 0.5)
  _record(tmp_path / 'b.wav', 16000, 1.5)
  command = [
    'generate',
    f'--checkpoint={folder}',
    f'--audio={tmp_path / "a.wav"}',
    f'--audio={tmp_path / "b.wav"}',
  ]
  assert main.run([*command, '--max_new_tokens=4', '--json']) == 0
  first, second = map(json.loads, capsys.readouterr().out.splitlines())
  m = tfm.load(folder)
  clip, rate = tfm.data.recordings.read_audio(tmp_path / 'a.wav')
  features = m.processor(audio=tfm.data.processors.resample(clip, rate, 16000), sampling_rate=16000)
  fields = m.files.json('generation_config.json')
  (language,) = detect_language(
    m.spec, m.params, features, hub.languages(fields), fields['decoder_start_token_id']
  )
  options = hub.generation_options(folder, language=language)
  (text,) = generate(
    m.spec, m.params, features, tokenizer=m.tokenizer, temperature=0, max_new_tokens=4, **options
  )
  assert first == {'audio': str(tmp_path / 'a.wav'), 'text': text.strip(), 'language': language}
  assert second['text']
  assert main.run([*command, '--max_new_tokens=4', '--language=de']) == 0
  assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
  ('words', 'problem'),
  [
    (['--prompt=a'], 'cannot be combined with --prompt'),
    (['--language=fr'], "unknown language 'fr'"),
    (['--audio=nowhere.wav'], 'nowhere.wav: cannot be read'),
  ],
)
def test_invalid_audio_flags_are_errors(folder, tmp_path, capsys, words, problem):
  _record(tmp_path / 'a.wav', 16000, 0.3)
  assert (
    main.run(['generate', f'--checkpoint={folder}', f'--audio={tmp_path / "a.wav"}', *words]) == 2
  )
  assert problem in capsys.readouterr().err


def test_processor_files_are_copied_byte_for_byte(folder, tmp_path):
  content = b'{"feature_extractor_type": "WhisperFeatureExtractor",\n\n   "chunk_length": 1}'
  (folder / 'preprocessor_config.json').write_bytes(content)
  assert main.run(['convert', f'--input={folder}', f'--output={tmp_path / "ours"}']) == 0
  assert main.run(['convert', f'--input={tmp_path / "ours"}', f'--output={tmp_path / "back"}']) == 0
  assert (tmp_path / 'back' / 'preprocessor_config.json').read_bytes() == content
  loaded = [tfm.load(tmp_path / name) for name in ('whisper', 'ours', 'back')]
  assert [m.processor.chunk_length for m in loaded] == [1, 1, 1]
  options = [
    hub.generation_options(tmp_path / name, language='de') for name in ('whisper', 'ours', 'back')
  ]
  assert options[0] == options[1] == options[2]
  assert options[0]['logit_bias'][280] == -math.inf


def test_unknown_processor_fails_only_when_it_is_used(folder):
  (folder / 'preprocessor_config.json').write_text(
    '{"feature_extractor_type": "OddFeatureExtractor"}'
  )
  m = tfm.load(folder)
  with pytest.raises(
    errors.ConfigError, match=r"preprocessor_config.json: unknown processor 'OddFeatureExtractor'"
  ):
    _ = m.processor
  (folder / 'preprocessor_config.json').unlink()
  assert tfm.load(folder).processor is None
