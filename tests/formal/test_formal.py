"""Models of tfm equal the formal algorithms in float64, in training and inference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.formal import models
import tfm
from tfm import formal
from tfm.formal.inference import sample
from tfm.optim import SGD
from tfm.optim.schedule import Constant
from tfm.tasks import CausalLM, MaskedLM, SpanCorruption
from tfm.train import Experiment
from tfm.train.step import make_start, make_step

X = np.array([3, 1, 4, 1, 5])
Z = np.array([2, 7, 1, 8, 2, 8])
ATOL = 1e-12


@pytest.fixture(autouse=True)
def double_precision():
  with jax.enable_x64(True):
    yield


def assert_equal(one, other):
  np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=0, atol=ATOL)


def test_attention_of_one_query_equals_a_column_of_attention():
  """Algorithm 3 for each token gives the columns of algorithm 4 with a mask of ones."""
  W = models.theta_of(models.DECODER, models.params_of(models.DECODER)).layers[0].attention.heads[0]
  E = jax.random.normal(jax.random.key(0), (models.WIDTH, 5))
  columns = [formal.BasicAttention(E[:, t], E, W) for t in range(5)]
  assert_equal(jnp.stack(columns, 1), formal.Attention(E, E, W, formal.ones(E, E)))


def test_elements():
  """Algorithms 1, 2, 6 and 7."""
  W = jax.random.normal(jax.random.key(0), (4, 6))
  assert_equal(formal.token_embedding(2, W), W[:, 2])
  assert_equal(formal.position_embedding(3, W), W[:, 3])
  e = formal.layer_norm(W[:, 0], jnp.full(4, 2.0), jnp.full(4, 5.0))
  assert_equal([jnp.mean(e), jnp.std(e)], [5, 2])
  assert_equal(jnp.sum(formal.unembedding(W[:, :3], W.T), 0), np.ones(3))


@pytest.mark.parametrize(
  ('spec', 'algorithm', 'inputs'),
  [
    (models.ENCODER_DECODER, formal.EDTransformer, {'input_ids': Z, 'decoder_input_ids': X}),
    (models.ENCODER, formal.ETransformer, {'input_ids': X}),
    (models.DECODER, formal.DTransformer, {'input_ids': X}),
    (
      models.PRE_NORM_ENCODER_DECODER,
      formal.pre_norm_transformer,
      {'input_ids': Z, 'decoder_input_ids': X},
    ),
  ],
  ids=['algorithm=8', 'algorithm=9', 'algorithm=10', 'algorithm=pre_norm'],
)
def test_model_equals_architecture(spec, algorithm, inputs):
  params = shared_positions(spec, models.params_of(spec))
  P = algorithm(*inputs.values(), models.theta_of(spec, params))
  assert_equal(P, models.probabilities(spec, params, **inputs))


def shared_positions(spec, params):
  """Return parameters with one position table for both sequences, as in the paper."""
  if spec.encoder is None:
    return params
  return params | {'encoder': params['encoder'] | {'absolute': params['absolute']}}


ETA = 0.125


def trained(spec, task, params, batches):
  """Return parameters after one step of gradient descent on the sum of each batch's loss."""
  for batch in batches:
    # The loss of tfm is a mean over tokens, that of the paper a sum.
    optim = SGD(lr=ETA * int(batch['weights'].sum()), schedule=Constant(), momentum=None, clip=None)
    x = Experiment(model=spec, task=task, optim=optim, precision=models.PRECISION)
    tx = optim.make(1, tfm.model.transformer.param_letters(spec))
    state = make_start(x, tx)(params)
    params = jax.jit(make_step(x, tx))(state, {k: v[None] for k, v in batch.items()})[0]['params']
  return params


def test_training_an_encoder_decoder():
  """Algorithm 11."""
  spec = models.ENCODER_DECODER
  params = shared_positions(spec, models.params_of(spec))
  theta = formal.EDTraining([(Z, X)], models.theta_of(spec, params), 1, ETA)
  ones = lambda ids: np.ones(len(ids), np.int32)
  batch = {
    'input_ids': Z,
    'segment_ids': ones(Z),
    'decoder_input_ids': X[:-1],
    'decoder_segment_ids': ones(X[:-1]),
    'labels': X[1:],
    'weights': ones(X[1:]),
  }
  new = trained(spec, SpanCorruption(), params, [batch])
  # Its two position tables start equal and have separate gradients, which the paper adds.
  both = new['absolute']['table'] + new['encoder']['absolute']['table']
  new['absolute'] = {'table': both - params['absolute']['table']}
  jax.tree.map(assert_equal, theta, models.theta_of(spec, new))


