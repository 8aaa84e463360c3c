"""Export a model as compiled programs (`jax.export`) that run with jax alone, without tfm."""

from collections.abc import Callable, Mapping, Sequence
import json
from pathlib import Path
from typing import Any

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
from safetensors.flax import save_file

from tfm.core import errors
from tfm.core.newfolder import new_folder
from tfm.generate.prompts import decoding_problems
from tfm.hub.loaded import Loaded
from tfm.model import inputs as inputs_lib
from tfm.model import transformer
from tfm.model.cache import init_cache
from tfm.model.spec import Model
from tfm.parts.attend.dense import DenseAttention
from tfm.parts.context import Run
from tfm.version import __version__

#: Platforms of `jax.export`.
PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
#: The most bytes of weights inside a program: the format is limited to 2 GiB.
INSIDE = 2**30

_SLOTS, _TOKENS = 2048, 16
_ABOUT, _WEIGHTS = 'programs.json', 'params.safetensors'

Arrays = Mapping[str, jax.Array]


def export_programs(
  model: Loaded,
  path: str | Path,
  *,
  platforms: Sequence[str] = ('cpu', 'cuda', 'tpu'),
  slots: int | None = None,
  inside: bool = False,
  dtype: str | None = None,
) -> dict[str, Any]:
  """Write the programs of a model and its weights into a new folder.

  - `forward.jax`: `(params, inputs) -> outputs`, all outputs of the heads.
  - `prefill.jax`: `(params, inputs) -> (logits [b, V] of the last token, cache)`.
  - `step.jax`: `(params, cache, input_ids [b, 1]) -> (logits [b, V], cache)`.
  - `params.safetensors`: the weights by path; absent if they are inside the programs, which then
    take no `params`.
  - `programs.json`: platforms, shapes of inputs and outputs.

  `inputs` is a dict, as of `tfm.apply`. Prompts of different lengths are padded on the left, with 0
  in `attention_mask`. The batch size b is free, and so is the length t unless a part of the model
  needs a fixed one. Attention is computed by `attend=dense`, which every platform supports.

  Args:
    model: A loaded model.
    path: The new folder.
    platforms: The platforms to compile for, of `PLATFORMS`.
    slots: The most tokens of a sequence with its answer. Defaults to the positions of the model, at
      most 2048.
    inside: Whether the weights become constants of the programs.
    dtype: The dtype of computation. Defaults to that of the parameters.

  Returns:
    The content of `programs.json`.

  Raises:
    UserError: An unknown platform, weights too large to be inside, or a folder that exists.

  Example:
    tfm.export_programs(tfm.load('Llama-3.2-1B'), 'exported', platforms=('cpu', 'tpu'))
  """
  for platform in platforms:
    if platform not in PLATFORMS:
      raise errors.UserError(f'platforms: {errors.unknown("platform", platform, PLATFORMS)}')
  params = flat(model.params)
  size = sum(a.nbytes for a in params.values())
  if inside and size > INSIDE:
    raise errors.UserError(
      f'weights: have {size:,} bytes. Expected at most {INSIDE:,} inside a program, or weights '
      'beside it.'
    )
  programs = _Programs(model.spec, model.params, _run(model, dtype), slots)
  about: dict[str, Any] = {
    'tfm': __version__, 'jax': jax.__version__, 'platforms': [*platforms],
    'weights': None if inside else _WEIGHTS, 'programs': {}, 'notes': [],
  }  # fmt: skip
  with new_folder(path) as folder:
    for name, program in programs.all().items():
      exported, note = program(platforms, params if inside else None)
      (folder / f'{name}.jax').write_bytes(bytes(exported.serialize()))
      about['programs'][name] = _signature(exported, inside)
      about['notes'] += [f'{name}: {note}'] if note else []
    if not inside:
      save_file({name: jnp.asarray(a) for name, a in params.items()}, folder / _WEIGHTS)
    about['slots'] = programs.slots
    (folder / _ABOUT).write_text(json.dumps(about, indent=2) + '\n', 'utf-8')
  return about


