"""Toy models of texts and images, in transformers and tfm."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tests.hub.published import Both, Case
from tests.oracles import copying
from tfm import hub
from tfm.model.transformer import apply

V, END, TEXTS, IMAGES, T = 61, 57, 3, 2, 10
_TEXT = {
  'vocab_size': V, 'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4,
  'intermediate_size': 48,
  'max_position_embeddings': 16, 'eos_token_id': END, 'bos_token_id': 1, 'pad_token_id': 0,
}  # fmt: skip
_OLD = {**_TEXT, 'eos_token_id': 2}
_IMAGE = {
  'hidden_size': 24, 'num_hidden_layers': 3, 'num_attention_heads': 2, 'intermediate_size': 40,
  'image_size': 24, 'patch_size': 8,
}  # fmt: skip
_GELU = {'hidden_act': 'gelu'}
#: SigLIP compares vectors as wide as its image tower.
_TO_IMAGES = {**_TEXT, 'projection_size': 24}

CASES = {
  'clip': Case('CLIPConfig', 'CLIPModel', {
    'text_config': _TEXT, 'vision_config': _IMAGE, 'projection_dim': 20,
  }),
  'clip-old-end': Case(
    'CLIPConfig', 'CLIPModel',
    {
      'text_config': {**_OLD, **_GELU}, 'vision_config': {**_IMAGE, **_GELU},
      'logit_scale_init_value': 1.5,
    },
  ),
  'clip-text': Case('CLIPTextConfig', 'CLIPTextModelWithProjection', {
    **_TEXT, 'projection_dim': 20,
  }),
  'clip-text-body': Case('CLIPTextConfig', 'CLIPTextModel', _OLD),
  'clip-image': Case('CLIPVisionConfig', 'CLIPVisionModelWithProjection', {
    **_IMAGE, 'projection_dim': 20,
  }),
  'clip-image-body': Case('CLIPVisionConfig', 'CLIPVisionModel', _IMAGE),
  'siglip': Case('SiglipConfig', 'SiglipModel', {
    'text_config': _TO_IMAGES, 'vision_config': _IMAGE,
  }),
  'siglip-text': Case('SiglipTextConfig', 'SiglipTextModel', _TEXT),
  'siglip-image': Case('SiglipVisionConfig', 'SiglipVisionModel', _IMAGE),
  'siglip-image-no-head': Case('SiglipVisionConfig', 'SiglipVisionModel', {
    **_IMAGE, 'vision_use_head': False,
  }),
}  # fmt: skip
#: The outputs to compare, if a class returns them.
NAMES = (
  'logits_per_image',
  'logits_per_text',
  'text_embeds',
  'image_embeds',
  'pooler_output',
  'last_hidden_state',
)


def build(case: Case, folder: Path) -> Both:
  """Return a case in both libraries, with weights drawn and written by transformers."""
  import torch
  import transformers

  torch.manual_seed(0)
  config = getattr(transformers, case.config)(**case.fields)
  config._attn_implementation = 'eager'
  theirs = getattr(transformers, case.model)(config)
  copying.randomized(theirs, case.std)
  theirs.save_pretrained(folder)
  ours = hub.load(folder)
  return Both(case, folder, theirs, ours, inputs(ours.spec), np.ones((TEXTS, T), bool))


def inputs(spec: Any) -> dict[str, np.ndarray]:
  """Return the inputs of a model: texts with different ends, and images."""
  rng = np.random.default_rng(0)
  ids = rng.integers(3, END, (TEXTS, T)).astype(np.int32)
  for row, end in enumerate((T - 1, 6, 4)):
    ids[row, end:] = END
  ids[1, 8] = V - 1  # An added token, with an id above the end token.
  pixels = rng.standard_normal((IMAGES, 3, 24, 24)).astype(np.float32)
  found = {'input_ids': ids, 'pixel_values': pixels}
  towers = (spec, *spec.towers.values())
  needed = set().union(*(t.embed.needs for t in towers))
  return {name: array for name, array in found.items() if name in needed}


def their_inputs(both: Both) -> dict[str, Any]:
  """Return the inputs as PyTorch tensors."""
  import torch

  tensors = {n: torch.tensor(a) for n, a in both.inputs.items()}
  return {n: x if x.is_floating_point() else x.long() for n, x in tensors.items()}


def their_outputs(both: Both) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Return the outputs of transformers and each tensor's gradient of `total`."""
  import torch

  out = both.theirs(**their_inputs(both), output_hidden_states=True)
  found = {n: out[n] for n in NAMES if n in out and out[n] is not None}
  scored = [
    torch.tensor(weight(n, x.shape)).mul(x).sum() for n, x in found.items() if scores(both, n)
  ]
  both.theirs.zero_grad()
  sum(scored).backward()
  grads = {n: p.grad.numpy() for n, p in both.theirs.named_parameters() if p.grad is not None}
  if 'hidden_states' in out:
    # In transformers, the last hidden state is before the norm.
    found |= {f'hidden_states/{i}': x for i, x in enumerate(out.hidden_states[:-1])}
  for name, tower in (('', 'text_model_output'), ('vision_', 'vision_model_output')):
    if tower in out:
      found |= {f'{name}last_hidden_state': out[tower].last_hidden_state}
  return {n: x.detach().numpy() for n, x in found.items()}, grads


def our_outputs(both: Both) -> tuple[dict[str, np.ndarray], Any]:
  """Return the outputs of tfm and the gradient of `total`."""
  spec = both.ours.spec

  def total(params, given):
    out = apply(spec, params, output_hidden_states=True, **given)
    found = {n: out[n] for n in out if n in NAMES or n == 'vision_last_hidden_state'}
    found |= {f'hidden_states/{i}': x for i, x in enumerate(out['hidden_states'][:-1])}
    return sum(jnp.sum(weight(n, out[n].shape) * out[n]) for n in found if scores(both, n)), found

  grads, out = jax.jit(jax.grad(total, has_aux=True))(both.ours.params, both.inputs)
  return jax.tree.map(np.asarray, out), grads


def scores(both: Both, name: str) -> bool:
  """Return whether an output is part of the loss.

  With two towers, only the outputs of the heads are.
  """
  return name in NAMES and (name != 'last_hidden_state' or not both.ours.spec.towers)


def weight(name: str, shape: Any) -> np.ndarray:
  """Return the weights of an output in the loss."""
  return np.random.default_rng(len(name)).standard_normal(tuple(shape)).astype(np.float32)
