"""LoRA adapters as the PEFT library saves them, put onto the model that they were trained on
(arXiv:2106.09685).
"""

from collections import Counter
from collections.abc import Iterator, Mapping
import dataclasses
import functools
import json
import math
from pathlib import Path
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tfm.core import errors
from tfm.hub.lora_factors import inputs_first, is_linear, split_factors
from tfm.hub.names import key
from tfm.hub.path_errors import check_not_pointer, diagnose
from tfm.hub.path_kinds import MISSING_PATHS
from tfm.hub.tensors import Entry, Tensors, read_pickle, safetensors_file
from tfm.model import transformer
from tfm.model.spec import Model
from tfm.parts.adapter.lora import LoRA
from tfm.train import shard
from tfm.train.mesh import RULES
from tfm.zoo.weights import TABLE, Published, Tensor, published, tensor_map

CONFIG, SAFE, PICKLED = 'adapter_config.json', 'adapter_model.safetensors', 'adapter_model.bin'

#: Fields that are read here, or that do not change the output of the saved tensors.
_KNOWN = frozenset((
  'alpha_pattern', 'auto_mapping', 'base_model_name_or_path', 'bias', 'ensure_weight_tying',
  'exclude_modules',
  'fan_in_fan_out', 'inference_mode', 'init_lora_weights', 'layers_pattern', 'layers_to_transform',
  'lora_alpha',
  'lora_dropout', 'megatron_core', 'modules_to_save', 'peft_type', 'peft_version',
  'qalora_group_size', 'r',
  'rank_pattern', 'revision', 'runtime_config', 'target_modules', 'task_type', 'use_rslora',
))  # fmt: skip
#: Initialisations that leave the base model unchanged; the others (PiSSA, OLoRA, ...) subtract from
#: it.
_STARTS = (True, False, None, 'gaussian', 'eva', 'orthogonal')
#: Task -> ending of the class. The head of these classes is in the adapter.
_CLASSES = {
  'SEQ_CLS': 'ForSequenceClassification', 'TOKEN_CLS': 'ForTokenClassification',
  'QUESTION_ANS': 'ForQuestionAnswering',
}  # fmt: skip
_LABELS = re.compile(r'(^|\.)(score|classifier|out_proj)\.weight$')
_LORA = re.compile(r'^(.*)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$')


class _Pair(NamedTuple):
  """The factors of a module: A `[rank, in]`, B `[out, rank]`, the factor of B A, and whether it is
  an embedding.
  """

  a: np.ndarray
  b: np.ndarray
  scale: float
  embedding: bool


@dataclasses.dataclass(frozen=True)
class _Merged:
  """A weight with an adapter merged into it."""

  base: Entry
  pair: _Pair
  flip: bool

  @property
  def shape(self) -> tuple[int, ...]:
    return self.base.shape

  @property
  def dtype(self) -> np.dtype:
    return self.base.dtype

  def array(self) -> np.ndarray:
    added = (
      self.pair.b.astype(np.float32) @ self.pair.a.astype(np.float32) * np.float32(self.pair.scale)
    )
    return (self.base.array().astype(np.float32) + (added.T if self.flip else added)).astype(
      self.dtype
    )

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    self.base.release()


