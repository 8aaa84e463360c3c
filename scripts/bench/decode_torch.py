"""Rivals of `decode.py` that take the weights of `transformers`: PyTorch and CTranslate2."""

from collections.abc import Callable
import tempfile
import types
from typing import Any

import numpy as np

TORCH = ('torch', 'static')
CTRANSLATE2 = ('ct2', 'ct2-int8')


def model(positions: int) -> Any:
  """Return GPT-2 small of `transformers` with the random weights of a seed."""
  import torch
  from transformers import GPT2Config, GPT2LMHeadModel

  torch.manual_seed(0)
  gpt2 = GPT2LMHeadModel(GPT2Config(n_positions=positions)).eval()
  gpt2.generation_config.eos_token_id = None
  return gpt2


def torch_call(name: str, prompts_BT: np.ndarray, new: int, positions: int) -> Callable[[], Any]:
  """Return a call that generates with `transformers` on PyTorch.

  Args:
    name: `torch` or `static`, the kind of cache.
    prompts_BT: token ids.
    new: number of tokens to generate.
    positions: size of the position table.

  Returns:
    A function that generates.
  """
  import torch

  gpt2, ids = model(positions), torch.tensor(prompts_BT).long()
  options = {'cache_implementation': 'static', 'disable_compile': True} if name == 'static' else {}

  def call() -> None:
    with torch.inference_mode():
      mask = torch.ones_like(ids)
      out = gpt2.generate(
        ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0, **options
      )
    assert out.shape[1] == ids.shape[1] + new

  return call


def generator(gpt2: Any, name: str) -> Any:
  """Return a model of `transformers` in CTranslate2. Quantization changes the given model."""
  import ctranslate2
  from ctranslate2.converters.transformers import GPT2Loader

  form = 'int8' if name.endswith('int8') else None
  vocabulary = {str(i): i for i in range(gpt2.config.vocab_size)}
  tokenizer = types.SimpleNamespace(
    get_vocab=lambda: vocabulary, bos_token='0', eos_token='1', unk_token='2'
  )
  spec = GPT2Loader()(gpt2, tokenizer)
  spec.validate()
  spec.optimize(quantization=form)
  with tempfile.TemporaryDirectory() as folder:
    spec.save(folder)
    return ctranslate2.Generator(folder, compute_type=form or 'float32')


def ctranslate2_call(
  name: str, prompts_BT: np.ndarray, new: int, positions: int
) -> Callable[[], Any]:
  """Return a call that generates with CTranslate2, with the arguments of `torch_call`."""
  ready, tokens = generator(model(positions), name), prompts_BT.astype(str).tolist()

  def call() -> None:
    found = ready.generate_batch(
      tokens, max_length=new, min_length=new, sampling_topk=1, include_prompt_in_result=False,
      end_token=[], max_batch_size=len(tokens),
    )  # fmt: skip
    assert all(len(result.sequences_ids[0]) == new for result in found)

  return call


def ctranslate2_logits(
  name: str, prompts_BT: np.ndarray, positions: int
) -> tuple[np.ndarray, np.ndarray]:
  """Return the logits `[B, T, V]` of CTranslate2, and the float32 logits of PyTorch."""
  import torch

  gpt2 = model(positions)
  with torch.inference_mode():
    exact = gpt2(torch.tensor(prompts_BT).long()).logits.numpy()
  return np.array(generator(gpt2, name).forward_batch(prompts_BT.astype(str).tolist())), exact
