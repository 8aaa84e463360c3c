"""Greedy decoding adds the tokens that transformers' own `generate` adds with the same weights."""

from oracles import copying, decoders, test_gpt2, test_t5
import pytest

from tfm.generate import generate, prepare
from tfm.generate.prompts import padded

pytestmark = pytest.mark.oracle
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8], [60]]
NEW = 8


def theirs(model, left):
  """The rows that `model.generate` adds to PROMPTS."""
  import torch

  ids, mask = padded(PROMPTS, 6, left=left)
  model.generation_config.eos_token_id = None
  with torch.no_grad():
    rows = model.generate(
      torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), max_new_tokens=NEW, do_sample=False,
      pad_token_id=0,
    )  # fmt: skip
  return rows[:, -NEW:].tolist()


def ours(spec, params, **options):
  return generate(spec, prepare(spec, params), PROMPTS, max_new_tokens=NEW, temperature=0, **options)


@pytest.fixture(autouse=True)
def same_weights_each_time():
  import torch

  torch.manual_seed(0)


def varied(rows):
  return len({token for row in rows for token in row}) > 2


@pytest.mark.parametrize('name', ['llama', 'bloom', 'gemma2'])
def test_decoders_go_on_alike(name):
  import transformers

  case = decoders.CASES[name]()
  config = getattr(transformers, f'{case.theirs}Config')(**case.fields, attn_implementation='eager')
  model = copying.randomized(getattr(transformers, case.model)(config), 0.3)
  expected = theirs(model, left=True)
  assert varied(expected)
  assert ours(case.spec, copying.tree(case.spec, case.flat(copying.Theirs(model.state_dict())))) == expected


def test_gpt2_goes_on_alike():
  import transformers

  config = transformers.GPT2Config(
    vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=16, attn_implementation='eager'
  )
  model = copying.randomized(transformers.GPT2LMHeadModel(config))
  expected = theirs(model, left=True)
  assert varied(expected)
  params = copying.tree(test_gpt2.SPEC, test_gpt2.flat_of(copying.Theirs(model.state_dict())))
  assert ours(test_gpt2.SPEC, params) == expected


def test_t5_goes_on_alike():
  import transformers

  config = transformers.T5Config(
    vocab_size=61, d_model=32, d_kv=6, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
    feed_forward_proj='relu', attn_implementation='eager', decoder_start_token_id=0,
  )  # fmt: skip
  model = copying.randomized(transformers.T5ForConditionalGeneration(config), 0.3)
  expected = theirs(model, left=False)
  assert varied(expected)
  params = copying.tree(test_t5.SPECS['v1.0'], test_t5.flat_for('v1.0', model.state_dict()))
  assert ours(test_t5.SPECS['v1.0'], params, decoder_start=0) == expected