class Peft:
  """A PEFT folder: `adapter_config.json` and the tensors of a LoRA adapter.

  Raises:
    UserError: the adapter is no LoRA, has an option that is not read, or its files are damaged.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path).expanduser()
    self.config = self._config()
    self.pairs, self.saved = self._tensors()
    #: Tensors of the base's own head, where the adapter was trained with another class.
    self.dropped: set[str] = set()

  def _config(self) -> dict[str, Any]:
    file = self.path / CONFIG
    if not self.path.exists() and (sentence := diagnose(self.path, MISSING_PATHS)):
      raise errors.UserError(f'{self.path}: {sentence}')
    if not file.is_file():
      raise errors.UserError(
        f'{self.path}: has no {CONFIG}. Expected the folder of a PEFT adapter.'
      )
    check_not_pointer(file)
    try:
      found = json.loads(file.read_text('utf-8'))
      kind = found.get('peft_type')
    except (OSError, ValueError, AttributeError) as error:
      raise errors.UserError(
        f'{file}: is not a config: {error}. Expected the fields of a LoRA adapter.'
      ) from error
    if kind != 'LORA':
      raise errors.UserError(
        f'{file}: {errors.unknown("peft_type", kind, ["LORA"])} Expected a LoRA adapter.'
      )
    unknown = [f'{n}={v!r}' for n, v in sorted(found.items()) if n not in _KNOWN and v]
    if unknown:
      raise errors.UserError(
        f'{file}: {", ".join(unknown[:8])}: not supported, and may change the output. Expected a '
        f'plain LoRA.'
      )
    if (start := found.get('init_lora_weights')) not in _STARTS:
      raise errors.UserError(
        f'{file}: init_lora_weights is {start!r}, which changes the base model. Expected an '
        f'adapter that was saved '
        'with path_initial_model_for_weight_conversion, or trained with another start.'
      )
    return found

  def _tensors(self) -> tuple[dict[str, _Pair], dict[str, Entry]]:
    """Return the factors of each module, and the tensors that were trained whole, by names of the
    base model.
    """
    file = next((f for f in (self.path / SAFE, self.path / PICKLED) if f.is_file()), None)
    if file is None:
      raise errors.UserError(f'{self.path}: has no {SAFE} or {PICKLED}. Expected the whole folder.')
    entries = Tensors(safetensors_file(file) if file.name == SAFE else read_pickle(file)).entries
    halves: dict[str, dict[str, Entry]] = {}
    saved, embeddings = {}, set()
    for name, entry in entries.items():
      bare = name.removeprefix('base_model.model.')
      if match := _LORA.match(bare):
        module, embedding, half = match.groups()
        halves.setdefault(module, {})[half] = entry
        embeddings |= {module} if embedding else set()
      elif 'lora_' in bare:
        raise errors.UserError(
          f'{file}: {name}: not read. Expected lora_A and lora_B of each module (no DoRA).'
        )
      else:
        saved[re.sub(r'\.(modules_to_save(\.default)?|base_layer)\.', '.', bare)] = entry
    if wrong := sorted(
      m for m, h in halves.items() if set(h) != {'A', 'B'} or h['A'].shape[0] != h['B'].shape[-1]
    ):
      raise errors.UserError(
        f'{file}: {wrong[0]}: lora_A and lora_B do not fit together. Expected both, of one rank.'
      )
    pairs = {m: self._pair(m, h, m in embeddings) for m, h in halves.items()}
    return pairs, saved

  def _pair(self, module: str, halves: Mapping[str, Entry], embedding: bool) -> _Pair:
    a, b = halves['A'].array(), halves['B'].array()
    patterns = self.config.get('alpha_pattern') or {}
    alphas = (
      value for pattern, value in patterns.items() if re.match(rf'(.*\.)?({pattern})$', module)
    )
    alpha = next(alphas, self.config.get('lora_alpha', 8))
    rank = math.sqrt(len(a)) if self.config.get('use_rslora') else len(a)
    return _Pair(a, b, alpha / rank, embedding)

  def config_for(self, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of the class that the adapter was trained with, which its task may change."""
    family, ending = (
      TABLE.get(values.get('model_type', '')),
      _CLASSES.get(self.config.get('task_type') or ''),
    )
    if family is None or ending is None or ending not in family.endings:
      return dict(values)
    labels = next((e.shape[0] for n, e in self.saved.items() if _LABELS.search(n)), None)
    known = len(values.get('id2label') or {}) or values.get('num_labels', 2)
    named = (
      {}
      if labels in (None, known)
      else {'id2label': {str(i): f'LABEL_{i}' for i in range(labels or 0)}}
    )
    changed = {**values, 'architectures': [family.stem + ending], **named}
    if (values.get('architectures') or [family.stem + family.head])[0] != family.stem + ending:
      self.dropped = {key(family, t.name) for t in _plan(values)} - {
        key(family, t.name) for t in _plan(changed)
      }
    return changed

  def overlay(self, found: Published, tensors: Tensors) -> Tensors:
    """Return the base's tensors with the adapter's changes that a LoRA of tfm cannot express.

    Raises:
      UserError: the adapter is of another model.
    """
    bare = functools.partial(key, found.family)
    names = {bare(name): name for name in tensors}
    entries = {
      name: entry for name, entry in tensors.entries.items() if bare(name) not in self.dropped
    }
    for name, entry in self.saved.items():
      entries[names.get(bare(name), name)] = entry
    _, merged = self._split(found)
    for module, tensor in merged.items():
      name, pair = names.get(bare(tensor.name), tensor.name), self.pairs[module]
      if name in entries:
        entries[name] = _Merged(entries[name], pair, pair.embedding or inputs_first(tensor))
    if merged:
      what = ', '.join(sorted(merged)[:8])
      print(
        f'{self.path}: merged into the weights, as tfm adapts linear layers only: {what}',
        file=sys.stderr,
      )
    return Tensors(entries)

  def _split(self, found: Published) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of modules that can have a LoRA of tfm, and of the others, by name of the
    module.
    """
    bare = functools.partial(key, found.family)
    weights = {bare(t.name): t for t in tensor_map(found.family, found.spec, found.ending)}
    found_of = {m: weights.get(bare(f'{m}.weight')) for m in self.pairs}
    if strange := sorted(m for m, t in found_of.items() if t is None):
      tied = found.spec.lm is not None and found.spec.lm.tied
      why = ' The head is tied to the token table.' if tied and 'lm_head' in strange else ''
      raise errors.UserError(
        f'{self.path}: adapts modules that the base model has not: {", ".join(strange[:8])}.{why} '
        f'Expected the model '
        f'that it was trained on, {self.config.get("base_model_name_or_path")}.'
      )
    tensors = {m: t for m, t in found_of.items() if t is not None}
    able = _adaptable(found.spec, {_module(s.path) for t in tensors.values() for s in t.slots})
    apart = {
      m: t
      for m, t in tensors.items()
      if is_linear(t) and all(_module(s.path) in able for s in t.slots)
    }
    rest = {m: t for m, t in tensors.items() if m not in apart}
    tables = [
      m
      for m in rest
      if self.pairs[m].embedding and found.spec.lm is not None and found.spec.lm.tied
    ]
    if tables and not self.config.get('ensure_weight_tying'):
      raise errors.UserError(
        f'{self.path}: adapts {tables[0]}, but not the head that is tied to it. Expected '
        f'ensure_weight_tying, or a '
        'base model with tie_word_embeddings=false.'
      )
    for module, tensor in tensors.items():
      a, b, _, flip = self.pairs[module]
      shape = (len(b), a.shape[1])
      if tensor.shape != (shape[::-1] if flip or inputs_first(tensor) else shape):
        raise errors.UserError(
          f'{self.path}: {module} is {list(shape)}, and in the base {list(tensor.shape)}.'
        )
    return apart, rest

  def add(
    self, found: Published, params: Any, dtype: Any | None, mesh: jax.sharding.Mesh | None
  ) -> tuple[Model, Any]:
    """Return the spec with a LoRA of tfm, and the parameters with the adapter's.

    Modules of smaller rank, and layers that are not adapted, have zeros in both factors: they add
    nothing, and training leaves them so."""
    apart, _ = self._split(found)
    if not apart:
      return found.spec, params
    pairs = {m: self.pairs[m] for m in apart}
    rank = max(len(p.a) for p in pairs.values())
    factor = Counter(p.scale for p in pairs.values()).most_common(1)[0][0]
    stable = bool(self.config.get('use_rslora'))
    targets = tuple(
      sorted({_module(s.path).rpartition('/')[2] for t in apart.values() for s in t.slots})
    )
    alpha = factor * (math.sqrt(rank) if stable else rank)
    spec = dataclasses.replace(found.spec, adapter=LoRA(rank, alpha, targets, stable))
    own = self._filled(spec, apart, factor, dtype)
    shapes, letters = transformer.param_shapes(spec), transformer.param_letters(spec)
    places = _flat(shard.placed(mesh, RULES, letters, shapes))
    held = _flat(params)
    for name, array in own.items():
      held[name] = jax.make_array_from_callback(array.shape, places[name], array.__getitem__)
    return spec, jax.tree.unflatten(
      jax.tree.structure(shapes), [held[name] for name in _flat(shapes)]
    )

  def _filled(
    self, spec: Model, apart: Mapping[str, Tensor], factor: float, dtype: Any | None
  ) -> dict[str, Any]:
    """Return the parameters of the adapter by path."""
    stored = np.result_type(*(self.pairs[m].a.dtype for m in apart))
    kind = np.dtype(jnp.dtype(dtype or stored))
    own = {
      n: np.zeros(s.shape, kind)
      for n, s in _flat(transformer.param_shapes(spec)).items()
      if '/lora/' in n
    }
    for module, tensor in apart.items():
      a, b, scale, _ = self.pairs[module]
      b = (
        b
        if scale == factor
        else (b.astype(np.float32) * np.float32(scale / factor)).astype(b.dtype)
      )
      for slot, factors in zip(tensor.slots, split_factors(tensor, a, b), strict=True):
        path = f'{_module(slot.path)}/lora'
        own[f'{path}/a'][slot.index][..., : len(a)] = factors.a
        own[f'{path}/b'][slot.index][: len(a)] = factors.b
    return own


def _plan(values: Mapping[str, Any]) -> list[Tensor]:
  found = published(values)
  return tensor_map(found.family, found.spec, found.ending)


def _module(path: str) -> str:
  return path.rpartition('/')[0]


def _adaptable(spec: Model, modules: set[str]) -> set[str]:
  """Return those modules of a model that a LoRA of tfm can add to."""
  roles = tuple(sorted({m.rpartition('/')[2] for m in modules}))
  trial = dataclasses.replace(spec, adapter=LoRA(1, 1.0, roles))
  return {
    n.removesuffix('/lora/a')
    for n in _flat(transformer.param_shapes(trial))
    if n.endswith('/lora/a')
  }


def _flat(tree: Any) -> dict[str, Any]:
  pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_sharding)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in pairs}


def _is_sharding(node: Any) -> bool:
  return isinstance(node, jax.sharding.Sharding)