def flat(tree: Any) -> dict[str, Any]:
  """Return the arrays of a tree by path, such as 'segment_0/block_0/mixer/q/kernel'."""
  paths, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {_named(path): leaf for path, leaf in paths}


def _named(path: Sequence[Any]) -> str:
  """Return the path of an array: keys, indices and field names, joined by slashes."""
  words = []
  for entry in path:
    word = getattr(entry, 'key', getattr(entry, 'idx', getattr(entry, 'name', None)))
    words.append(str(word))
  return '/'.join(words)


def _run(model: Loaded, dtype: str | None) -> Run:
  from tfm.core.precision import Precision

  kinds = {str(a.dtype) for a in jax.tree.leaves(model.params)}
  kind = kinds.pop() if len(kinds) == 1 else 'float32'
  precision = Precision(param=kind, compute=dtype or kind)
  return Run(precision, 'scan', attend=DenseAttention())


Program = Callable[[Sequence[str], Arrays | None], tuple[export.Exported, str]]


class _Programs:
  """The programs of a model.

  Args:
    spec: The model.
    params: Its parameters.
    run: Precision and kernels.
    slots: The most tokens of a sequence.
  """

  def __init__(self, spec: Model, params: Any, run: Run, slots: int | None):
    self._spec, self._run = spec, run
    self._tree = jax.tree.structure(params)
    self._shapes = {k: jax.ShapeDtypeStruct(a.shape, a.dtype) for k, a in flat(params).items()}
    self.slots = min(slots or _SLOTS, spec.max_positions or slots or _SLOTS)
    self._cache_tree: Any = None

  def all(self) -> dict[str, Program]:
    """Return the programs by name; models that do not decode have only 'forward'."""
    found: dict[str, Program] = {'forward': self.forward}
    resampled = any(segment.resample is not None for segment in self._spec.segments)
    if not any(decoding_problems(self._spec)) and self._spec.causal and not resampled:
      found |= {'prefill': self.prefill, 'step': self.step}
    return found

  def forward(self, platforms: Sequence[str], params: Arrays | None) -> tuple[export.Exported, str]:
    """Return the program of `tfm.apply`, and a note about a fixed length."""

    def forward(params: Arrays, inputs: Arrays) -> dict[str, jax.Array]:
      out = self._apply(params, **inputs)
      return {name: a for name, a in out.items() if name not in ('aux', 'load', 'cache')}

    return self._exported(forward, platforms, params)

  def prefill(self, platforms: Sequence[str], params: Arrays | None) -> tuple[export.Exported, str]:
    """Return the program that fills a cache with prompts, and a note about a fixed length."""

    def prefill(params: Arrays, inputs: Arrays) -> tuple[jax.Array, dict[str, jax.Array]]:
      batch = next(iter(inputs.values())).shape[0]
      tree = self._unflat(params)
      source = transformer.source_length(self._spec, tree, inputs)
      cache = init_cache(self._spec, batch, self.slots, self._dtype, source)
      out = self._apply(params, cache=cache, logits_to_keep=1, **inputs)
      return out['logits'][:, -1], flat(out['cache'])

    return self._exported(prefill, platforms, params)

  def step(self, platforms: Sequence[str], params: Arrays | None) -> tuple[export.Exported, str]:
    """Return the program of one decoding step, and no note."""
    decoder = 'input_ids' if self._spec.encoder is None else 'decoder_input_ids'
    encoder = self._spec.encoder is not None
    scope = export.SymbolicScope(['b >= 1', 's >= 1'] if encoder else ['b >= 1'])
    b: Any = export.symbolic_shape('b', scope=scope)[0]
    source: Any = export.symbolic_shape('s', scope=scope)[0] if encoder else 0
    cache = jax.eval_shape(lambda: init_cache(self._spec, b, self.slots, self._dtype, source))
    shapes, tree = flat(cache), jax.tree.structure(cache)

    def step(
      params: Arrays, cache: Arrays, input_ids: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
      state = jax.tree.unflatten(tree, [cache[name] for name in shapes])
      out = self._apply(params, cache=state, logits_to_keep=1, **{decoder: input_ids})
      return out['logits'][:, -1], flat(out['cache'])

    ids = jax.ShapeDtypeStruct((b, 1), jnp.int32)
    return _export(step, platforms, params, self._shapes, shapes, ids), ''

  @property
  def _dtype(self) -> Any:
    return self._run.precision.dtype('compute')

  def _unflat(self, params: Arrays) -> Any:
    return jax.tree.unflatten(self._tree, [params[name] for name in self._shapes])

  def _apply(self, params: Arrays, **inputs: Any) -> dict[str, Any]:
    return transformer.apply(self._spec, self._unflat(params), run=self._run, **inputs)

  def _exported(
    self, fn: Callable[..., Any], platforms: Sequence[str], params: Arrays | None
  ) -> tuple[export.Exported, str]:
    """Export with free batch and length; with a fixed length where the model needs one."""
    try:
      return _export(fn, platforms, params, self._shapes, self._inputs(True)), ''
    except errors.UserError:
      raise
    except Exception as error:
      if not self._has_length():
        raise
      reason = str(error).splitlines()[0]
    shapes = self._inputs(False)
    fixed = f'the length is fixed to {self.slots} tokens ({reason})'
    return _export(fn, platforms, params, self._shapes, shapes), fixed

  def _has_length(self) -> bool:
    one, two = (inputs_lib.shapes(self._spec, 1, _TOKENS * n) for n in (1, 2))
    return one != two

  def _inputs(self, free: bool) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of the inputs, with symbols for the batch and, if `free`, the length."""
    n = _TOKENS if free else self.slots
    given, longer = (inputs_lib.shapes(self._spec, 1, k * n) for k in (1, 2))
    symbols = self._symbols(given, longer if free else given)
    found = {}
    for name, array in given.items():
      length = symbols.get(self._symbol(name))
      sizes = []
      for size, other in zip(array.shape[1:], longer[name].shape[1:], strict=True):
        # A size that follows the length, such as two feature frames per token, is k * length.
        sizes.append(length * (size // n) if free and size != other else size)
      found[name] = jax.ShapeDtypeStruct((symbols['b'], *sizes), array.dtype)
    reader = self._spec if self._spec.encoder is None else self._spec.encoder
    if 'input_ids' in found and reader.embed and 'attention_mask' in reader.embed.takes:
      found.setdefault('attention_mask', found['input_ids'])
    return found

  def _symbol(self, name: str) -> str:
    """Return the symbol of the length of an input: t, or s for other towers."""
    decoder = self._spec.encoder is None or name.startswith('decoder_')
    return 't' if decoder else 's'

  def _symbols(self, given: Mapping[str, Any], longer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the symbolic sizes: b, and the lengths that differ between two sets of shapes."""
    names = sorted({self._symbol(name) for name in given if given[name] != longer[name]})
    longest = self._spec.max_positions or 2**30
    limits = ['b >= 1']
    for name in names:
      limits += [f'{name} >= 2', f'{name} <= {longest}']
    scope = export.SymbolicScope(limits)
    return {name: export.symbolic_shape(name, scope=scope)[0] for name in ('b', *names)}


def _export(
  fn: Callable[..., Any], platforms: Sequence[str], params: Arrays | None, shapes: Any, *args: Any
) -> export.Exported:
  """Return the exported function, with the weights as constants if there are any."""
  if params is None:
    return export.export(jax.jit(fn), platforms=platforms)(shapes, *args)
  constant = {name: np.asarray(a) for name, a in params.items()}
  inside = lambda *rest: fn({name: jnp.asarray(a) for name, a in constant.items()}, *rest)
  return export.export(jax.jit(inside), platforms=platforms)(*args)


def _signature(exported: export.Exported, inside: bool) -> dict[str, Any]:
  """Return the shapes of the arguments and the results, as text."""
  args, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
  text = lambda tree: jax.tree.map(lambda a: a.str_short(), tree)
  return {
    'arguments': text(list(args if inside else args[1:])),
    'results': text(jax.tree.unflatten(exported.out_tree, exported.out_avals)),
  }
