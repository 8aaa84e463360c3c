"""Greedy decoding and beam search give the same tokens as `generate` of transformers."""

import functools
import json
import math
import pathlib
import tempfile

import pytest

from tests.oracles import copying, decoders, small_gpt2
from tfm import hub
from tfm.generate import generate, prepare
from tfm.generate.prompts import padded

pytestmark = pytest.mark.oracle
PROMPTS = [[5, 9, 2], [7, 1, 1, 30, 22, 8], [60]]
NEW = 10


def decoder(name):
  import transformers

  case = decoders.CASES[name]()
  fields = getattr(transformers, f'{case.theirs}Config')(**case.fields, attn_implementation='eager')
  model = copying.randomized(getattr(transformers, case.model)(fields), 0.3)
  return model, case.spec, copying.tree(case.spec, case.flat(copying.Theirs(model.state_dict())))


def gpt2():
  import transformers

  fields = transformers.GPT2Config(
    vocab_size=61, n_embd=32, n_layer=2, n_head=4, n_positions=16, attn_implementation='eager'
  )
  model = copying.randomized(transformers.GPT2LMHeadModel(fields))
  flat = small_gpt2.flat_of(copying.Theirs(model.state_dict()))
  return model, small_gpt2.SPEC, copying.tree(small_gpt2.SPEC, flat)


def read(model, **changes):
  """Return the model, and tfm's spec and parameters of it, with config fields changed."""
  with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    path = pathlib.Path(folder) / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    spec, params, *_ = hub.load(folder)
  return model, spec, params


def untied(model):
  """Return the model with separate output weights; with tied ones it repeats tokens."""
  import torch

  model.lm_head.weight = torch.nn.Parameter(torch.randn(61, 32))
  return model


def t5():
  import transformers

  fields = transformers.T5Config(
    vocab_size=61, d_model=32, d_kv=64, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0,
    feed_forward_proj='gated-gelu', tie_word_embeddings=False, attn_implementation='eager',
    decoder_start_token_id=0,
  )  # fmt: skip
  model = untied(copying.randomized(transformers.T5ForConditionalGeneration(fields), 0.3))
  return read(model, tie_word_embeddings=False)


_BART = {
  'vocab_size': 61, 'd_model': 32, 'encoder_layers': 2, 'decoder_layers': 2,
  'encoder_attention_heads': 4,
  'decoder_attention_heads': 4, 'encoder_ffn_dim': 48, 'decoder_ffn_dim': 48,
  'max_position_embeddings': 32,
  'pad_token_id': 0, 'bos_token_id': 1, 'eos_token_id': 2, 'decoder_start_token_id': 0,
  'forced_eos_token_id': None,
  'attn_implementation': 'eager',
}  # fmt: skip


def bart():
  import torch
  import transformers

  model = copying.randomized(
    transformers.BartForConditionalGeneration(transformers.BartConfig(**_BART)), 0.1
  )
  with torch.no_grad():
    model.final_logits_bias.normal_()
    # Otherwise the model repeats tokens.
    model.model.decoder.embed_positions.weight *= 10
    for layer in model.model.decoder.layers:
      layer.fc2.weight *= 10
  return read(model)


def marian():
  import torch
  import transformers

  fields = {
    **_BART,
    'share_encoder_decoder_embeddings': False,
    'tie_word_embeddings': False,
    'scale_embedding': True,
  }
  model = transformers.MarianMTModel(transformers.MarianConfig(**fields))
  fixed = {n: p.clone() for n, p in model.named_parameters() if 'embed_positions' in n}
  model = untied(copying.randomized(model, 0.1))
  with torch.no_grad():
    for name, p in model.named_parameters():
      p.copy_(fixed.get(name, p))
  return read(model)


CASES = {
  'llama': functools.partial(decoder, 'llama'),
  'bloom': functools.partial(decoder, 'bloom'),
  'gemma2': functools.partial(decoder, 'gemma2'),
  'gpt2': gpt2,
  't5': t5,
  'bart': bart,
  'marian': marian,
}


@pytest.fixture(scope='module', params=CASES)
def case(request):
  import torch

  torch.manual_seed(0)
  model, spec, params = CASES[request.param]()
  return model, spec, prepare(spec, params)


def theirs(model, spec, prompts=PROMPTS, **options):
  """Return the new tokens of `model.generate`, up to the first `eos`."""
  import torch

  left, width = spec.encoder is None, max(map(len, prompts))
  ids, mask = padded(prompts, width, left=left)
  eos = options.pop('eos', ())
  model.generation_config.eos_token_id = list(eos) or None
  with torch.no_grad():
    rows = model.generate(
      torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), max_new_tokens=NEW,
      do_sample=False,
      pad_token_id=0, **options,
    )  # fmt: skip
  return [up_to_eos(row, eos) for row in rows[:, width if left else 1 :].tolist()]


