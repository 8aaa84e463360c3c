"""The balance loss of a mixture of experts matches transformers.

Other outputs are compared in tests/hub.
"""

import jax
import numpy as np
import pytest

from tests.oracles import copying
from tfm import hub
from tfm.core import config as config_lib
from tfm.model import transformer

pytestmark = pytest.mark.oracle


def test_balance_loss_matches_transformers_over_k(tmp_path):
  import torch
  import transformers

  config = transformers.MixtralConfig(
    vocab_size=61, hidden_size=32, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=24, num_local_experts=8, max_position_embeddings=64,
    attn_implementation='eager',
  )  # fmt: skip
  model = copying.randomized(transformers.MixtralForCausalLM(config), 0.1)
  model.save_pretrained(tmp_path / 'theirs')
  spec, params, *_ = hub.load(tmp_path / 'theirs')
  spec = config_lib.override(config_lib.override(spec, '..router.balance', '1'), '..router.z', '0')
  ids, mask = copying.tokens(2, 12), np.ones((2, 12), int)
  mask[1, 9:] = 0
  with torch.no_grad():
    theirs = model(
      torch.tensor(ids), attention_mask=torch.tensor(mask), output_router_logits=True
    ).aux_loss.item()
  inputs = {'input_ids': ids.astype(np.int32), 'attention_mask': mask.astype(np.int32)}
  ours = jax.jit(lambda p: transformer.apply(spec, p, **inputs)['aux'])
  assert float(ours(params)) == pytest.approx(theirs / 2, rel=1e-5)
