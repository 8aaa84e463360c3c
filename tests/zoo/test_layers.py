"""Layers as segments and back, and what a config may not say of them."""

import pytest

from tfm.core import errors
from tfm.model.spec import Block
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, LOCAL, layers_of, masks, segments

A, B, C = (Block(dropout=rate) for rate in (0.1, 0.2, 0.3))


class Stack:
  def __init__(self, layers):
    self.segments = segments(layers)


@pytest.mark.parametrize(
  ('layers', 'shape'),
  [
    ([A], [(1, 1)]),
    ([A] * 40, [(1, 40)]),
    ([A, B] * 13, [(2, 13)]),
    ([A] * 3 + [B] * 58, [(1, 3), (1, 58)]),
    (([A] * 5 + [B]) * 4 + [A] * 2, [(6, 4), (1, 2)]),
    ([A, B, C], [(3, 1)]),
  ],
)
def test_layers_come_back_and_as_few_blocks_as_can_be_are_written(layers, shape):
  stack = Stack(layers)
  assert layers_of(stack) == layers
  assert [(len(s.pattern), s.repeats) for s in stack.segments] == shape


@pytest.mark.parametrize(
  ('fields', 'window', 'said'),
  [
    (
      {'layer_types': ['chunked_attention'] * 2},
      4,
      "layer_types: unknown value 'chunked_attention'",
    ),
    (
      {'layer_types': [LOCAL, GLOBAL]},
      None,
      'sliding_window is null, and layer_types has sliding_attention',
    ),
    ({'layer_types': [LOCAL]}, 4, 'layer_types has 1 layers. Expected num_hidden_layers'),
  ],
)
def test_layer_types_that_cannot_be_are_told(fields, window, said):
  with pytest.raises(errors.UserError, match=said):
    masks(Fields({'num_hidden_layers': 2, **fields}), [], window)


def test_a_config_within_a_config_is_read_to_its_last_field():
  c = Fields({'outer': 1, 'attn_config': {'clip': 8, 'surprise': 3}})
  assert c.part('attn_config')['clip'] == 8
  assert c.get('outer') == 1
  assert c.unread() == {'attn_config.surprise': 3}
