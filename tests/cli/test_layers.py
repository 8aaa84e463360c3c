import dataclasses

import pytest

from tfm import zoo
from tfm.cli import layers
from tfm.model import count
from tfm.parts.mixer import LSTM


def test_costs_equal_model_counts():
  spec = zoo.get('gpt2')
  costs = dict(layers.sheets(spec, 128, 'float32')[0].rows)
  assert costs['parameters'] == '124,439,808'
  assert costs['weights, float32'] == '497.8 MB'
  assert costs['cache per token, float32, dense'] == layers.size_of(
    count.cache_bytes_per_token(spec, 'float32')
  )
  assert (
    costs['FLOPs per token, forward, sequences of 128']
    == f'{count.flops_per_token(spec, 128) / 1e6:.4g} M'
  )


def test_recurrent_state_is_shown():
  spec = zoo.get('gpt2')
  assert not [
    what for what, _ in layers.sheets(spec, 128, 'float32')[0].rows if 'recurrent state' in what
  ]
  block = dataclasses.replace(spec.segments[0].pattern[0], mixer=LSTM())
  spec = dataclasses.replace(
    spec, segments=(dataclasses.replace(spec.segments[0], pattern=(block,)),)
  )
  costs = dict(layers.sheets(spec, 128, 'bfloat16')[0].rows)
  state = layers.size_of(12 * 4 * (2 * 768 + 1))
  assert costs['recurrent state per sequence, any length'] == state
  assert costs['cache of 128 tokens, bfloat16, dense'] == state
  assert costs['cache per token, bfloat16, dense'] == '0 B'


def test_parameters_of_layers_add_up():
  sheet = layers.sheets(zoo.get('t5-small'), 64, 'bfloat16')[1]
  column = sheet.columns.index('parameters')
  assert sum(int(row[column].replace(',', '')) for row in sheet.rows) == count.count_params(
    zoo.get('t5-small')
  )


@pytest.mark.parametrize(('name', 'length'), [('bert-base', 512), ('llama2-7b', 1024)])
def test_default_length_is_within_positions(name, length):
  assert f'FLOPs per token, forward, sequences of {length}' in dict(
    layers.sheets(zoo.get(name), None, 'bfloat16')[0].rows
  )


def test_layer_is_shown_with_parts_and_repeats():
  spec = zoo.get('gpt2')
  segment = dataclasses.replace(spec.segments[0], repeats=3)
  sheet = layers.sheets(
    dataclasses.replace(spec, segments=(segment, spec.segments[0])), 64, 'bfloat16'
  )[1]
  lines = [dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows]
  blocks = {line['layers']: line for line in lines if 'pattern' in line['layers']}
  assert [line['times'] for line in blocks.values()] == ['3', '12']
  assert 'mlp' in blocks['segments.0.pattern.0']['parts'].split(', ')
  assert blocks['segments.0.pattern.0']['each'] == '7,087,872'


def test_image_costs_count_patch_tokens():
  spec = zoo.get('vit-base-16')
  costs = dict(layers.sheets(spec, None, 'bfloat16')[0].rows)
  assert costs['parameters'] == '86,567,656'
  assert (
    costs['FLOPs per token, forward, sequences of 197']
    == f'{count.flops_per_token(spec, 197) / 1e6:.4g} M'
  )
  # 17.6 GFLOPs (multiply-adds counted twice: 35) an image, as the papers say.
  assert 34.5e9 < count.flops_of_document(spec, 197) < 35.5e9