def up_to_eos(row, eos):
  ends = [t for t, token in enumerate(row, 1) if token in eos]
  return row[: min(ends, default=NEW)]


def ours(spec, params, prompts=PROMPTS, **options):
  start = {} if spec.encoder is None else {'decoder_start': 0}
  return generate(spec, params, prompts, max_new_tokens=NEW, temperature=0, **start, **options)


@pytest.mark.large(when=lambda case: case in ('bloom', 'gpt2', 'marian'))
def test_greedy_tokens_equal_transformers(case):
  model, spec, params = case
  expected = theirs(model, spec)
  assert len({token for row in expected for token in row}) > 2
  assert ours(spec, params) == expected


@pytest.mark.large(when=lambda case: case in ('bloom', 'gpt2', 'marian'))
def test_eos_and_penalties_equal_transformers(case):
  model, spec, params = case
  free = theirs(model, spec)
  eos = (free[0][4], free[1][2])
  expected = theirs(model, spec, eos=eos)
  assert len(set(map(len, expected))) > 1
  assert ours(spec, params, eos=eos) == expected
  # The penalties of transformers count padding as prompt tokens, so its prompts are not batched.
  both = {'repetition_penalty': 1.4, 'min_new_tokens': 2}
  alone = [theirs(model, spec, [p], eos=eos, no_repeat_ngram_size=2, **both)[0] for p in PROMPTS]
  assert ours(spec, params, eos=eos, no_repeat_ngram=2, **both) == alone


@pytest.mark.large(when=lambda case: case == 'marian')
@pytest.mark.parametrize('case', ['t5', 'bart', 'marian'], indirect=True)
def test_forced_and_forbidden_tokens_equal_transformers(case):
  model, spec, params = case
  start = theirs(model, spec)[0][0]
  expected = theirs(
    model,
    spec,
    eos=(9,),
    forced_bos_token_id=7,
    forced_eos_token_id=9,
    bad_words_ids=[[0], [start]],
  )
  assert all(row[0] == 7 and row[-1] == 9 for row in expected)
  options = {'forced_first': 7, 'forced_last': 9, 'logit_bias': {0: -math.inf, start: -math.inf}}
  assert ours(spec, params, eos=9, **options) == expected


@pytest.mark.large(when=lambda case: case in ('bloom', 'gpt2', 'marian', 'llama', 'bart'))
def test_best_beam_equals_transformers(case):
  model, spec, params = case
  eos = theirs(model, spec)[0][3:5]
  for early_stopping, length_penalty in ((False, 1.0), (False, -1.0), (True, 0.0), ('never', 2.0)):
    options = {'length_penalty': length_penalty, 'early_stopping': early_stopping, 'eos': eos}
    assert ours(spec, params, beams=3, **options) == theirs(model, spec, num_beams=3, **options)
  # Without eos, all beams have the same length.
  free = theirs(model, spec, num_beams=3)
  assert ours(spec, params, beams=3) == free != theirs(model, spec)


PIECES = [a + b for a in 'abcdef' for b in ('', 'a', 'ba', 'cc', 'd', 'dab', 'e', 'fh', 'gh', 'i')]


class Pieces:
  """A vocabulary of one to four letters per id; 60 is empty."""

  def decode(self, ids):
    return ''.join([*PIECES, ''][i] for i in ids)


def pieces():
  """Return the same vocabulary as a tokenizer of transformers."""
  import tokenizers
  import transformers

  vocab = {piece: i for i, piece in enumerate([*PIECES, '<x>'])}
  own = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token='<x>'))
  own.pre_tokenizer = tokenizers.pre_tokenizers.Split('', 'isolated')
  own.decoder = tokenizers.decoders.Fuse()
  return transformers.PreTrainedTokenizerFast(tokenizer_object=own, unk_token='<x>')


@pytest.mark.large(when=lambda case: case in ('bloom', 'gpt2', 'marian', 'llama', 'bart'))
def test_beams_with_stop_texts_equal_transformers(case):
  model, spec, params = case
  tokenizer, ended = pieces(), False
  for beams, length_penalty in ((3, 1.0), (2, -1.0)):
    free = ours(spec, params, beams=beams, length_penalty=length_penalty)
    # Substrings of probable texts that start and end inside tokens.
    stops = [Pieces().decode(free[0])[4:7], Pieces().decode(free[1])[6:8]]
    options = {'length_penalty': length_penalty, 'early_stopping': False}
    found = ours(spec, params, beams=beams, stop=stops, tokenizer=Pieces(), **options)
    # transformers pads finished sequences with a valid id, so its prompts are not batched.
    for prompt, row in zip(PROMPTS, found, strict=True):
      texts = {'stop_strings': stops, 'tokenizer': tokenizer, 'num_beams': beams}
      expected = theirs(model, spec, [prompt], **texts, **options)[0]
      assert row == expected
      ended |= len(row) < NEW
  assert ended
