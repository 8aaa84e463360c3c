"""xIELU, an activation with two learned slopes."""

import jax
import numpy as np

from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import init
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.xielu import Xielu


def test_xielu_slopes_start_at_the_published_value():
  spec = Model(Tokens(8), 16, (Segment((Block(ffn=Xielu(24)),), 2),))
  ffn = init(spec, jax.random.key(0))['segment_0']['block_0']['ffn']
  assert ffn['alpha_p'].shape == (2,)
  np.testing.assert_allclose(jax.nn.softplus(ffn['alpha_p']), 0.8, rtol=1e-6)
  np.testing.assert_allclose(0.5 + jax.nn.softplus(ffn['alpha_n']), 0.8, rtol=1e-6)


def test_xielu_flops_match_two_projections():
  assert Xielu(24).flops(16) == 2 * 2 * 16 * 24
