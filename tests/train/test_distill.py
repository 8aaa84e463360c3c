"""A student learns from a teacher of the same vocabulary."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.train import tiny
from tfm.cli.train import read_model
from tfm.core import config, errors
from tfm.hub.save import save
from tfm.model import transformer
from tfm.tasks import CausalLM, Distill, MaskedLM
from tfm.tasks.distill import divergence
from tfm.train import constants, loop
from tfm.train.build import build
from tfm.train.forward import Forward


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
  """Return the folder, spec and parameters of a teacher, wider than the student."""
  folder = tmp_path_factory.mktemp('teacher')
  x = tiny.experiment(folder / 'text', model__d_model=24)
  params = jax.tree.map(lambda a: 4 * a, transformer.init(x.model, jax.random.key(3)))
  save(x.model, params, folder / 'model')
  return str(folder / 'model'), x.model, params


def _experiment(tmp_path, teacher, **fields):
  x = tiny.experiment(tmp_path, optim__schedule='constant', **fields)
  x = config.override(x, 'model..dropout', '0')
  return dataclasses.replace(x, task=Distill(teacher[0], 2.0, 0.7, CausalLM(loss_chunk=64)))


def test_kl_is_zero_for_equal_logits_and_has_no_gradient():
  logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
  value, grad = jax.value_and_grad(lambda x: divergence(logits, x, 2.0).sum())(logits)
  np.testing.assert_allclose(value, 0, atol=1e-6)
  np.testing.assert_allclose(grad, 0, atol=1e-7)


@pytest.mark.parametrize('of', [CausalLM(), MaskedLM()])
def test_loss_is_the_weighted_sum_over_labelled_tokens(tmp_path, teacher, of):
  _, spec, teacher_params = teacher
  x = _experiment(tmp_path, teacher)
  params = transformer.init(x.model, jax.random.key(0))
  ids = jax.random.randint(jax.random.key(1), (2, 8), 0, 256)
  weights = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, 8)), jnp.float32)
  segments = jnp.ones((2, 8), jnp.int32)
  batch = {'input_ids': ids, 'labels': ids, 'weights': weights, 'segment_ids': segments}
  models = {'teacher': (spec, teacher_params)}
  forward = Forward(x.model, params, x.run(), models=models)
  found = Distill('', 2.0, 0.7, of).loss(forward, batch, None)
  p, q = (
    np.asarray(transformer.apply(m, w, input_ids=ids)['logits'], np.float64)
    for m, w in ((spec, teacher_params), (x.model, params))
  )
  log = lambda z: z - np.log(np.exp(z).sum(-1, keepdims=True))
  soft = (np.exp(log(p / 2)) * (log(p / 2) - log(q / 2))).sum(-1)
  hard = -np.take_along_axis(log(q), np.asarray(ids)[..., None], -1)[..., 0]
  expected = ((0.7 * 4 * soft + 0.3 * hard) * weights).sum()
  np.testing.assert_allclose(found['loss'].sum, expected, rtol=1e-5)
  np.testing.assert_allclose(found['kl'].sum, (soft * weights).sum(), rtol=1e-4)
  assert found['loss'].weight == weights.sum()


def test_loss_falls_and_a_changed_teacher_is_refused(tmp_path, teacher, capsys):
  x = _experiment(tmp_path, teacher, steps=12, save_every=6, eval_every=12, data__isolate=True)
  optim = dataclasses.replace(x.optim, accumulate=2)
  x = dataclasses.replace(x, optim=optim, task=dataclasses.replace(x.task, weight=1.0))
  run = lambda x: loop.train(x, tmp_path / 'run', devices=jax.devices()[:2], read_model=read_model)
  run(dataclasses.replace(x, steps=6))
  whole = run(x)
  assert 'resumed' in capsys.readouterr().out
  assert {'val_loss', 'val_kl', 'val_loss_nats', 'val_bits_per_byte'} <= whole.scores.keys()
  rows = [
    float(line.partition('"kl": ')[2].partition(',')[0].rstrip('}\n'))
    for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
    if '"kl"' in line
  ]
  assert rows[-1] < 0.9 * rows[0]
  other = tmp_path / 'other'
  save(teacher[1], jax.tree.map(lambda a: a + 1, teacher[2]), other)
  task = dataclasses.replace(x.task, teacher=str(other))
  with pytest.raises(errors.UserError, match=r'task.teacher: has other parameters than for'):
    run(dataclasses.replace(x, task=task, steps=13))


def test_teacher_is_an_argument_of_the_step_and_not_donated(tmp_path, teacher):
  x = constants.described(_experiment(tmp_path, teacher), read_model)
  built = build(x, jax.devices()[:1])
  assert built.constants.keys() == {'teacher'}
  text = built.step.lower(*built.arguments).as_text()
  donated = text.count('tf.aliasing_output') + text.count('jax.buffer_donor')
  assert donated == len(jax.tree.leaves(built.shapes))
  assert not build(dataclasses.replace(x, task=CausalLM(), models={})).constants


def test_fingerprint_changes_with_elements_not_with_sharding():
  x = jnp.arange(16.0).reshape(2, 8)
  mesh = jax.make_mesh((2,), ('a',), devices=jax.devices()[:2])
  rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('a'))
  mark = lambda x: constants.fingerprints({'teacher': {'w': x}})
  assert mark(x) == mark(jax.device_put(x, rows))
  assert mark(x) != mark(x.at[1, 3].add(1e-6))
  assert mark(x) != mark(x[:, ::-1])


def test_messages(tmp_path, teacher):
  x = _experiment(tmp_path, teacher)
  assert 'task.teacher: is empty. distill compares the trained model with this one. Expected the ' \
    'folder of a model.' in dataclasses.replace(x, task=Distill()).check()  # fmt: skip
  assert list(Distill('a', 0.0, 2.0).check()) == [
    'temperature: is 0.0. Expected more than 0.',
    'weight: is 2.0. Expected 0 to 1.',
  ]
  wide = config.override(x, 'model.embed.vocab', '300')
  assert list(x.task.fits_models(wide.model, {'teacher': x.model})) == [
    'task.teacher: has a table of 256 tokens, and the model has 300. Expected models of one '
    'vocabulary.'
  ]
