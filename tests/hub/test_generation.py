"""Generation settings of a folder become options of `generate`, as in transformers."""

import json
import math

import numpy as np
import pytest

import tfm
from tfm import hub
from tfm.core import errors


def test_generation_config_overrides_config(tmp_path):
  (tmp_path / 'config.json').write_text(
    json.dumps(
      {'eos_token_id': 1, 'forced_eos_token_id': 2, 'decoder_start_token_id': 5, 'max_length': 20}
    )
  )
  assert hub.generation_options(tmp_path) == {'eos': 1, 'forced_last': 2, 'decoder_start': 5}
  (tmp_path / 'generation_config.json').write_text(
    json.dumps(
      {
        'eos_token_id': [3, 4],
        'forced_bos_token_id': 6,
        'bad_words_ids': [[7], [8, 9]],
        'suppress_tokens': [2],
      }
    )
  )
  assert hub.generation_options(tmp_path) == {
    'eos': [3, 4], 'forced_first': 6, 'forced_last': 2, 'decoder_start': 5,
    'logit_bias': {2: -math.inf, 7: -math.inf},
  }  # fmt: skip
  (tmp_path / 'generation_config.json').write_text('[')
  with pytest.raises(errors.UserError, match=r'generation_config\.json: is not JSON'):
    hub.generation_options(tmp_path)


@pytest.mark.oracle
def test_translation_matches_transformers(tmp_path):
  import torch
  import transformers

  torch.manual_seed(0)
  sizes = {
    f'{s}_{n}': v
    for s in ('encoder', 'decoder')
    for n, v in (('layers', 2), ('attention_heads', 4), ('ffn_dim', 48))
  }
  config = transformers.MarianConfig(
    vocab_size=61, d_model=32, max_position_embeddings=32, pad_token_id=60, eos_token_id=0,
    decoder_start_token_id=60, forced_eos_token_id=0, attn_implementation='eager', **sizes,
  )  # fmt: skip
  model = transformers.MarianMTModel(config).eval()
  with torch.no_grad():
    model.final_logits_bias.normal_()
    model.final_logits_bias[0, 60] = 9.0  # The padding token is suppressed.
  model.generation_config.bad_words_ids, model.generation_config.num_beams = [[60]], 1
  model.save_pretrained(tmp_path / 'marian')
  source = np.array([[5, 9, 2, 7]])
  theirs = model.generate(torch.tensor(source), max_new_tokens=6, do_sample=False)[0, 1:].tolist()
  m = tfm.load(tmp_path / 'marian')
  options = hub.generation_options(tmp_path / 'marian')
  ours = tfm.generate(m.spec, m.params, source.tolist(), max_new_tokens=6, temperature=0, **options)
  assert ours == [theirs]
  assert theirs[-1] == 0
  assert 60 not in theirs
