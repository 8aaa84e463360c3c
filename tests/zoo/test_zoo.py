"""Sizes, papers and toy versions of the zoo's models."""

import pytest

from tests.zoo.sizes import sizes
from tfm import zoo
from tfm.core import config, errors
from tfm.model import count
from tfm.model.spec import Model, depth


@pytest.mark.parametrize('name', zoo.names())
def test_number_of_parameters_is_exact(name):
  assert count.count_params(zoo.get(name)) == zoo.TABLE[name].params


@pytest.mark.parametrize('name', zoo.names())
def test_entry_has_a_paper_and_a_valid_hashable_spec(name):
  entry = zoo.TABLE[name]
  assert 'arXiv' in entry.paper or '20' in entry.paper
  assert hash(entry.spec) == hash(config.validate(entry.spec))


def test_published_sizes_are_near_exact_sizes():
  unit = {'M': 1e6, 'B': 1e9}
  for name, entry in zoo.TABLE.items():
    printed = float(entry.published[:-1]) * unit[entry.published[-1]]
    assert abs(entry.params / printed - 1) < 0.07, name


def test_unknown_name_error_has_a_near_name():
  with pytest.raises(
    errors.ConfigError, match=r"unknown model 'lama3-8b'\. Did you mean 'llama3-8b'"
  ):
    zoo.get('lama3-8b')


def test_released_vaswani_lacks_projection_biases_only():
  spec = zoo.get('vaswani-base')
  d = spec.d_model
  assert count.count_params(spec) - 63_045_632 == 18 * 4 * d


def _shape(node):
  """Return the classes of a spec, without its sizes."""
  if isinstance(node, tuple):
    return tuple(_shape(n) for n in node)
  fields = getattr(node, '__dataclass_fields__', None)
  if fields is None:
    return node is None
  return type(node), *(_shape(getattr(node, f)) for f in fields)


@pytest.mark.parametrize('name', sizes())
def test_tiny_model_keeps_parts_and_is_small(name):
  spec, small = zoo.get(name), zoo.tiny(zoo.get(name))
  assert isinstance(config.validate(small), Model)
  assert _shape(small) == _shape(spec)
  # Hybrids keep all kinds of layers, so they are larger.
  assert count.count_params(small) < max(200_000, 50_000 * depth(small))
