"""Load LoRA adapters (arXiv:2106.09685) of the PEFT library."""

from collections import Counter
from collections.abc import Iterator, Mapping
import dataclasses
import functools
import math
from pathlib import Path
import re
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
import numpy as np

from tfm.core import errors, json_text
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

#: Fields that are read here, or that do not affect the output of the saved tensors.
_KNOWN = frozenset((
  'alpha_pattern', 'auto_mapping', 'base_model_name_or_path', 'bias', 'ensure_weight_tying',
  'exclude_modules', 'fan_in_fan_out', 'inference_mode', 'init_lora_weights', 'layers_pattern',
  'layers_to_transform', 'lora_alpha', 'lora_dropout', 'megatron_core', 'modules_to_save',
  'peft_type', 'peft_version', 'qalora_group_size', 'r', 'rank_pattern', 'revision',
  'runtime_config', 'target_modules', 'task_type', 'use_rslora',
))  # fmt: skip
#: Initialisations that leave the base model unchanged. Others (PiSSA, OLoRA, ...) modify it.
_INITS = (True, False, None, 'gaussian', 'eva', 'orthogonal')
#: Task -> suffix of the class. The adapter holds the head of these classes.
_CLASSES = {
  'SEQ_CLS': 'ForSequenceClassification', 'TOKEN_CLS': 'ForTokenClassification',
  'QUESTION_ANS': 'ForQuestionAnswering',
}  # fmt: skip
_LABELS = re.compile(r'(^|\.)(score|classifier|out_proj)\.weight$')
_LORA = re.compile(r'^(.*)\.lora_(embedding_)?([AB])(?:\.default)?(?:\.weight)?$')


class _Pair(NamedTuple):
  """The LoRA factors of a module.

  Attributes:
    a: `[rank, in]`.
    b: `[out, rank]`.
    scale: The factor of B A.
    embedding: Whether the module is an embedding.
  """

  a: np.ndarray
  b: np.ndarray
  scale: float
  embedding: bool


@dataclasses.dataclass(frozen=True)
class _Merged:
  """A lazy weight with a merged adapter."""

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
    a, b = self.pair.a.astype(np.float32), self.pair.b.astype(np.float32)
    update = b @ a * np.float32(self.pair.scale)
    merged = self.base.array().astype(np.float32) + (update.T if self.flip else update)
    return merged.astype(self.dtype)

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    self.base.release()


