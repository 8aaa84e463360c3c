r"""Measure greedy decoding of GPT-2 small next to `transformers` on PyTorch.

    python scripts/bench/decode.py    # batch 1 and 8, float32 and int8 weights
    python scripts/bench/decode.py --batches=1 --rivals=layers,int8 --rounds=9
    python scripts/bench/decode.py --batches=1,8,32 --contexts=128,512,2048 \
      --rivals=torch,static,layers
    python scripts/bench/decode.py --batches=1 --rivals=layers,speculative,lookup
    python scripts/bench/decode.py --rivals=torch,layers,int8,ct2,ct2-int8 --errors

All rivals have weights of the same shapes and generate the same number of tokens. A step reads
every weight one time, so its floor is the size of the weights divided by the read bandwidth, which
is measured too.

Rivals: `layers` has weights prepared per layer, `int8` quantized ones, `stack` the layout of
training. `torch` is `transformers` with a growing cache and `static` with a static cache.
`speculative` has a draft model that always agrees: the layers after the first DRAFT add nothing to
the residual stream, at full cost. `lookup` drafts from n-grams of the sequence. `ct2` and
`ct2-int8` run the weights of `transformers` in CTranslate2. Needs the extra `bench` (PyTorch and
transformers), and `pip install ctranslate2`. Rivals that are not installed are left out.

CPU times are of all threads of a rival, and depend less on other programs than wall times do. The
logit error (`--errors`) is the norm of the difference to the float32 logits of the same weights,
divided by their norm, over one prompt.
"""

import argparse
from collections.abc import Callable
import dataclasses
import functools
import importlib.util
import itertools
import statistics
from typing import Any

import decode_torch
import harness
import jax
import numpy as np

from tfm import zoo
from tfm.generate import LookupDraft, ModelDraft, generate, prepare
from tfm.model.spec import Model
from tfm.model.transformer import apply, init
from tfm.parts.absolute import Learned
from tfm.parts.context import Run

NEW, DRAFT, WARM = 64, 2, 2
DRAFTED = ('speculative', 'lookup')
TFM_NAMES = ('layers', 'int8', 'stack', *DRAFTED)
NAMES = (*decode_torch.TORCH, *TFM_NAMES, *decode_torch.CTRANSLATE2)


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


def rival_call(name: str, batch: int, context: int) -> Callable[[], Any]:
  """Return the call of any rival, with the arguments of `tfm_call`."""
  if name in TFM_NAMES:
    return tfm_call(name, batch, context)
  call = decode_torch.torch_call if name in decode_torch.TORCH else decode_torch.ctranslate2_call
  return call(name, prompts(batch, context), NEW, spec_of(context).max_positions)


def installed(name: str) -> bool:
  """Return whether the library of a rival is installed, and print a line if not."""
  library = 'torch' if name in decode_torch.TORCH else 'ctranslate2'
  if name in TFM_NAMES or importlib.util.find_spec(library):
    return True
  print(f'{name}: left out, because {library} is not installed')
  return False


def logit_error(name: str, context: int) -> float:
  """Return the relative error of the logits of a rival; NaN for drafts and PyTorch."""
  ids, spec = prompts(1, context), spec_of(context)
  if name in decode_torch.CTRANSLATE2:
    found, exact = decode_torch.ctranslate2_logits(name, ids, spec.max_positions)
  elif name in ('layers', 'int8'):
    logits = jax.jit(lambda params: apply(spec, params, input_ids=ids)['logits'])
    found, exact = (np.asarray(logits(weights(layout, context))) for layout in (name, 'stack'))
  else:
    return float('nan')
  return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


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
  spec = spec_of(context)
  if layout not in TFM_NAMES:
    layout = 'int8' if layout.endswith('int8') else 'stack'
  arrays = jax.tree.leaves(jax.eval_shape(lambda: weights(layout, context)))
  return (
    sum(a.size * a.dtype.itemsize for a in arrays) - (spec.max_positions or 0) * spec.d_model * 4
  )


def run_and_note(rival: harness.OwnProcess, cpu: list[float]) -> None:
  """Run a rival one time, and append its CPU seconds to a list."""
  cpu.append(rival())


def against_torch(seconds: dict[str, list[float]], name: str, skip: int = 0) -> float:
  """Return the speedup over `torch`, without the first `skip` calls; NaN without `torch`."""
  if 'torch' not in seconds:
    return float('nan')
  return harness.ratio(seconds['torch'][skip:], seconds[name][skip:])


def main() -> None:
  """Measure and print the table."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--batches', default='1,8')
  parser.add_argument('--contexts', default='64', help='number of tokens of each prompt')
  parser.add_argument('--rivals', default='torch,layers,int8', help=f'some of {", ".join(NAMES)}')
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--errors', action='store_true', help='compute the logit errors too')
  parser.add_argument('--out', help='write the numbers as JSON to this file')
  args = parser.parse_args()
  names = [name for name in args.rivals.split(',') if installed(name)]
  bandwidth = read_bandwidth()
  contexts = [int(context) for context in args.contexts.split(',')]
  errors = dict.fromkeys(names, float('nan'))
  if args.errors:
    errors = {name: harness.apart(logit_error, name, contexts[0]) for name in names}
  rows = []
  for context, batch in itertools.product(contexts, map(int, args.batches.split(','))):
    rivals = {name: harness.OwnProcess(rival_call, name, batch, context) for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    calls = {name: functools.partial(run_and_note, rivals[name], cpu[name]) for name in names}
    seconds = harness.alternate(calls, args.rounds, warm=WARM)
    for rival in rivals.values():
      rival.close()
    for name in names:
      times, used = seconds[name], cpu[name][WARM:]
      rows.append({
        'decode': f'tfm {name}' if name in TFM_NAMES else name,
        'batch': batch, 'context': context,
        'tokens/s': batch * NEW / statistics.median(times),
        'ms per token': 1e3 * statistics.median(times) / NEW,
        'CPU ms per token': 1e3 * statistics.median(used) / NEW,
        'floor per pass, ms': 1e3 * size(name, context) / bandwidth,
        'times torch': against_torch(seconds, name),
        'times torch, CPU': against_torch(cpu, name, skip=WARM),
        'logit error': errors[name],
      })  # fmt: skip
  title = f'greedy decoding, GPT-2 small, {NEW} new tokens, prefill included, float32 or int8'
  harness.report(title, rows, args.out, {'read bandwidth, GB/s': bandwidth / 1e9})


if __name__ == '__main__':
  main()
