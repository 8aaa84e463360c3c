r"""Measure greedy decoding of GPT-2 small next to `transformers` on PyTorch.

    python scripts/bench/decode.py    # batch 1 and 8, float32 and int8 weights
    python scripts/bench/decode.py --batches=1 --rivals=layers,int8 --rounds=9
    python scripts/bench/decode.py --batches=1,8,32 --contexts=128,512,2048 \
      --rivals=torch,static,layers
    python scripts/bench/decode.py --batches=1 --rivals=layers,speculative,lookup

All rivals have weights of the same shapes and generate the same number of tokens. A step reads
every weight one time, so its floor is the size of the weights divided by the read bandwidth, which
is measured too.

Rivals: `layers` has weights prepared per layer, `int8` quantized ones, `stack` the layout of
training. `torch` is `transformers` with a growing cache and `static` with a static cache.
`speculative` has a draft model that always agrees: the layers after the first DRAFT add nothing to
the residual stream, at full cost. `lookup` drafts from n-grams of the sequence. Needs the extra
`bench` (PyTorch and transformers).
"""

import argparse
from collections.abc import Callable
import dataclasses
import itertools
import statistics
from typing import Any

import harness
import jax
import numpy as np

from tfm import zoo
from tfm.generate import LookupDraft, ModelDraft, generate, prepare
from tfm.model.spec import Model
from tfm.model.transformer import init
from tfm.parts.absolute import Learned
from tfm.parts.context import Run

NEW, DRAFT = 64, 2
TORCH_NAMES = ('torch', 'static')
DRAFTED = ('speculative', 'lookup')
TFM_NAMES = ('layers', 'int8', 'stack', *DRAFTED)


def spec_of(context: int) -> Model:
  """Return GPT-2 small with enough positions for the context."""
  return dataclasses.replace(zoo.get('gpt2'), absolute=Learned(max(1024, context + NEW)))


def prompts(batch: int, context: int) -> np.ndarray:
  """Return random prompts `[batch, context]`."""
  return np.random.default_rng(0).integers(
    0, zoo.get('gpt2').vocab, (batch, context), dtype=np.int32
  )


def weights(layout: str, context: int) -> Any:
  """Return the parameters in a layout.

  `stack` is the layout of training. The others have one entry per layer, `int8` with quantized
  weights.
  """
  spec = spec_of(context)
  params = jax.jit(init, static_argnums=0)(spec, jax.random.key(0))
  if layout in DRAFTED:
    block = params['segment_0']['block_0']
    for part in (block['mixer']['o'], block['ffn']['down']):
      part |= {name: a.at[DRAFT:].set(0) for name, a in part.items()}
  return params if layout == 'stack' else prepare(spec, params, int8=layout == 'int8')


def drafter(layout: str, params: Any, context: int) -> Any:
  """Return the draft model of a layout: the first DRAFT layers, n-gram lookup, or None.

  Args:
    layout: name of the rival.
    params: parameters of the model.
    context: length of the prompts.

  Returns:
    The drafter.
  """
  spec = spec_of(context)
  if layout == 'lookup':
    return LookupDraft()
  if layout != 'speculative':
    return None
  segments = (dataclasses.replace(spec.segments[0], repeats=DRAFT),)
  return ModelDraft(
    dataclasses.replace(spec, segments=segments),
    params | {'segment_0': params['segment_0'][:DRAFT]},
  )


def tfm_call(layout: str, batch: int, context: int) -> Callable[[], Any]:
  """Return a call that adds NEW tokens to each sequence.

  Args:
    layout: name of the rival.
    batch: number of sequences.
    context: length of the prompts.

  Returns:
    A function that generates.
  """
  params, rows = weights(layout, context), prompts(batch, context).tolist()
  run = Run() if layout == 'stack' else Run(loop='unroll')
  options: dict[str, Any] = {
    'temperature': 0,
    'run': run,
    'draft': drafter(layout, params, context),
  }
  return lambda: generate(spec_of(context), params, rows, max_new_tokens=NEW, **options)


def torch_call(name: str, batch: int, context: int) -> Callable[[], Any]:
  """Return a call that generates with `transformers` on PyTorch.

  Args:
    name: `torch` or `static`, the kind of cache.
    batch: number of sequences.
    context: length of the prompts.

  Returns:
    A function that generates.
  """
  import torch
  from transformers import GPT2Config, GPT2LMHeadModel

  spec, ids = spec_of(context), torch.tensor(prompts(batch, context)).long()
  torch.manual_seed(0)
  model = GPT2LMHeadModel(GPT2Config(vocab_size=spec.vocab, n_positions=spec.max_positions)).eval()
  model.generation_config.eos_token_id = None
  options = {'cache_implementation': 'static', 'disable_compile': True} if name == 'static' else {}

  def call() -> None:
    with torch.inference_mode():
      mask = torch.ones_like(ids)
      out = model.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, pad_token_id=0, **options
      )
    assert out.shape[1] == context + NEW

  return call


def read_bandwidth() -> float:
  """Return the read bandwidth of main memory in bytes per second.

  It is the best of numpy, jax and PyTorch.
  """
  a = np.ones(1 << 27, np.float32)
  total, x = jax.jit(lambda x: x.sum()), jax.numpy.asarray(a)
  rivals: dict[str, Callable[[], Any]] = {
    'numpy': lambda: a.sum(),
    'jax': lambda: total(x).block_until_ready(),
  }
  try:
    import torch

    t = torch.from_numpy(a)
    rivals['torch'] = lambda: t.sum()
  except ImportError:
    pass
  return a.nbytes / min(min(times) for times in harness.alternate(rivals, 5).values())


def size(layout: str, context: int) -> int:
  """Return the bytes of weights that a step reads: all except the position table."""
  spec, layout = spec_of(context), 'stack' if layout in TORCH_NAMES else layout
  arrays = jax.tree.leaves(jax.eval_shape(lambda: weights(layout, context)))
  return (
    sum(a.size * a.dtype.itemsize for a in arrays) - (spec.max_positions or 0) * spec.d_model * 4
  )


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--batches', default='1,8')
  parser.add_argument('--contexts', default='64', help='number of tokens of each prompt')
  parser.add_argument(
    '--rivals', default='torch,layers,int8', help=f'some of {", ".join((*TORCH_NAMES, *TFM_NAMES))}'
  )
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  names = args.rivals.split(',')
  bandwidth = read_bandwidth()
  rows = []
  for context, batch in itertools.product(
    map(int, args.contexts.split(',')), map(int, args.batches.split(','))
  ):
    rivals = {}
    for name in names:
      call = torch_call if name in TORCH_NAMES else tfm_call
      rivals[name] = harness.OwnProcess(call, name, batch, context)
    seconds = harness.alternate(rivals, args.rounds, warm=2)
    for rival in rivals.values():
      rival.close()
    base = seconds.get('torch')
    for name, times in seconds.items():
      median = statistics.median(times)
      speedup = harness.ratio(base, times) if base else float('nan')
      rows.append({
        'decode': name if name in TORCH_NAMES else f'tfm {name}',
        'batch': batch, 'context': context,
        'tokens/s': batch * NEW / median, 'best': batch * NEW / min(times),
        'ms per token': 1e3 * median / NEW,
        'floor per pass, ms': 1e3 * size(name, context) / bandwidth,
        'times torch': speedup,
      })  # fmt: skip
  title = f'greedy decoding, GPT-2 small, {NEW} new tokens, prefill included, float32 or int8'
  harness.report(title, rows, args.out, {'read bandwidth, GB/s': bandwidth / 1e9})


if __name__ == '__main__':
  main()
