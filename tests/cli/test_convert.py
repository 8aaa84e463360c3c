"""`tfm convert` of adapters; folders and checkpoints are in `tests/hub`."""

import dataclasses

import jax
import numpy as np
import pytest

import tfm
from tfm import hub, zoo
from tfm.cli import main
from tfm.model.adapters import merge_adapters
from tfm.parts.adapter.lora import LoRA


@pytest.fixture
def adapted(tmp_path):
  """A base folder, and a checkpoint of its model with a LoRA whose numbers are not zero."""
  base = zoo.tiny(zoo.get('llama3.2-1b'))
  spec = dataclasses.replace(base, adapter=LoRA(rank=2))
  params = tfm.init(spec, jax.random.key(0))
  params = jax.tree.map_with_path(
    lambda path, a: a + 0.1 if 'lora' in jax.tree_util.keystr(path) else a, params
  )
  hub.export_hf(base, _without_lora(params), tmp_path / 'base')
  hub.save(spec, params, tmp_path / 'lora')
  return spec, params


def _without_lora(tree):
  return (
    {name: _without_lora(value) for name, value in tree.items() if name != 'lora'}
    if isinstance(tree, dict)
    else tree
  )


def test_exported_adapter_merges_into_the_same_model(adapted, tmp_path, capsys):
  base, lora, peft, merged = (tmp_path / name for name in ('base', 'lora', 'peft', 'merged'))
  assert (
    main.run(['convert', f'--input={lora}', f'--output={peft}', '--to=peft', f'--base={base}']) == 0
  )
  assert 'the LoRA of a LlamaForCausalLM' in capsys.readouterr().out
  assert (
    main.run(['convert', f'--input={base}', f'--adapter={peft}', f'--output={merged}', '--to=hf'])
    == 0
  )
  _, expected = merge_adapters(*adapted)
  found = tfm.load(merged).params
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, expected)


@pytest.mark.parametrize(
  'words', [['--to=peft'], ['--base=b']], ids=lambda words: f'words={words[0]}'
)
def test_peft_export_needs_a_base(adapted, tmp_path, capsys, words):
  assert (
    main.run(['convert', f'--input={tmp_path / "lora"}', f'--output={tmp_path / "x"}', *words]) == 2
  )
  assert '--base: is the base model of an adapter' in capsys.readouterr().err
