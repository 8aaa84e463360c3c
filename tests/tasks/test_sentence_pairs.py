import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.data import Pairs
from tfm.data.tokenizer import Byte
from tfm.model import transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.project import Project
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.tasks import SentencePairs, mean
from tfm.train.forward import Forward


def _given(*vectors):
  """A forward function that returns the vectors one after the other."""
  left = list(vectors)
  return lambda **inputs: {'embeds': jnp.asarray(left.pop(0))}


def _batch(weights):
  ids = jnp.zeros((len(weights), 4), int)
  return {'input_ids': ids, 'attention_mask': ids, 'weights': jnp.asarray(weights, float)}


@pytest.mark.parametrize('symmetric', [False, True])
def test_loss_chooses_the_pair_by_cosine(symmetric):
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, 5, 3))
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  logits = unit(a) @ unit(b).T / 0.1
  nats = lambda z: np.log(np.exp(z).sum(1)) - np.diagonal(z)
  expected = nats(logits).mean()
  if symmetric:
    expected = (expected + nats(logits.T).mean()) / 2
  task = SentencePairs(temperature=0.1, symmetric=symmetric)
  ratios = task.loss(_given(a, b), _batch([1] * 5), None)
  assert float(mean(*ratios['loss'])) == pytest.approx(expected, rel=1e-5)
  right = (logits.argmax(1) == np.arange(5)).mean()
  assert float(mean(*ratios['accuracy'])) == pytest.approx(right)
  # Padding is neither matched nor a negative.
  padded = [np.concatenate([x, rng.normal(size=(2, 3))]) for x in (a, b)]
  again = task.loss(_given(*padded), _batch([1] * 5 + [0, 0]), None)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), again, ratios)


def test_equal_embeddings_lose_ln_of_the_batch():
  ratios = SentencePairs().loss(_given(np.ones((8, 3)), np.ones((8, 3))), _batch([1] * 8), None)
  assert float(mean(*ratios['loss'])) == pytest.approx(np.log(8))


def test_equal_texts_differ_only_by_dropout(data):
  block = Block(Attention(2, mask=Mask()), dropout=0.1)
  heads = {'embeds': Project(None, 'mean')}
  spec = Model(Tokens(258), 16, (Segment((block,)),), heads=heads)
  task = SentencePairs()
  data = dataclasses.replace(data, tokenizer=Byte(), length=16, batch=4)
  corpus = data.open(task)
  assert not [*task.fits(spec), *task.fits_data(data), *task.suits(spec, corpus)]
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert {n: (a.shape, a.dtype) for n, a in batch.items()} == {
    n: (s.shape, s.dtype) for n, s in task.shapes(spec, data).items()
  }
  assert (batch['input_ids'][:, 0] == corpus.vocabulary.special('cls')).all()
  params = transformer.init(spec, jax.random.key(0))
  seen = []

  def loss(params, key):
    forward = Forward(spec, params, Run(), key)

    def kept(**inputs):
      out = forward(**inputs)
      seen.append(inputs['input_ids'])
      return out

    return mean(*task.loss(kept, jax.tree.map(jnp.asarray, batch), key)['loss'])

  value, grads = jax.value_and_grad(loss)(params, jax.random.key(1))
  np.testing.assert_array_equal(*seen)
  assert 0 < value < 5
  assert any(g.any() for g in jax.tree.leaves(grads))
  assert loss(params, None) < value


def test_pairs_become_two_inputs(data):
  task = SentencePairs()
  tokens = np.array([[5, 6, 7], [8, 9, 0], [0, 0, 0]], np.int32)
  raw = {
    'tokens': tokens, 'segments': np.minimum(tokens, 1),
    'target_tokens': tokens[:, :2] + 10, 'target_segments': np.minimum(tokens[:, :2], 1),
  }  # fmt: skip
  out = task.features(raw, None)
  assert out['weights'].tolist() == [1, 1, 0]
  assert out['second_input_ids'].tolist() == [[15, 16], [18, 19], [0, 0]]
  assert set(task.inputs(out)) == {'input_ids', 'attention_mask'}
  calls = []

  def forward(**inputs):
    calls.append(inputs['input_ids'].shape)
    return {'embeds': jnp.ones((3, 4))}

  task.loss(forward, jax.tree.map(jnp.asarray, out), None)
  assert calls == [(3, 3), (3, 2)]
  frame = task.frames(data.open(task).vocabulary.with_specials(('cls', 'eos')))
  assert [len(ids) for side in frame for ids in side] == [1, 1, 1, 1]


def test_pairs_of_a_file_have_special_tokens(data, tmp_path):
  (tmp_path / 'pairs.tsv').write_text('\n'.join(f'a{i}\tbb{i}' for i in range(40)))
  pairs = Pairs(
    files=str(tmp_path / 'pairs.tsv'), tokenizer=Byte(), length=8, target_length=9, batch=4,
    cache=str(tmp_path),
  )  # fmt: skip
  task = SentencePairs()
  assert not list(task.fits_data(pairs))
  corpus = pairs.open(task)
  batch = task.features(corpus.batch('train', 0, 0), corpus)
  assert {n: (a.shape, a.dtype) for n, a in batch.items()} == {
    n: (s.shape, s.dtype) for n, s in task.shapes(None, pairs).items()
  }
  vocabulary = corpus.vocabulary
  for first, second in zip(batch['input_ids'], batch['second_input_ids'], strict=True):
    assert first[0] == second[0] == vocabulary.special('cls')
    a, b = (vocabulary.decode(ids[ids > 0]) for ids in (first, second))
    assert b == f'bb{a[1:]}'


def test_sentence_pairs_need_an_embedding_and_single_texts(data):
  output, tower = SentencePairs().fits(Model().with_towers(encoder=Model()))
  assert "no head returns 'embeds'" in output
  assert 'needs a single tower' in tower
  isolate, short = SentencePairs().fits_data(dataclasses.replace(data, isolate=True, length=2))
  assert 'each sequence has one embedding' in isolate
  assert 'do not fit a text and its special tokens' in short
  assert list(SentencePairs(temperature=0.0).check()) == [
    'temperature: is 0.0. Expected a positive number.'
  ]
