"""Compare published families at toy size between transformers and tfm."""

from collections.abc import Collection
import copy
import dataclasses
import functools
import inspect
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.oracles import copying
from tfm import hub
from tfm.hub.check_tensors import check_tensors
from tfm.hub.fill_params import fill_params
from tfm.hub.load import read_config
from tfm.hub.tensors import Tensors, open_tensors
from tfm.model.cache import init_cache
from tfm.model.spec import token_extras
from tfm.model.transformer import apply

V, D, L, N, K, F, T = 61, 32, 2, 4, 2, 48, 12
EOS = 2
#: The outputs with the hidden states of all layers.
HIDDEN = ('hidden_states', 'encoder_hidden_states', 'decoder_hidden_states')

#: Sizes under the field names of most configs.
SIZES = {
  'vocab_size': V, 'hidden_size': D, 'num_hidden_layers': L, 'num_attention_heads': N,
  'intermediate_size': F, 'max_position_embeddings': 64,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
  """A toy model of transformers.

  Attributes:
    config: The name of the config class.
    model: The name of the model class.
    fields: The fields of the config.
    std: The standard deviation of the noise on each parameter, so that none has its initial value.
    atol: The tolerance of outputs of order 1.
    attend: The attention implementation.
    kept: Part of the names of tensors that keep their initial values.
    buffers: Buffers that are also drawn at random and have gradients.
    left: Whether a sequence has left padding. transformers counts some positions from there.
    padded: Whether sequences are padded at all.
    idle: A pattern of tensors that tfm does not have.
    first: The position of the first token in transformers.
    merged: Whether transformers has one parameter for several tensors of a checkpoint (experts).
    whole: Whether gradients and cached decoding are compared, too.
    leaving: Whether hidden states are the outputs of layers, with the last one normalised.
    streams: Whether hidden states of transformers are several streams; tfm has the first.
    image: The size of images, in place of the size in the config.
  """

  config: str
  model: str
  fields: dict[str, Any]
  std: float = 0.1
  atol: float = 2e-5
  attend: str = 'eager'
  kept: str | None = None
  buffers: tuple[str, ...] = ()
  left: bool = True
  padded: bool = True
  idle: str | None = None
  first: int = 0
  merged: bool = False
  whole: bool = False
  leaving: bool = False
  streams: bool = False
  image: tuple[int, int] | None = None

  @property
  def choosing(self) -> bool:
    """Whether the batch of transformers holds choices of one question."""
    return self.model.endswith('ForMultipleChoice')


@dataclasses.dataclass
class Both:
  """A case in both libraries.

  Attributes:
    case: The case.
    folder: The published folder.
    theirs: The model of transformers.
    ours: The model that tfm loaded.
    inputs: The inputs by name.
    real: Where the scored tokens are, `[B, T]`.
  """

  case: Case
  folder: Path
  theirs: Any
  ours: hub.Loaded
  inputs: dict[str, np.ndarray]
  real: np.ndarray

  @property
  def causal(self) -> bool:
    return self.ours.spec.causal and self.ours.spec.lm is not None and self.ours.spec.apart

  @functools.cached_property
  def reference(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The result of `their_outputs`."""
    return their_outputs(self)


def build(case: Case, folder: Path) -> Both:
  """Return a case with random weights, written by `save_pretrained` and loaded by tfm."""
  import torch
  import transformers

  torch.manual_seed(0)
  config = getattr(transformers, case.config)(**case.fields)
  config._attn_implementation = case.attend
  theirs = getattr(transformers, case.model)(config)
  kept = {
    n: p.clone() for n, p in theirs.named_parameters() if case.kept is not None and case.kept in n
  }
  copying.randomized(theirs, case.std)
  with torch.no_grad():
    for name, p in theirs.named_parameters():
      p.copy_(kept.get(name, p))
    for name in case.buffers:
      theirs.get_buffer(name).normal_().requires_grad_()
  theirs.requires_grad_()  # Some classes freeze a table.
  theirs.save_pretrained(folder)
  ours = hub.load(folder)
  # Use NumPy arrays, because JAX would compile a program for each slice of a layer.
  ours = ours._replace(params=jax.tree.map(np.asarray, ours.params))
  inputs, real = _inputs(ours.spec, case)
  return Both(case, folder, theirs, ours, inputs, real)


def _inputs(spec: Any, case: Case) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Return three sequences and a mask of the scored tokens.

  The first is full, the second has right padding, the third has mostly left padding.
  """
  if not spec.vocab:
    return _arrays(spec, case), np.ones((3, spec.embed.tokens(T)), bool)
  mask = np.ones((3, T), np.int32)
  if case.padded:
    mask[1, 9:] = 0
  # transformers uses the first token even if it is padding.
  first = spec.classifier is not None and spec.classifier.pick == 'first'
  if case.left and case.padded and not first:
    mask[2, :4] = 0
  # Padding is token 0, which some classes of transformers search for.
  ids = copying.tokens(3, T, vocab=V).astype(np.int32)
  # In transformers, the embedding of the padding token has no gradient.
  ids = np.where(ids == case.first - 1, V - 1, ids) * mask
  inputs = {'input_ids': ids, 'attention_mask': mask}
  if spec.embed.types or 'type' in token_extras(spec):
    types = np.minimum(np.arange(T)[None] // 6, (spec.embed.types or 2) - 1)
    inputs['token_type_ids'] = types.astype(np.int32) * np.ones((3, 1), np.int32)
  if 'language' in token_extras(spec):
    inputs['lang_ids'] = ((np.arange(T)[None] // 5 + np.arange(3)[:, None]) % 3).astype(np.int32)
  source = spec if spec.encoder is None else spec.tower('encoder')
  if 'global' in token_extras(source) and 'global_attention_mask' in source.embed.takes:
    global_T = np.isin(np.arange(T), (0, 7)).astype(np.int32)
    inputs['global_attention_mask'] = np.tile(global_T, (3, 1))
  if spec.encoder is None:
    return inputs, mask > 0
  if 'input_features' in spec.tower('encoder').embed.needs:
    shape = spec.tower('encoder').embed.shapes(3, T)['input_features'].shape
    features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    decoder = copying.tokens(3, 7, seed=1, vocab=V).astype(np.int32)
    return {'input_features': features, 'decoder_input_ids': decoder}, np.ones((3, 7), bool)
  if spec.classifier is not None and spec.classifier.pick == 'last':
    # transformers pools at the last EOS of the source, tfm at the last decoder token.
    inputs['input_ids'] = np.where(ids == EOS, EOS + 1, ids)
    inputs['input_ids'][np.arange(3), [T - 1, 8, T - 1]] = EOS
    shifted = np.pad(inputs['input_ids'], ((0, 0), (1, 0)), constant_values=1)
    inputs['decoder_input_ids'] = shifted[:, :-1]
    inputs['decoder_attention_mask'] = mask
    return inputs, mask > 0
  inputs['decoder_input_ids'] = copying.tokens(3, 7, seed=1, vocab=V).astype(np.int32)
  return inputs, np.ones((3, 7), bool)


def _arrays(spec: Any, case: Case) -> dict[str, np.ndarray]:
  """Return a batch of three random images or other arrays that the model reads."""
  rng = np.random.default_rng(0)
  embed = spec.embed if case.image is None else dataclasses.replace(spec.embed, image=case.image)
  inputs = {
    n: rng.standard_normal(x.shape).astype(np.float32) for n, x in embed.shapes(3, T).items()
  }
  if getattr(embed, 'mask_token', False) and case.model.endswith('Model'):
    inputs['bool_masked_pos'] = rng.random((3, embed.tokens(T) - embed.lead)) < 0.4
  return inputs


def their_inputs(both: Both) -> dict[str, Any]:
  """Return the inputs that transformers reads as tensors.

  For multiple choice, each sequence is the single choice of a question.
  """
  import torch

  known = inspect.signature(both.theirs.forward).parameters
  kinds = {'i': torch.long, 'f': torch.float32, 'b': torch.bool}
  tensors = {
    n: torch.tensor(v, dtype=kinds[v.dtype.kind]) for n, v in both.inputs.items() if n in known
  }
  if both.case.image is not None and 'interpolate_pos_encoding' in known:
    tensors['interpolate_pos_encoding'] = True
  if both.case.choosing:
    return {n: x[:, None] for n, x in tensors.items()}
  return tensors


def their_outputs(both: Both) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Return the logits and hidden states of transformers, and gradients by tensor.

  Hidden states have names such as 'hidden_states/0'. Gradients are empty except for `whole` cases.
  """
  import torch

  known = inspect.signature(both.theirs.forward).parameters
  inputs = their_inputs(both)
  # Some classes do not fold the choices of positions.
  choosing = both.case.choosing and not both.case.first
  if (
    'position_ids' in known
    and both.ours.spec.vocab
    and both.ours.spec.encoder is None
    and not choosing
  ):
    mask = torch.tensor(both.inputs['attention_mask'], dtype=torch.long)
    places = mask.reshape(inputs['input_ids'].shape)
    inputs['position_ids'] = (places.cumsum(-1) - 1).clamp(min=0) + both.case.first
  both.theirs.zero_grad()
  for name in both.case.buffers:
    both.theirs.get_buffer(name).grad = None
  with torch.set_grad_enabled(both.case.whole):
    out = both.theirs(**inputs, output_hidden_states=True)
  # PEGASUS-X's last one holds the global vectors too.
  plain = lambda stack: tuple(x[0] if isinstance(x, tuple) else x for x in stack)
  stacks = {n: plain(out[n]) for n in HIDDEN if n in out}
  if both.case.streams:
    with torch.set_grad_enabled(both.case.whole):
      last = both.theirs.base_model(**inputs).last_hidden_state
    stacks = {n: (*(x[0] for x in stack[:-1]), last) for n, stack in stacks.items()}
  hidden = stacks.get('decoder_hidden_states', stacks.get('hidden_states'))
  layers = {f'{n}/{i}': x for n, stack in stacks.items() for i, x in enumerate(stack)}
  if both.case.leaving:
    last = len(hidden) - 1
    entering = both.theirs.get_input_embeddings()(inputs['input_ids'])
    stack = (entering, *hidden[: last - 1], hidden[last])
    layers = {f'hidden_states/{i}': x for i, x in enumerate(stack)}
  last = hidden[-1] if both.ours.spec.embed.ends_with_norm else out.get('last_hidden_state')
  found = ({} if last is None else {'last_hidden_state': last}) | _logits(out)
  if found.get('logits', hidden[-1]).shape == both.real.shape:  # One number per token.
    found['logits'] = found['logits'][..., None]
  outputs = {n: v.detach().numpy() for n, v in {**found, **layers}.items()}
  if not both.case.whole:
    return outputs, {}
  total = sum(
    (torch.tensor(_weight(n, v.shape, both.real)) * v).sum()
    for n, v in found.items()
    if n != 'last_hidden_state'
  )
  if isinstance(total, int):
    total = (torch.tensor(_weight('x', hidden[-1].shape, both.real)) * hidden[-1]).sum()
  total.backward()
  buffers = ((n, both.theirs.get_buffer(n)) for n in both.case.buffers)
  leaves = [*both.theirs.named_parameters(remove_duplicate=False), *buffers]
  grads = {n: p.grad.numpy() for n, p in leaves if p.grad is not None}
  return outputs, _as_written(both, grads) if both.case.merged else grads


def _as_written(both: Both, grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Return arrays by parameter as arrays by the tensor names of `save_pretrained`."""
  import torch

  holder, folder = copy.deepcopy(both.theirs), both.folder.with_name('gradients')
  with torch.no_grad():
    for name, p in [*holder.named_parameters(), *holder.named_buffers()]:
      p.copy_(torch.tensor(grads[name])) if name in grads else p.zero_()
  holder.save_pretrained(folder)
  return dict(open_tensors(folder))


def _logits(out: Any) -> dict[str, Any]:
  """Return the outputs of transformers under tfm's names."""
  import torch

  if 'start_logits' in out:
    return {'logits': torch.stack([out.start_logits, out.end_logits], -1)}
  names = {
    'logits': 'logits',
    'prediction_logits': 'logits',
    'seq_relationship_logits': 'class_logits',
  }
  names |= {'pooler_output': 'pooler_output', 'sop_logits': 'class_logits'}
  names |= {n: n for n in ('cls_logits', 'distillation_logits')}
  return {
    ours: out[theirs] for theirs, ours in names.items() if theirs in out and out[theirs] is not None
  }


def _weight(name: str, shape: Any, real: np.ndarray) -> np.ndarray:
  weight = np.random.default_rng(len(name)).standard_normal(tuple(shape)).astype(np.float32)
  if weight.ndim == 3 and weight.shape[:2] == real.shape:
    return weight * real[:, :, None]
  return weight


def our_outputs(both: Both, names: Collection[str]) -> tuple[dict[str, np.ndarray], Any]:
  """Return the outputs of these names, and the gradient of the parameters or None."""
  plain = [n for n in names if '/' not in n]
  scored = [n for n in plain if n != 'last_hidden_state'] or ['last_hidden_state']
  spec = both.ours.spec

  def total(params, inputs):
    out = apply(spec, params, output_hidden_states=True, **inputs)
    keys = {n: ('x' if n == 'last_hidden_state' else n) for n in scored}
    layers = {f'{n}/{i}': x for n in HIDDEN if n in out for i, x in enumerate(out[n])}
    found = {n: out[n] for n in plain} | layers
    return sum(jnp.sum(_weight(keys[n], out[n].shape, both.real) * out[n]) for n in scored), found

  run = jax.grad(total, has_aux=True) if both.case.whole else lambda *args: (None, total(*args)[1])
  grads, out = jax.jit(run)(both.ours.params, both.inputs)
  return jax.tree.map(np.asarray, out), grads


def as_ours(both: Both, tensors: dict[str, np.ndarray]) -> Any:
  """Return tensors by name as a tree of tfm parameters."""
  found = read_config(both.folder)
  arrays = {n: np.zeros(t.shape, np.float32) for n, t in _tensor_map(both).items()}
  arrays |= {n: v for n, v in tensors.items() if n in arrays}
  filled = Tensors(arrays)
  expected = check_tensors('gradients', found._replace(spec=both.ours.spec), filled)
  return fill_params(both.ours.spec, expected, filled, None, None)


def _tensor_map(both: Both) -> dict[str, Any]:
  found = read_config(both.folder)._replace(spec=both.ours.spec)
  return {t.name: t for t in check_tensors('file', found, open_tensors(both.folder))}


def in_steps(both: Both) -> np.ndarray:
  """Return the logits of the first sequence, decoded through a cache two tokens at a time."""
  spec, inputs = both.ours.spec, both.inputs
  name = 'decoder_input_ids' if spec.encoder is not None else 'input_ids'
  ids = inputs[name][:1]
  ids = np.stack([ids[:, at : at + 2] for at in range(0, ids.shape[1] // 2 * 2, 2)])
  source = {}
  if spec.encoder is not None:
    source = {n: a[:1] for n, a in inputs.items() if not n.startswith('decoder_')}

  @jax.jit
  def run(params, ids, source):
    def step(cache, ids):
      out = apply(spec, params, cache=cache, **{name: ids})
      return out['cache'], out['logits']

    cache, first = init_cache(spec, 1, 2 * len(ids), source=T), []
    if source:
      out = apply(spec, params, cache=cache, **source, **{name: ids[0]})
      cache, first, ids = out['cache'], [out['logits']], ids[1:]
    return [*first, *jax.lax.scan(step, cache, ids)[1]]

  return np.concatenate(run(both.ours.params, ids, source), 1)


def reached(case: str, **found: object) -> None:
  """Append the measured differences of a case to the file TFM_REACHED.

  `scripts/model_cards.py` reads the file.
  """
  if path := os.environ.get('TFM_REACHED'):
    with open(path, 'a', encoding='utf-8') as file:
      file.write(json.dumps({'case': case, **found}) + '\n')


def type_of(case):
  import transformers

  return getattr(transformers, case.config).model_type
