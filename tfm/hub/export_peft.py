"""Export a LoRA of tfm to a folder for `peft.PeftModel.from_pretrained(base, folder)`."""

from collections.abc import Mapping
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from tfm.core import errors
from tfm.core.newfolder import check_new, new_folder
from tfm.hub.export import class_of
from tfm.hub.lora_factors import Factors, inputs_first, is_linear, join_factors
from tfm.hub.peft import CONFIG, SAFE
from tfm.model.spec import Model
from tfm.parts.adapter.base import Adapter
from tfm.parts.adapter.lora import LoRA
from tfm.zoo.weights import Tensor, tensor_map

_TASKS = {
  'ForCausalLM': 'CAUSAL_LM', 'LMHeadModel': 'CAUSAL_LM',
  'ForConditionalGeneration': 'SEQ_2_SEQ_LM',
  'ForSequenceClassification': 'SEQ_CLS', 'ForTokenClassification': 'TOKEN_CLS',
  'ForQuestionAnswering': 'QUESTION_ANS',
}  # fmt: skip

#: Heads that PEFT stores in full, for tasks other than language modelling.
_HEADS = ('classifier', 'score', 'qa_outputs')


def export_peft(
  spec: Model, params: Any, path: str | Path, *, base: str | Path, architecture: str | None = None
) -> str:
  """Write the LoRA of a model to a new PEFT folder, with the head of a classifier in full.

  All other parameters are assumed to equal the base model's.

  Args:
    spec: A model with `adapter=lora`.
    params: The parameters.
    path: The new folder, which is written completely or not at all.
    base: The folder or Hub id of the base model, for `base_model_name_or_path`.
    architecture: The class of the base model. By default the first class that can express `spec`.

  Returns:
    The name of the class.

  Raises:
    UserError: The model has no LoRA, no published class can express it, or `path` exists.
  """
  adapter = spec.adapter
  check_new(path)
  if not isinstance(adapter, LoRA):
    raise errors.UserError('export_peft: the model has no LoRA. Expected a spec with adapter=lora.')
  _, model = class_of(dataclasses.replace(spec, adapter=Adapter()), architecture)
  base_spec = dataclasses.replace(model.spec, adapter=Adapter())
  tensors = tensor_map(model.family, base_spec, model.ending)
  leaves = _flat(params)
  adapted = {}
  for t in tensors:
    has_lora = any(_name(s, 'a') in leaves for s in t.slots)
    if has_lora and all(s.n_in for s in t.slots):
      adapted[t.name.removesuffix('.weight')] = t
  if other := [t.name for t in adapted.values() if not is_linear(t)]:
    raise errors.UserError(
      f'export_peft: PEFT cannot adapt {other[0]}. Expected a LoRA of linear layers only.'
    )
  pairs = {}
  for module, t in adapted.items():
    pairs[module] = join_factors(t, [_factors(s, leaves) for s in t.slots])
  config = _config(adapter, tensors, adapted, {m: len(a) for m, (a, _) in pairs.items()})
  heads = []
  for t in tensors:
    if t.name.partition('.')[0] in _HEADS and t.name.rpartition('.')[0] not in adapted:
      heads.append(t)
  config |= {
    'base_model_name_or_path': str(base),
    'task_type': _TASKS.get(model.ending),
    'modules_to_save': sorted({t.name.partition('.')[0] for t in heads}) or None,
  }
  arrays: dict[str, np.ndarray] = {}
  for module, (a, b) in pairs.items():
    arrays[f'base_model.model.{module}.lora_A.weight'] = np.ascontiguousarray(a)
    arrays[f'base_model.model.{module}.lora_B.weight'] = np.ascontiguousarray(b)
  for t in heads:
    arrays[f'base_model.model.{t.name}'] = _full_tensor(t, leaves)
  _write(path, config, arrays)
  return model.architecture


def _flat(params: Any) -> dict[str, Any]:
  pairs = jax.tree_util.tree_leaves_with_path(params)
  return {jax.tree_util.keystr(p, simple=True, separator='/'): x for p, x in pairs}


def _name(slot: Any, half: str) -> str:
  return f'{slot.path.rpartition("/")[0]}/lora/{half}'


def _factors(slot: Any, leaves: Mapping[str, Any]) -> Factors | None:
  if _name(slot, 'a') not in leaves:
    return None
  a, b = (leaves[_name(slot, half)][slot.index] for half in 'ab')
  return Factors(np.asarray(jax.device_get(a)), np.asarray(jax.device_get(b)))


def _full_tensor(tensor: Tensor, leaves: Mapping[str, Any]) -> np.ndarray:
  parts = [np.asarray(jax.device_get(leaves[s.path][s.index])) for s in tensor.slots]
  return np.ascontiguousarray(tensor.rule.join(parts, tensor.slots))


def _config(
  adapter: LoRA, tensors: list[Tensor], adapted: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> dict[str, Any]:
  """Return the PEFT config. Fused projections have the sum of ranks, in `rank_pattern`."""
  common = min(ranks.values())
  alpha = lambda rank: adapter.factor * (math.sqrt(rank) if adapter.stable else rank)
  odd = {module: rank for module, rank in ranks.items() if rank != common}
  odd_alphas = {module: alpha(rank) for module, rank in odd.items()}
  modules = [t.name.removesuffix('.weight') for t in tensors if t.name.endswith('.weight')]
  targets = sorted({_target(module, modules, adapted) for module in adapted})
  return {
    'peft_type': 'LORA', 'r': common, 'lora_alpha': alpha(common), 'target_modules': targets,
    'rank_pattern': _by_target(odd, modules, adapted), 'use_rslora': adapter.stable,
    'lora_dropout': 0.0,
    'alpha_pattern': _by_target(odd_alphas, modules, adapted), 'bias': 'none',
    'fan_in_fan_out': any(inputs_first(t) for t in adapted.values()), 'inference_mode': True,
    'init_lora_weights': True,
  }  # fmt: skip


def _target(module: str, modules: list[str], adapted: Mapping[str, Tensor]) -> str:
  """Return the shortest suffix of a module's name that only adapted modules have."""
  parts = module.split('.')
  for n in range(1, len(parts)):
    ending = '.'.join(parts[-n:])
    matches = [m for m in modules if m == ending or m.endswith(f'.{ending}')]
    if not ending[0].isdigit() and all(m in adapted for m in matches):
      return ending
  return module


def _by_target(
  values: Mapping[str, Any], modules: list[str], adapted: Mapping[str, Tensor]
) -> dict[str, Any]:
  """Return values by target if all modules of the target agree, else by module."""
  found: dict[str, set[Any]] = {}
  for module in adapted:
    found.setdefault(_target(module, modules, adapted), set()).add(values.get(module))
  by_name = {}
  for module, value in values.items():
    target = _target(module, modules, adapted)
    by_name[target if len(found[target]) == 1 else module] = value
  return by_name


def _write(path: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
  with new_folder(path) as folder:
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + '\n', 'utf-8')
    safetensors.numpy.save_file(dict(tensors), folder / SAFE, metadata={'format': 'pt'})
