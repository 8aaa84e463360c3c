"""Decoders of many families give the logits of transformers with the same weights."""

import numpy as np
import pytest

from oracles import copying, decoders

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize('name', decoders.CASES)
def test_logits_are_the_same(name):
  import torch
  import transformers

  case = decoders.CASES[name]()
  config = getattr(transformers, f'{case.theirs}Config')(**case.fields, attn_implementation='eager')
  model = copying.randomized(getattr(transformers, case.model)(config), 0.1)
  params = copying.tree(case.spec, case.flat(copying.Theirs(model.state_dict())))
  ids = copying.tokens(2, 12)
  mask = np.ones((2, 12), int)
  mask[1, 9:] = 0
  with torch.no_grad():
    theirs = model(torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
  ours = copying.logits(case.spec, params, input_ids=ids, attention_mask=mask)
  np.testing.assert_allclose(ours[mask > 0], theirs[mask > 0], atol=2e-5, rtol=2e-5)
