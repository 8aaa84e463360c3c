"""A decoder as a classifier reads its last token, which alone depends on the whole row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.data.published import byte_pairs, word_pieces
from tfm import hub, zoo
from tfm.cli import configfile
from tfm.core import config
from tfm.core.errors import ConfigError
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import apply, init
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head import classify
from tfm.parts.mask import Mask
from tfm.parts.mixer import Attention
from tfm.train import loop


def model(pick, *mixers):
  """Return a small classifier, causal by default."""
  blocks = tuple(Block(mixer) for mixer in mixers or (Attention(2),))
  return Model(Tokens(16), 16, (Segment(blocks),), heads={'classify': classify.Classify(2, pick)})


def folder_of(path, name, inner):
  """Return a published folder of a tiny model with a tokenizer."""
  spec = zoo.tiny(zoo.get(name))
  spec = dataclasses.replace(
    spec, embed=dataclasses.replace(spec.embed, vocab=inner.get_vocab_size())
  )
  hub.export_hf(spec, init(spec, jax.random.key(0)), path)
  inner.save(str(path / 'tokenizer.json'))
  return path


@pytest.mark.parametrize('pick', ['first', 'second'])
def test_causal_body_with_an_early_pick_is_refused(pick):
  message = (
    rf'heads\.classify: pick={pick} uses a token that cannot attend to the rest .*Expected '
    r'pick=last'
  )
  with pytest.raises(ConfigError, match=message):
    config.validate(model(pick))


def test_picks_that_read_the_whole_sequence_are_allowed():
  full = Attention(2, mask=Mask())
  for spec in (
    model('last'),
    model('mean'),
    model('first', full),
    model('first', Attention(2), full),
  ):
    config.validate(spec)


@pytest.mark.parametrize('side', ['left', 'right'])
def test_last_real_token_is_pooled(side):
  spec = model('last')
  params = init(spec, jax.random.key(1))
  ids = jnp.arange(1, 6)[None]
  alone = apply(spec, params, input_ids=ids)['logits']
  widths = ((0, 0), (3, 0) if side == 'left' else (0, 3))
  padded, mask = jnp.pad(ids, widths), jnp.pad(jnp.ones_like(ids), widths)
  found = apply(spec, params, input_ids=padded, attention_mask=mask)['logits']
  np.testing.assert_allclose(found, alone, atol=1e-5)
  assert np.abs(apply(spec, params, input_ids=ids[:, :-1])['logits'] - alone).max() > 1e-4


def test_config_picks_the_first_token_of_an_encoder(tmp_path):
  folder = folder_of(tmp_path / 'bert', 'bert-base', word_pieces())
  assert configfile.load(f'classify:{folder}').model.classifier.pick == 'first'


def test_config_learns_with_a_decoder(tmp_path):
  folder = folder_of(tmp_path / 'llama', 'llama3.2-1b', byte_pairs('<|endoftext|>'))
  for name, words in (('a', 'alpha beta gamma '), ('b', 'one two three ')):
    (tmp_path / 'text' / name).mkdir(parents=True)
    for i in range(6):
      (tmp_path / 'text' / name / f'{i}.txt').write_text(words * (20 + i))
  x = configfile.load(f'classify:{folder}')
  assert x.model.classifier.pick == 'last'
  changes = {
    'data.root': tmp_path / 'text', 'data.classes': 'a,b', 'data.pattern': '*.txt', 'data.batch': 4,
    'data.length': 32,
    'data.cache': tmp_path / 'cache', 'model.heads.classify.labels': 2, 'steps': 20,
    'save_every': 20,
    'optim.lr': 1e-2, 'optim.schedule.warmup': 1,
  }  # fmt: skip
  for path, value in changes.items():
    x = config.override(x, path, str(value))
  trained = loop.train(x, tmp_path / 'run', devices=jax.devices()[:1], warm_start=hub.warm_start)
  assert trained.scores['val_accuracy'] == 1
