"""Segments of layers, and errors of `layer_types`."""

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
def test_segments_keep_order_and_minimise_compiled_blocks(layers, shape):
  stack = Stack(layers)
  assert layers_of(stack) == layers
  assert [(len(s.pattern), s.repeats) for s in stack.segments] == shape


@pytest.mark.parametrize(
  ('fields', 'window', 'message'),
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
def test_invalid_layer_types_raise_errors(fields, window, message):
  with pytest.raises(errors.UserError, match=message):
    masks(Fields({'num_hidden_layers': 2, **fields}), [], window)


def test_unread_lists_fields_of_nested_configs():
  c = Fields({'outer': 1, 'attn_config': {'clip': 8, 'surprise': 3}})
  assert c.part('attn_config')['clip'] == 8
  assert c.get('outer') == 1
  assert c.unread() == {'attn_config.surprise': 3}
