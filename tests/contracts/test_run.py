"""A run's choices change no numbers: what is kept for the backward pass, how repeats run, and the kernel."""

import jax
import numpy as np
import pytest

from contracts import cases, harness
from tfm import zoo
from tfm.core import config, errors
from tfm.model.remat import POLICIES, remat
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.context import Run
from tfm.parts.mask import Prefix

SPECS = {'decoder': zoo.tiny(zoo.get('llama2-70b')), 'encoder-decoder': zoo.tiny(zoo.get('t5-v1.1-small'))}


@pytest.mark.parametrize('name', SPECS)
@pytest.mark.parametrize('policy', POLICIES)
def test_a_remat_policy_changes_neither_logits_nor_gradients(name, policy):
  spec = SPECS[name]
  logits, grads = harness.gradient(spec, Run(remat=policy))
  plain_logits, plain = harness.gradient(spec, Run(loop='unroll'))
  np.testing.assert_allclose(logits, plain_logits, atol=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4), grads, plain)


@pytest.mark.parametrize('model', SPECS)
@pytest.mark.parametrize('name', cases.runs())
def test_every_attention_kernel_gives_the_same_numbers(name, model):
  dense = harness.rows(SPECS[model], Run(attend=DenseAttention()))
  np.testing.assert_allclose(harness.rows(SPECS[model], cases.runs()[name]), dense, atol=1e-5)


MASKS = {
  'local and global': cases.variants()['pattern=local-global'],
  'prefix': cases.mixing(mask=Prefix()),
  'encoder-decoder': SPECS['encoder-decoder'],
}


@pytest.mark.parametrize('name', MASKS)
@pytest.mark.parametrize('kind', cases.cached())
def test_a_prompt_and_then_a_token_at_a_time_equals_the_whole_row_through_every_cache(name, kind):
  spec, run = MASKS[name], cases.cached()[kind]
  close = {'atol': 1e-5, 'rtol': 1e-5} if run.cache.exact else {'atol': 0.1}
  rows, stepped, pad = harness.rows(spec), harness.stepped(spec, run), harness.T - harness.LONG
  np.testing.assert_allclose(stepped[:2], rows[:2], **close)
  np.testing.assert_allclose(stepped[2, pad:], rows[2, pad:], **close, err_msg='behind padding')


def test_an_unknown_policy_and_an_unknown_loop_are_refused():
  with pytest.raises(errors.ConfigError, match=r"unknown remat policy 'ful'\. Did you mean 'full'"):
    remat(lambda x: x, 'ful')
  with pytest.raises(errors.ConfigError, match=r"loop='scanned' is not one of scan, unroll"):
    config.validate(Run(loop='scanned'))
