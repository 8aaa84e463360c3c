"""Tensor names of training wrappers, older programs and other classes load."""

import json
import pathlib
import time

import jax
import numpy as np
import pytest
import safetensors.numpy

import tfm
from tfm import hub, zoo
from tfm.core import errors
from tfm.hub.check_tensors import check_tensors
from tfm.hub.tensors import SAFE, Tensors
from tfm.model.transformer import init
from tfm.zoo import weights

CONFIGS = pathlib.Path(__file__).parent / 'configs' / 'gpt_kin.jsonl'
MODELS = ('bert-base', 'llama3.2-1b', 'gpt2', 't5-small', 'roberta-base', 'opt-125m')


@pytest.fixture(scope='module', params=MODELS)
def exported(request, tmp_path_factory):
  spec = zoo.tiny(zoo.get(request.param))
  params = init(spec, jax.random.key(0))
  path = tmp_path_factory.mktemp('names') / 'model'
  hub.export_hf(spec, params, path)
  return path, params, safetensors.numpy.load_file(path / SAFE), hub.class_of(spec)[1].family


def _write(path, arrays):
  safetensors.numpy.save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, path / SAFE)


def _same(path, params):
  assert jax.tree.all(jax.tree.map(np.array_equal, tfm.load(path).params, params))


def _bare(name, prefix):
  return name.removeprefix(prefix)


_SPELLINGS = {
  'module': lambda n, p: f'module.{n}',
  'compiled': lambda n, p: f'_orig_mod.{n}',
  'both': lambda n, p: f'module._orig_mod.{n}',
  'within': lambda n, p: n.replace('.0.', '.0._checkpoint_wrapped_module.'),
  'bare': _bare,
  'twice': lambda n, p: p + n,
  'text': lambda n, p: f'language_model.{n}',
  'model': lambda n, p: f'model.{_bare(n, p)}',
  'gamma': lambda n, p: n.replace('orm.weight', 'orm.gamma').replace('orm.bias', 'orm.beta'),
}


@pytest.mark.parametrize('spelling', _SPELLINGS)
def test_alternative_names_load(exported, spelling):
  path, params, arrays, family = exported
  _write(path, {_SPELLINGS[spelling](name, family.prefix): a for name, a in arrays.items()})
  _same(path, params)


def test_buffers_are_ignored(exported):
  path, params, arrays, family = exported
  mask = np.tril(np.ones((1, 1, 8, 8), bool))
  buffers = {
    'layers.0.self_attn.rotary_emb.inv_freq': np.ones(4, np.float32), 'h.0.attn.bias': mask,
    'h.0.attn.masked_bias': np.float32(-1e4), 'embeddings.position_ids': np.arange(8)[None],
    'embeddings.token_type_ids': np.zeros((1, 8), np.int64),
    'norm.num_batches_tracked': np.int64(3),
    'layers.0.rotary.cos_cached': np.ones((8, 4), np.float32),
  }  # fmt: skip
  _write(path, arrays | {family.prefix + name: np.asarray(a) for name, a in buffers.items()})
  _same(path, params)


def test_duplicate_spellings_must_be_equal(exported):
  path, params, arrays, _ = exported
  name = next(n for n in sorted(arrays) if n.endswith('weight') and arrays[n].ndim == 2)
  _write(path, arrays | {f'module.{name}': arrays[name].copy()})
  _same(path, params)
  _write(path, arrays | {f'module.{name}': arrays[name] + 1})
  with pytest.raises(
    errors.UserError, match=rf'module\.{name} differs from {name}\. Expected equal tensors'
  ):
    tfm.load(path)


def test_tied_table_loads_from_the_head(exported):
  path, params, arrays, family = exported
  spec = hub.read_config(path).spec
  tensor_map = {t.slots[0].path: t.name for t in weights.tensor_map(family, spec, family.head)}
  assert 'head/head/kernel' not in tensor_map, 'the models of this test have tied tables'
  table = arrays[tensor_map['embed/table']]
  rest = {n: a for n, a in arrays.items() if n != tensor_map['embed/table']}
  _write(path, rest | {family.tied[0]: table})
  _same(path, params)
  _write(path, rest)
  with pytest.raises(errors.UserError, match='missing'):
    tfm.load(path)


@pytest.mark.parametrize('dtype', ['int8', 'uint8', 'int32', 'bool', 'float8_e4m3fn'])
def test_integer_weights_raise_errors(exported, dtype):
  path, _, arrays, _ = exported
  kind = jax.numpy.dtype(dtype)
  _write(path, {n: a.astype(kind) if a.ndim == 2 else a for n, a in arrays.items()})
  with pytest.raises(
    errors.UserError, match=rf'config\.json has no quantization_config[\s\S]*is {dtype}'
  ):
    tfm.load(path)


def test_extra_layers_are_reported(exported):
  path, _, arrays, _ = exported
  deeper = {n.replace('.0.', '.7.'): a for n, a in arrays.items() if '.0.' in n}
  _write(path, arrays | deeper)
  with pytest.raises(
    errors.UserError, match=r'The files have more layers or experts than config\.json'
  ):
    tfm.load(path)


def test_untied_head_is_not_the_token_table(tmp_path):
  spec = zoo.tiny(zoo.get('llama2-7b'))
  assert not spec.lm.tied
  hub.export_hf(spec, init(spec, jax.random.key(0)), tmp_path / 'untied')
  arrays = safetensors.numpy.load_file(tmp_path / 'untied' / SAFE)
  del arrays['model.embed_tokens.weight']
  _write(tmp_path / 'untied', arrays)
  with pytest.raises(errors.UserError, match=r'missing \(1\):\s+model\.embed_tokens\.weight'):
    tfm.load(tmp_path / 'untied')


def test_matching_many_tensors_takes_linear_time():
  """DeepSeek-V3 has 45,000 tensors, so names are looked up instead of compared."""

  class Entry:
    dtype = np.dtype(np.float32)

    def __init__(self, shape):
      self.shape = shape

  row = next(
    r
    for r in map(json.loads, CONFIGS.read_text().splitlines())
    if r['repository'].endswith('DeepSeek-V3')
  )
  found = weights.published(
    row['config'] | {'num_hidden_layers': 24, 'num_nextn_predict_layers': 0}
  )
  planned = weights.tensor_map(found.family, found.spec, found.ending)
  tensors = Tensors({t.name: Entry(t.shape) for t in planned})
  start = time.process_time()
  weights.tensor_map(found.family, found.spec, found.ending)
  planning = time.process_time() - start
  assert [t.name for t in check_tensors('folder', found, tensors)] == [t.name for t in planned]
  assert time.process_time() - start < 6 * planning + 2
