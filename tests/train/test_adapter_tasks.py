"""Adapters on frozen weights, stored in floats (LoRA) or in 4 bits (QLoRA), for several tasks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.test_preferences import write
from tests.train import tiny
import tfm
from tfm.cli.train import read_model, warm_start
from tfm.core import config
from tfm.core.errors import UserError
from tfm.data import Preferences
from tfm.data.tokenizer import Byte
from tfm.hub.save import save
from tfm.model import transformer
from tfm.model.adapters import merge_adapters
from tfm.tasks import CausalLM, Distill, Dpo
from tfm.train import loop, shard
from tfm.train.build import build

pytest.importorskip('qwix')
PAIR = {'prompt': 'what?', 'chosen': ' yes.', 'rejected': ' no.'}
QLORA = 'int4(weights=nf4, tile=8)'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Return a folder with a base model, a teacher and preferences."""
  folder = tmp_path_factory.mktemp('base')
  x = config.override(tiny.experiment(folder / 'text'), 'model.embed.vocab', '257')
  save(x.model, transformer.init(x.model, jax.random.key(3)), folder / 'base')
  teacher = jax.tree.map(lambda a: 4 * a, transformer.init(x.model, jax.random.key(4)))
  save(x.model, teacher, folder / 'teacher')
  write(folder / 'p.jsonl', [PAIR | {'prompt': f'{i} what?'} for i in range(8)])
  return folder


def experiment(folder, frozen, task=None):
  x = tiny.experiment(folder / 'text', optim__lr=3e-2, optim__schedule='constant')
  for path, value in (
    ('model..dropout', '0'),
    ('model.embed.vocab', '257'),
    ('model.adapter', 'lora(targets=(q,k,v,o,gate,up,down))'),
    ('optim.only', '*/lora/*,'),
    ('frozen', frozen),
  ):
    x = config.override(x, path, value)
  if isinstance(task, Dpo):
    data = Preferences(files=str(folder / 'p.jsonl'), tokenizer=Byte(), length=16, batch=8)
    x = dataclasses.replace(x, data=data)
  x = dataclasses.replace(x, init_from=str(folder / 'base'), init_vocab='same')
  return x if task is None else dataclasses.replace(x, task=task)


def named(tree):
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): np.asarray(x.astype(jnp.float32)) for path, x in leaves}


CASES = [
  ('causal_lm', 'none'),
  ('causal_lm', QLORA),
  ('distill', QLORA),
  ('dpo', 'none'),
  ('dpo', QLORA),
]


@pytest.mark.parametrize(('name', 'frozen'), CASES)
@pytest.mark.large(when=lambda name, frozen: frozen == 'none')
def test_only_adapters_change_and_the_loss_falls(folder, name, frozen):
  made = {
    'causal_lm': CausalLM(),
    'distill': Distill(str(folder / 'teacher'), weight=1.0),
    'dpo': Dpo(beta=0.5),
  }
  x = experiment(folder, frozen, made[name])
  x = loop.constants.described(x, read_model)
  dataset, built = x.data.open(x.task), build(x, jax.devices()[:1])
  params, _ = warm_start(x, dataset.vocabulary, built.loaded, print)
  constants = built.extra(loop.constants.read(x, built.constants, dataset, read_model))
  state = built.start(params)
  before, losses = named(state['params']), []
  assert any('qvalue' in path for path in before) == (frozen != 'none')
  features = x.task.features(dataset.batch('train', 0, 0), dataset)
  batch = shard.put(features, built.batch.shardings, x.data.batch, slice(0, x.data.batch))
  for _ in range(6):
    state, metrics = built.step(state, batch, *constants)
    losses.append(float(metrics['loss']))
  after = named(state['params'])
  changed = {path for path in before if not np.array_equal(before[path], after[path])}
  assert changed == {path for path in before if 'lora' in path}
  assert losses[-1] < losses[0] - 0.01


def test_quantized_run_resumes_and_generates(folder, tmp_path, capsys):
  x = dataclasses.replace(experiment(folder, QLORA), save_every=2, eval_every=4, steps=4)
  run = lambda x, name: loop.train(x, tmp_path / name, warm_start=warm_start).state
  whole = run(x, 'whole')
  run(dataclasses.replace(x, steps=2), 'parts')
  parts = run(x, 'parts')
  assert 'resumed from' in capsys.readouterr().out
  jax.tree.map(np.testing.assert_array_equal, named(whole['params']), named(parts['params']))
  m = tfm.load(tmp_path / 'parts', dtype='bfloat16')
  assert len(m.generate(['to be'], max_new_tokens=2, temperature=0)) == 1
  with pytest.raises(UserError, match=r'merge_adapters: weights are quantized'):
    merge_adapters(m.spec, m.params)


def test_messages(folder):
  x = experiment(folder, 'int8')
  x = dataclasses.replace(x, optim=dataclasses.replace(x.optim, only=(), ema=0.9))
  assert list(x.check()) == [
    'frozen: all parameters are trained, which needs floats. Expected optim.only, such as '
    "'*/lora/*', or frozen=none.",
    'frozen: quantized parameters have no average. Expected optim.ema=none.',
  ]


def test_quantized_weights_are_sharded(folder):
  x = config.override(experiment(folder, QLORA), 'mesh.fsdp', '2')
  x = config.override(x, 'mesh.tensor', '2')
  built = build(x, jax.devices()[:4])
  kernels = built.like()['params']['segment_0']['block_0']
  for part, name in (('mixer', 'q'), ('mixer', 'o'), ('ffn', 'up'), ('ffn', 'down')):
    values = kernels[part][name]['kernel'].w_oi.qvalue
    assert np.prod(values.sharding.shard_shape(values.shape)) == values.size // 4
  assert built.loaded.keys() == built.shapes['params'].keys()