def test_training_an_encoder():
  """Algorithm 12, with the masked tokens that its key draws."""
  spec, mask_token, p_mask, key = models.ENCODER, 10, 0.5, jax.random.key(3)
  params = models.params_of(spec)
  theta = models.theta_of(spec, params)
  new = formal.ETraining([X], theta, 1, ETA, p_mask, mask_token, key)
  masked = np.asarray(jax.random.uniform(jax.random.split(key)[1], (len(X),)) < p_mask)
  assert masked.sum() in (1, 2, 4), 'the mean of the loss is exact for these numbers'
  batch = {
    'input_ids': np.where(masked, mask_token, X),
    'segment_ids': np.ones(len(X), np.int32),
    'labels': X,
    'weights': masked.astype(np.float32),
  }
  expected = models.theta_of(spec, trained(spec, MaskedLM(), params, [batch]))
  jax.tree.map(assert_equal, new, expected)


def test_training_without_masked_tokens_changes_nothing():
  theta = models.theta_of(models.ENCODER, models.params_of(models.ENCODER))
  new = formal.ETraining([X], theta, 1, ETA, 0.0, 10, jax.random.key(0))
  jax.tree.map(assert_equal, new, theta)


def test_training_a_decoder():
  """Algorithm 13, two passes over two sequences."""
  spec = models.DECODER
  params, sequences = models.params_of(spec), [X, np.array([9, 2, 6, 5, 3])]
  theta = formal.DTraining(sequences, models.theta_of(spec, params), 2, ETA)
  batches = []
  for x in sequences * 2:
    batches.append({'input_ids': x[:-1], 'labels': x[1:], 'weights': np.ones(4, np.float32)})
  new = trained(spec, CausalLM(), params, batches)
  jax.tree.map(assert_equal, theta, models.theta_of(spec, new))


def test_generation_from_a_decoder():
  """Algorithm 14 at temperature 0 is greedy decoding."""
  spec = models.DECODER
  params = models.params_of(spec)
  ids = formal.DInference(X, models.theta_of(spec, params), 4, 0.0, jax.random.key(0))
  out = tfm.generate(spec, params, X[None], max_new_tokens=4, temperature=0, run=models.RUN)
  np.testing.assert_array_equal(ids, np.asarray(out)[0, -4:])


def test_generation_from_an_encoder_decoder():
  """Algorithm 15 at temperature 0, up to the end token and up to the largest length."""
  spec = models.ENCODER_DECODER
  params = shared_positions(spec, models.params_of(spec))
  theta = models.theta_of(spec, params)
  unlimited = formal.EDInference(Z, theta, 0.0, 0, models.VOCAB, 6, jax.random.key(0))
  end = int(unlimited[3])
  stopped = formal.EDInference(Z, theta, 0.0, 0, end, 6, jax.random.key(0))
  first = int(np.flatnonzero(np.asarray(unlimited)[1:] == end)[0]) + 1
  np.testing.assert_array_equal(stopped, unlimited[: first + 1])
  out = tfm.generate(
    spec, params, Z[None], max_new_tokens=5, temperature=0, run=models.RUN, decoder_start=0
  )
  np.testing.assert_array_equal(unlimited[1:], np.asarray(out)[0, -5:])


def test_sampling_follows_the_sharpened_distribution():
  """Line 5 of algorithm 14: q is proportional to p ** (1 / tau)."""
  p, tau = jnp.array([0.5, 0.3, 0.2]), 0.5
  keys = jax.random.split(jax.random.key(0), 2000)
  drawn = np.bincount([sample(p, tau, key) for key in keys[:500]], minlength=3) / 500
  q = p ** (1 / tau) / jnp.sum(p ** (1 / tau))
  assert np.abs(drawn - q).max() < 4 * 0.5 / np.sqrt(500)
