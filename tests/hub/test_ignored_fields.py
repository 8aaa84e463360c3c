"""Neutral config fields are ignored, other unknown fields only on request."""

import json

import jax
import numpy as np
import pytest

import tfm
from tfm import hub, zoo
from tfm.cli import main
from tfm.core import errors
from tfm.hub.folder_consistency import inconsistencies
from tfm.hub.load import read_config
from tfm.model.transformer import init
from tfm.zoo import bookkeeping
from tfm.zoo.weights import published

LLAMA = {
  'architectures': ['LlamaForCausalLM'], 'model_type': 'llama', 'hidden_size': 64,
  'intermediate_size': 96, 'num_hidden_layers': 1, 'num_attention_heads': 4, 'vocab_size': 128,
  'max_position_embeddings': 256,
}  # fmt: skip

NEUTRAL = {
  '_num_labels': 3, 'unsloth_version': '2025.6.1', 'unsloth_fixed': True, 'is_llama_config': True,
  'rope_interleaved': False, 'transformers.js_config': {'dtype': 'q4'},
  'transformers_weights': 'x.safetensors', 'attn_pdrop': 0.0, 'ffn_dropout': 0,
  'residual_scale': 1.0, 'is_causal': True, 'quantization_bits': None, 'pretraining_tp': 2,
  'use_fused_rope': True, 'some_hooks': [], 'wandb_run': 'a1', 'mergekit_version': '0.1',
  'eta_cutoff': 0.1, 'layer_types': ['full_attention'], 'max_seq_length': 512, 'save_step': 58,
  'language': 'english',
}  # fmt: skip


@pytest.mark.parametrize('name', NEUTRAL)
def test_neutral_fields_are_ignored(name):
  assert published({**LLAMA, name: NEUTRAL[name]}).spec == published(LLAMA).spec


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('rope_interleaved', True), ('attn_pdrop', 0.1), ('residual_scale', 0.5), ('is_causal', False),
    ('per_layer_config', {'0': {'hidden_size': 3}}), ('num_experts', 4), ('hiden_act', 'gelu'),
    ('clip_qkv', 8.0), ('embedding_multiplier', 12.0), ('layer_types', ['sliding_attention']),
    ('sliding_window', 4096), ('use_bidirectional_attention', True),
  ],
)  # fmt: skip
def test_fields_that_change_outputs_raise_errors(name, value):
  with pytest.raises(errors.UserError) as error:
    published({**LLAMA, name: value})
  said = str(error.value)
  assert f'{name}={value!r}: unknown for model_type' in said
  assert f"ignore=('{name}',)" in said
  assert f'--ignore_fields={name}' in said


def test_unknown_field_error_suggests_a_name():
  with pytest.raises(errors.UserError, match=r'Did you mean hidden_act\?'):
    published({**LLAMA, 'hiden_act': 'gelu'})


def test_only_unknown_fields_can_be_ignored():
  config = {**LLAMA, 'surprise': 3, 'hidden_act': 'silu'}
  found = published(config, ignore=('surprise',))
  assert found.ignored == ('surprise',)
  assert found.spec == published(LLAMA).spec
  with pytest.raises(
    errors.UserError, match='hidden_act cannot be ignored, because Llama depends on it'
  ):
    published(config, ignore=('surprise', 'hidden_act'))
  with pytest.raises(errors.UserError, match=r"unknown field 'suprise'\. Did you mean 'surprise'"):
    published(config, ignore=('suprise',))


def test_bookkeeping_tables_have_no_duplicates():
  groups = (
    bookkeeping.FILE, bookkeeping.STORAGE, bookkeeping.TOKENS, bookkeeping.TRAINING,
    bookkeeping.GENERATION, bookkeeping.PROGRAMS,
  )  # fmt: skip
  assert sum(map(len, groups)) == len(bookkeeping.SILENT)
  assert not bookkeeping.SILENT & set(bookkeeping.DEFAULTS)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  spec = zoo.tiny(zoo.get('llama3.2-1b'))
  path = tmp_path_factory.mktemp('ignored') / 'llama'
  hub.export_hf(spec, init(spec, jax.random.key(0)), path)
  config = path / 'config.json'
  config.write_text(
    json.dumps(json.loads(config.read_text()) | {'surprise': 3, 'eos_token_id': [2, 64]})
  )
  return path


def test_loading_ignores_fields_and_prints_them(folder, capsys):
  with pytest.raises(errors.UserError, match='surprise=3'):
    tfm.load(folder)
  spec = tfm.load(folder, ignore=('surprise',)).spec
  messages = capsys.readouterr().err
  assert 'surprise=3 of config.json is ignored, as requested.' in messages
  assert 'eos_token_id of config.json is 64, but vocab_size is 64.' in messages
  assert read_config(folder, ('surprise',)).spec == spec


def test_convert_takes_fields_to_ignore(folder, tmp_path, capsys):
  command = ['convert', f'--input={folder}', f'--output={tmp_path / "ours"}']
  assert main.run(command) == 2
  assert '--ignore_fields=surprise' in capsys.readouterr().err
  assert main.run([*command, '--ignore_fields=surprise']) == 0
  ours = tfm.load(tmp_path / 'ours')
  assert jax.tree.all(
    jax.tree.map(np.array_equal, ours.params, tfm.load(folder, ignore=('surprise',)).params)
  )
  with pytest.raises(errors.UserError, match=r'this is a checkpoint of tfm'):
    tfm.load(tmp_path / 'ours', ignore=('surprise',))


class _Words:
  size = 70


@pytest.mark.parametrize(
  ('fields', 'tokenizer', 'messages'),
  [
    ({}, None, []),
    ({}, _Words(), ['the tokenizer has 70 tokens, but vocab_size of config.json is 64']),
    ({'vocab_size': 70}, _Words(), []),
    ({'eos_token_id': [3, 64], 'pad_token_id': -1}, None, ['eos_token_id of config.json is 64']),
    ({'decoder_start_token_id': -1}, None, ['decoder_start_token_id of config.json is -1']),
    (
      {'num_labels': 3, 'id2label': {'0': 'a', '1': 'b'}}, None,
      ['num_labels of config.json is 3, but id2label has 2'],
    ),
    ({'num_labels': 2, 'id2label': {'0': 'a', '1': 'b'}}, None, []),
  ],
)  # fmt: skip
def test_inconsistent_files_are_reported(fields, tokenizer, messages):
  values = {**LLAMA, 'vocab_size': 64, **fields}
  found = list(inconsistencies(values, published(values), tokenizer))
  assert len(found) == len(messages)
  assert all(line.startswith(start) for line, start in zip(found, messages, strict=True))
