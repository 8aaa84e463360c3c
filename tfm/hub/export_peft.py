"""A LoRA of tfm as a PEFT folder, which `peft.PeftModel.from_pretrained(base, folder)` opens."""

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

#: Heads that PEFT expects in the folder, whole, for tasks other than language modelling.
_HEADS = ('classifier', 'score', 'qa_outputs')


def export_peft(
  spec: Model, params: Any, path: str | Path, *, base: str | Path, architecture: str | None = None
) -> str:
  """Write the LoRA of a model as the new PEFT folder `path`, and the head of a classifier whole.

  The other parameters are taken to be those of the base model.

  Args:
    spec: a model with `adapter=lora`.
    params: its parameters.
    path: the folder, which is written whole or not at all.
    base: folder or Hub id of the model that the adapter was trained on, for
    `base_model_name_or_path`.
    architecture: class of the base model. None finds it by what the spec computes.

  Returns:
    The name of the class.

  Raises:
    UserError: the model has no LoRA, no published family computes what it does, or `path` is there
    already.
  """
  adapter = spec.adapter
  check_new(path)
  if not isinstance(adapter, LoRA):
    raise errors.UserError('export_peft: the model has no LoRA. Expected a spec with adapter=lora.')
  _, found = class_of(dataclasses.replace(spec, adapter=Adapter()), architecture)
  kernels = tensor_map(
    found.family, dataclasses.replace(found.spec, adapter=Adapter()), found.ending
  )
  leaves = {
    jax.tree_util.keystr(p, simple=True, separator='/'): x
    for p, x in jax.tree_util.tree_leaves_with_path(params)
  }
  weights = (t for t in kernels if all(s.n_in for s in t.slots))
  adapted = {
    t.name.removesuffix('.weight'): t
    for t in weights
    if any(_name(s, 'a') in leaves for s in t.slots)
  }
  if other := [t.name for t in adapted.values() if not is_linear(t)]:
    raise errors.UserError(f'export_peft: {other[0]} is no linear layer, and PEFT cannot adapt it.')
  pairs = {
    module: join_factors(t, [_factors(s, leaves) for s in t.slots]) for module, t in adapted.items()
  }
  config = _config(adapter, kernels, adapted, {m: len(a) for m, (a, _) in pairs.items()})
  heads = [
    t
    for t in kernels
    if t.name.partition('.')[0] in _HEADS and t.name.rpartition('.')[0] not in adapted
  ]
  saved = sorted({t.name.partition('.')[0] for t in heads}) or None
  config |= {
    'base_model_name_or_path': str(base),
    'task_type': _TASKS.get(found.ending),
    'modules_to_save': saved,
  }
  tensors: dict[str, np.ndarray] = {}
  for module, (a, b) in pairs.items():
    stem = f'base_model.model.{module}'
    tensors |= {
      f'{stem}.lora_A.weight': np.ascontiguousarray(a),
      f'{stem}.lora_B.weight': np.ascontiguousarray(b),
    }
  _write(path, config, tensors | {f'base_model.model.{t.name}': _whole(t, leaves) for t in heads})
  return found.architecture


def _name(slot: Any, half: str) -> str:
  return f'{slot.path.rpartition("/")[0]}/lora/{half}'


def _factors(slot: Any, leaves: Mapping[str, Any]) -> Factors | None:
  if _name(slot, 'a') not in leaves:
    return None
  return Factors(
    *(np.asarray(jax.device_get(leaves[_name(slot, half)][slot.index])) for half in 'ab')
  )


def _whole(tensor: Tensor, leaves: Mapping[str, Any]) -> np.ndarray:
  ours = [np.asarray(jax.device_get(leaves[s.path][s.index])) for s in tensor.slots]
  return np.ascontiguousarray(tensor.rule.join(ours, tensor.slots))


def _config(
  adapter: LoRA, kernels: list[Tensor], adapted: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> dict[str, Any]:
  """Return the fields of PEFT. Ranks of fused projections add up, so they have patterns."""
  common = min(ranks.values())
  alpha = lambda rank: adapter.factor * (math.sqrt(rank) if adapter.stable else rank)
  odd = {module: rank for module, rank in ranks.items() if rank != common}
  modules = [t.name.removesuffix('.weight') for t in kernels if t.name.endswith('.weight')]
  targets = sorted({_target(module, modules, adapted) for module in adapted})
  return {
    'peft_type': 'LORA', 'r': common, 'lora_alpha': alpha(common), 'target_modules': targets,
    'rank_pattern': _by_target(odd, modules, adapted), 'use_rslora': adapter.stable,
    'lora_dropout': 0.0,
    'alpha_pattern': _by_target({m: alpha(rank) for m, rank in odd.items()}, modules, adapted),
    'bias': 'none',
    'fan_in_fan_out': any(inputs_first(t) for t in adapted.values()), 'inference_mode': True,
    'init_lora_weights': True,
  }  # fmt: skip


def _target(module: str, modules: list[str], adapted: Mapping[str, Tensor]) -> str:
  """Return the shortest ending of a module's name that no module has that is not adapted."""
  parts = module.split('.')
  for n in range(1, len(parts)):
    ending = '.'.join(parts[-n:])
    if not ending[0].isdigit() and all(
      m in adapted for m in modules if m == ending or m.endswith(f'.{ending}')
    ):
      return ending
  return module


def _by_target(
  values: Mapping[str, Any], modules: list[str], adapted: Mapping[str, Tensor]
) -> dict[str, Any]:
  """Return values by target where all modules of a target agree, else by module."""
  found: dict[str, set[Any]] = {}
  for module in adapted:
    found.setdefault(_target(module, modules, adapted), set()).add(values.get(module))
  same = {target for target, each in found.items() if len(each) == 1}
  key = lambda module: target if (target := _target(module, modules, adapted)) in same else module
  return {key(module): value for module, value in values.items()}


def _write(path: str | Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
  with new_folder(path) as half:
    (half / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + '\n', 'utf-8')
    safetensors.numpy.save_file(dict(tensors), half / SAFE, metadata={'format': 'pt'})
