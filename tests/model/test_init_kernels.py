"""Initial parameters do not depend on the attention kernel of the run."""

import jax
import numpy as np
import pytest

from tfm.core import config
from tfm.model.spec import Block, Model, Segment
from tfm.model.transformer import init
from tfm.parts.attend import Blockwise
from tfm.parts.context import Run
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention


@pytest.mark.parametrize('relative', ['t5', 'toeplitz', 'shaw', 'tupe'])
def test_blockwise_run_has_the_same_initial_parameters(relative):
  spec = config.override(
    Model(Tokens(16), 16, (Segment((Block(Attention(2), Glu(16)),)),)), '..relative', relative
  )
  start = lambda run: init(spec, jax.random.key(0), run)
  jax.tree.map(np.testing.assert_array_equal, start(Run(attend=Blockwise(8, 8))), start(Run()))
