"""Pre-norm FlauBERT, which transformers 5.23 runs only without a cache."""

import numpy as np
import pytest

from tests.hub import encoders_kin, published
from tests.hub.published import Case
from tests.oracles import copying

pytestmark = pytest.mark.oracle


def test_pre_norm_layers_match_transformers(tmp_path, monkeypatch):
  import transformers

  # The forward pass of transformers indexes a cache without indexing support.
  monkeypatch.setattr(
    transformers.EncoderDecoderCache, '__getitem__', lambda self, layer: None, raising=False
  )
  fields = {**encoders_kin.XLM, 'pre_norm': True}
  case = Case('FlaubertConfig', 'FlaubertWithLMHeadModel', fields, whole=True)
  both = published.build(case, tmp_path)
  theirs, their_grads = both.reference
  ours, grads = published.our_outputs(both, tuple(theirs))
  for name, value in theirs.items():
    size = max(1.0, np.abs(value).max())
    np.testing.assert_allclose(
      ours[name][both.real], value[both.real], atol=case.atol * size, rtol=0, err_msg=name
    )
  copying.assert_same_gradients(grads, published.as_ours(both, their_grads))