class Peft:
  """A PEFT folder with the config and the tensors of a LoRA adapter.

  Attributes:
    path: The folder.
    config: The fields of `adapter_config.json`.
    pairs: The LoRA factors by module.
    saved: The tensors that were trained in full, by their names in the base model.
    dropped: The keys of the base model's tensors that the adapter's class lacks.

  Raises:
    UserError: The adapter is not a LoRA, has an unsupported option, or a file is damaged.
  """

  def __init__(self, path: str | Path):
    self.path = Path(path).expanduser()
    self.config = self._config()
    self.pairs, self.saved = self._tensors()
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
      config = json_text.parse(file.read_text('utf-8'))
      kind = config.get('peft_type')
    except (OSError, ValueError, AttributeError) as error:
      raise errors.UserError(
        f'{file}: is not a config ({error}). Expected the fields of a LoRA adapter.'
      ) from error
    if kind != 'LORA':
      raise errors.UserError(
        f'{file}: {errors.unknown("peft_type", kind, ["LORA"])} Expected a LoRA adapter.'
      )
    unknown = [f'{n}={v!r}' for n, v in sorted(config.items()) if n not in _KNOWN and v]
    if unknown:
      raise errors.UserError(
        f'{file}: {", ".join(unknown[:8])}: not supported, and may change the output. Expected a '
        'LoRA without these options.'
      )
    if (start := config.get('init_lora_weights')) not in _INITS:
      raise errors.UserError(
        f'{file}: init_lora_weights is {start!r}, which changes the base model. Expected another '
        'initialisation, or an adapter saved with path_initial_model_for_weight_conversion.'
      )
    return config

  def _tensors(self) -> tuple[dict[str, _Pair], dict[str, Entry]]:
    """Return the LoRA factors by module, and the tensors that were trained in full by name."""
    file = next((f for f in (self.path / SAFE, self.path / PICKLED) if f.is_file()), None)
    if file is None:
      raise errors.UserError(f'{self.path}: has no {SAFE} or {PICKLED}. Expected LoRA weights.')
    entries = Tensors(safetensors_file(file) if file.name == SAFE else read_pickle(file)).entries
    halves: dict[str, dict[str, Entry]] = {}
    saved, embeddings = {}, set()
    for name, entry in entries.items():
      suffix = name.removeprefix('base_model.model.')
      if match := _LORA.match(suffix):
        module, embedding, half = match.groups()
        halves.setdefault(module, {})[half] = entry
        embeddings |= {module} if embedding else set()
      elif 'lora_' in suffix:
        raise errors.UserError(
          f'{file}: {name}: unsupported tensor. Expected only lora_A and lora_B (no DoRA).'
        )
      else:
        saved[re.sub(r'\.(modules_to_save(\.default)?|base_layer)\.', '.', suffix)] = entry
    for module, half_of in sorted(halves.items()):
      if set(half_of) != {'A', 'B'} or half_of['A'].shape[0] != half_of['B'].shape[-1]:
        raise errors.UserError(
          f'{file}: {module}: lora_A and lora_B do not match. Expected both, with the same rank.'
        )
    pairs = {m: self._pair(m, h, m in embeddings) for m, h in halves.items()}
    return pairs, saved

  def _pair(self, module: str, halves: Mapping[str, Entry], embedding: bool) -> _Pair:
    a, b = halves['A'].array(), halves['B'].array()
    alpha = self.config.get('lora_alpha', 8)
    for pattern, value in (self.config.get('alpha_pattern') or {}).items():
      if re.match(rf'(.*\.)?({pattern})$', module):
        alpha = value
        break
    rank = math.sqrt(len(a)) if self.config.get('use_rslora') else len(a)
    return _Pair(a, b, alpha / rank, embedding)

  def config_for(self, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the base model's config with the class and labels of the adapter's task."""
    family = TABLE.get(values.get('model_type', ''))
    ending = _CLASSES.get(self.config.get('task_type') or '')
    if family is None or ending is None or ending not in family.endings:
      return dict(values)
    changed = {**values, 'architectures': [family.stem + ending]}
    labels = next((e.shape[0] for n, e in self.saved.items() if _LABELS.search(n)), None)
    known = len(values.get('id2label') or {}) or values.get('num_labels', 2)
    if labels not in (None, known):
      changed['id2label'] = {str(i): f'LABEL_{i}' for i in range(labels or 0)}
    if (values.get('architectures') or [family.stem + family.head])[0] != family.stem + ending:
      adapted = {key(family, t.name) for t in _mapped(changed)}
      self.dropped = {key(family, t.name) for t in _mapped(values)} - adapted
    return changed

  def overlay(self, base: Published, tensors: Tensors) -> Tensors:
    """Return the base model's tensors with adapters merged that tfm's LoRA cannot express.

    Args:
      base: The model with the config of `config_for`.
      tensors: The tensors of the base model.

    Raises:
      UserError: The adapter belongs to another model.
    """
    key_of = functools.partial(key, base.family)
    names = {key_of(name): name for name in tensors}
    entries = dict(tensors.entries)
    for name in tensors:
      if key_of(name) in self.dropped:
        del entries[name]
    for name, entry in self.saved.items():
      entries[names.get(key_of(name), name)] = entry
    _, merged = self._split(base)
    for module, tensor in merged.items():
      name, pair = names.get(key_of(tensor.name), tensor.name), self.pairs[module]
      if name in entries:
        entries[name] = _Merged(entries[name], pair, pair.embedding or inputs_first(tensor))
    if merged:
      listed = ', '.join(sorted(merged)[:8])
      print(
        f'{self.path}: merged into the weights, because tfm adapts only linear layers: {listed}',
        file=sys.stderr,
      )
    return Tensors(entries)

  def _split(self, base: Published) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the adapted weights by whether tfm's LoRA can express their update.

    Returns:
      Two maps from a module to its weight.
    """
    tensors = self._adapted_tensors(base)
    able = _adaptable(base.spec, {_module(s.path) for t in tensors.values() for s in t.slots})
    separate: dict[str, Tensor] = {}
    merged: dict[str, Tensor] = {}
    for module, t in tensors.items():
      is_able = is_linear(t) and all(_module(s.path) in able for s in t.slots)
      (separate if is_able else merged)[module] = t
    is_tied = base.spec.lm is not None and base.spec.lm.tied
    tables = [m for m in merged if self.pairs[m].embedding and is_tied]
    if tables and not self.config.get('ensure_weight_tying'):
      raise errors.UserError(
        f'{self.path}: adapts {tables[0]}, but not the head that is tied to it. Expected '
        'ensure_weight_tying, or a base model with tie_word_embeddings=false.'
      )
    return separate, merged

  def _adapted_tensors(self, base: Published) -> dict[str, Tensor]:
    """Return the weight of the base model for each adapted module.

    Raises:
      UserError: A module is missing in the base model or has another shape.
    """
    key_of = functools.partial(key, base.family)
    weights = {key_of(t.name): t for t in tensor_map(base.family, base.spec, base.ending)}
    tensors: dict[str, Tensor] = {}
    missing = []
    for module in self.pairs:
      tensor = weights.get(key_of(f'{module}.weight'))
      if tensor is None:
        missing.append(module)
      else:
        tensors[module] = tensor
    if missing:
      tied = base.spec.lm is not None and base.spec.lm.tied
      hint = ' The head is tied to the token table.' if tied and 'lm_head' in missing else ''
      raise errors.UserError(
        f'{self.path}: adapts modules that the base model lacks: {", ".join(sorted(missing)[:8])}.'
        f'{hint} Expected its base model, {self.config.get("base_model_name_or_path")}.'
      )
    for module, tensor in tensors.items():
      a, b, _, flip = self.pairs[module]
      shape = (len(b), a.shape[1])
      if tensor.shape != (shape[::-1] if flip or inputs_first(tensor) else shape):
        raise errors.UserError(
          f'{self.path}: the update of {module} has shape {list(shape)}. Expected '
          f'{list(tensor.shape)}, as in the base model.'
        )
    return tensors

  def add(
    self, base: Published, params: Any, dtype: DTypeLike | None, mesh: jax.sharding.Mesh | None
  ) -> tuple[Model, Any]:
    """Add the adapter to a model as a LoRA of tfm.

    Both factors are padded with zeros for modules of smaller rank and for layers without an
    adapter. Zero factors have zero gradients, so training does not change them.

    Args:
      base: The base model.
      params: The parameters of the base model.
      dtype: The dtype of the factors. None keeps the stored dtype.
      mesh: The mesh of the parameters, None for one device.

    Returns:
      The spec with the LoRA, and its parameters.
    """
    separate, _ = self._split(base)
    if not separate:
      return base.spec, params
    pairs = {m: self.pairs[m] for m in separate}
    rank = max(len(p.a) for p in pairs.values())
    factor = Counter(p.scale for p in pairs.values()).most_common(1)[0][0]
    stable = bool(self.config.get('use_rslora'))
    modules = {_module(s.path) for t in separate.values() for s in t.slots}
    targets = tuple(sorted({m.rpartition('/')[2] for m in modules}))
    alpha = factor * (math.sqrt(rank) if stable else rank)
    spec = dataclasses.replace(base.spec, adapter=LoRA(rank, alpha, targets, stable))
    shapes, letters = transformer.param_shapes(spec), transformer.param_letters(spec)
    shardings = _flat(shard.placed(mesh, RULES, letters, shapes))
    leaves = _flat(params)
    for name, array in self._factors(spec, separate, factor, dtype).items():
      leaves[name] = jax.make_array_from_callback(array.shape, shardings[name], array.__getitem__)
    ordered = [leaves[name] for name in _flat(shapes)]
    return spec, jax.tree.unflatten(jax.tree.structure(shapes), ordered)

  def _factors(
    self, spec: Model, adapted: Mapping[str, Tensor], scale: float, dtype: DTypeLike | None
  ) -> dict[str, Any]:
    """Return the parameters of the LoRA by path, for the common `scale`."""
    stored = np.result_type(*(self.pairs[m].a.dtype for m in adapted))
    kind = np.dtype(jnp.dtype(dtype or stored))
    shapes = _flat(transformer.param_shapes(spec))
    filled = {n: np.zeros(s.shape, kind) for n, s in shapes.items() if '/lora/' in n}
    for module, tensor in adapted.items():
      a, b, own_scale, _ = self.pairs[module]
      if own_scale != scale:
        b = (b.astype(np.float32) * np.float32(own_scale / scale)).astype(b.dtype)
      for slot, factors in zip(tensor.slots, split_factors(tensor, a, b), strict=True):
        path = f'{_module(slot.path)}/lora'
        filled[f'{path}/a'][slot.index][..., : len(a)] = factors.a
        filled[f'{path}/b'][slot.index][: len(a)] = factors.b
    return filled


def _mapped(values: Mapping[str, Any]) -> list[Tensor]:
  model = published(values)
  return tensor_map(model.family, model.spec, model.ending)


def _module(path: str) -> str:
  return path.rpartition('/')[0]


def _adaptable(spec: Model, modules: set[str]) -> set[str]:
  """Return the modules that tfm's LoRA can adapt."""
  roles = tuple(sorted({m.rpartition('/')[2] for m in modules}))
  trial = dataclasses.replace(spec, adapter=LoRA(1, 1.0, roles))
  paths = _flat(transformer.param_shapes(trial))
  return {path.removesuffix('/lora/a') for path in paths if path.endswith('/lora/a')}


def _flat(tree: Any) -> dict[str, Any]:
  pairs = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_sharding)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): x for path, x in pairs}


def _is_sharding(node: Any) -> bool:
  return isinstance(node, jax.sharding.Sharding)
