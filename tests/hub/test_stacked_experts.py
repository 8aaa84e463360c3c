"""Stacked expert tensors load as one tensor per expert."""

import json
import re

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tfm import hub, zoo
from tfm.model import transformer

NAME = re.compile(r'(.*\.experts)\.(\d+)\.(\w+)_proj\.weight')


def drawn(spec):
  """Return random parameters of a model."""
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda a: rng.standard_normal(a.shape).astype(np.float32), transformer.param_shapes(spec)
  )


def stacked(tensors):
  """Return the tensors with the experts of a layer stacked in two tensors."""
  rest = {name: a for name, a in tensors.items() if not NAME.fullmatch(name)}
  for layer in {found[1] for name in tensors if (found := NAME.fullmatch(name))}:
    n = sum(name.startswith(f'{layer}.') and name.endswith('.down_proj.weight') for name in tensors)
    of = lambda part, layer=layer, n=n: np.stack(
      [tensors[f'{layer}.{e}.{part}_proj.weight'] for e in range(n)]
    )
    rest |= {
      f'{layer}.gate_up_proj': np.concatenate([of('gate'), of('up')], 1),
      f'{layer}.down_proj': of('down'),
    }
  return rest


@pytest.mark.parametrize('name', ['qwen3.5-35b-a3b', 'glm4.5-air'])
def test_stacked_experts_load_as_the_same_parameters(name, tmp_path):
  spec = zoo.tiny(zoo.get(name))
  params = drawn(spec)
  folder = tmp_path / 'published'
  hub.export_hf(spec, params, folder)
  apart = hub.load(folder)
  path = folder / 'model.safetensors'
  tensors = stacked(load_file(path))
  assert any(n.endswith('.experts.gate_up_proj') for n in tensors)
  save_file({n: np.ascontiguousarray(a) for n, a in tensors.items()}, path, {'format': 'pt'})
  together = hub.load(folder)
  jax.tree.map(np.testing.assert_array_equal, together.params, apart.params)


def test_families_with_stacked_experts_are_unchanged(tmp_path):
  spec = zoo.tiny(zoo.get('llama4-scout'))
  params = drawn(spec)
  folder = tmp_path / 'published'
  hub.export_hf(spec, params, folder)
  assert json.loads((folder / 'config.json').read_text())['model_type'] == 'llama4_text'
  jax.tree.map(np.testing.assert_array_equal, hub.load(folder).params, params)
