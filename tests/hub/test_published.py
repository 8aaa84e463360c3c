"""Published weights of every family match transformers, and export returns them."""

import dataclasses
import re

import numpy as np
import pytest

from tests import groups
from tests.hub import (
  decoders,
  decoders_2025,
  decoders_dense,
  decoders_llama,
  decoders_mixtures,
  encoders,
  encoders_kin,
  encoders_of_parts,
  images,
  published,
  seq2seq,
  seq2seq_kin,
  seq2seq_of_parts,
  speech,
  towers,
)  # fmt: skip
from tests.oracles import copying
from tfm import hub
from tfm.hub.tensors import open_tensors
from tfm.zoo import weights

pytestmark = pytest.mark.oracle
CASES = {
  **decoders.CASES, **decoders_llama.CASES, **decoders_dense.CASES, **encoders.CASES,
  **encoders_kin.CASES, **decoders_dense.OF_ENCODERS, **seq2seq.CASES, **seq2seq_kin.CASES,
  **images.CASES, **speech.CASES, **decoders_mixtures.CASES, **decoders_2025.CASES,
  **encoders_of_parts.CASES, **seq2seq_of_parts.CASES,
}  # fmt: skip
#: Families with parts that earlier families lack. Gradients and cached decoding of these always
#: run. The large group runs them for the first case of every family.
WHOLE = (
  'gpt2', 'gptj', 'bloom', 'falcon-7b', 'llama', 'cohere2', 'mixtral', 'gemma3', 'olmo2',
  'deepseek-v2', 'gpt-oss', 'bert', 'modernbert', 'deberta', 'xlnet', 'fnet', 't5', 'switch',
  'bart', 'vit', 'deit', 'dinov2', 'dinov2-registers',
)  # fmt: skip


#: Other heads of families with further cases. Three families always run.
OTHER_HEAD = (
  r'(?!bert|gpt2|t5)[a-z0-9._-]+-(classifier|sequence|tokens|questions|choices|body|tied|encoder)'
)
large_if_other_head = pytest.mark.large(when=lambda both: re.fullmatch(OTHER_HEAD, both))


@pytest.fixture(scope='module', params=CASES)
def both(request, tmp_path_factory):
  case = CASES[request.param]
  first = next(name for name, other in CASES.items() if other.config == case.config)
  whole = case.whole or request.param in WHOLE or (groups.ALL and request.param == first)
  case = dataclasses.replace(case, whole=whole)
  return published.build(case, tmp_path_factory.mktemp('published') / 'theirs')


@large_if_other_head
def test_outputs_and_gradients_match_transformers(both, request):
  theirs, their_grads = both.reference
  ours, grads = published.our_outputs(both, tuple(theirs))
  assert sorted(ours) == sorted(theirs)
  # Audio features have no mask.
  source, outputs, gradients = (
    both.inputs.get('attention_mask', np.ones((3, published.T))) > 0,
    0.0,
    None,
  )
  for name, value in theirs.items():
    mine, yours, real = ours[name], value, source if name.startswith('encoder') else both.real
    if mine.shape[:2] == real.shape and mine.ndim == 3:
      mine, yours = mine[real], yours[real]
    size = max(1.0, np.abs(yours).max())
    np.testing.assert_allclose(mine, yours, atol=both.case.atol * size, rtol=0, err_msg=name)
    outputs = max(outputs, float(np.abs(mine - yours).max() / size))
  if both.case.whole:
    gradients = copying.assert_same_gradients(grads, published.as_ours(both, their_grads))
  if both.case.whole and both.causal:
    first = theirs['logits'][:1]
    limit, stepped = both.case.atol * max(1.0, np.abs(first).max()), published.in_steps(both)
    np.testing.assert_allclose(
      stepped, first[:, : stepped.shape[1]], atol=limit, rtol=0, err_msg='in steps'
    )
  published.reached(
    request.node.callspec.params['both'],
    model_type=published.type_of(both.case),
    outputs=outputs,
    gradients=gradients,
  )


@large_if_other_head
def test_export_returns_the_same_files(both, tmp_path):
  import torch
  import transformers

  name = hub.export_hf(
    both.ours.spec, both.ours.params, tmp_path / 'back', architecture=both.case.model
  )
  assert name == both.case.model
  today = lambda n: n.replace('LayerNorm.gamma', 'LayerNorm.weight').replace(
    'LayerNorm.beta', 'LayerNorm.bias'
  )
  old = {today(n): tensor for n, tensor in open_tensors(both.folder).items()}
  new = open_tensors(tmp_path / 'back')
  family = weights.TABLE[published.type_of(both.case)]
  # Some classes of transformers do not save fixed tables.
  fixed = family.fixed_of(both.ours.spec, name.removeprefix(family.stem))
  idle = lambda tensor: both.case.idle is not None and re.search(both.case.idle, tensor)
  assert sorted({*new, *fixed}) == sorted(n for n in {*old, *fixed} if not idle(n))
  for tensor in {*new} & {*old}:
    np.testing.assert_allclose(
      new[tensor], old[tensor], atol=1e-6 if tensor in fixed else 0, rtol=0, err_msg=tensor
    )
  again, info = getattr(transformers, both.case.model).from_pretrained(
    tmp_path / 'back', attn_implementation=both.case.attend, output_loading_info=True
  )
  odd = [n for k in ('missing_keys', 'unexpected_keys', 'mismatched_keys') for n in info[k]]
  assert not [n for n in odd if not idle(n)], info
  for field in ('pad_token_id', 'eos_token_id', 'use_cache'):
    setattr(again.config, field, getattr(both.theirs.config, field, None))
  with torch.no_grad():
    inputs = published.their_inputs(both)
    first, second = (model.eval()(**inputs)[0].numpy() for model in (both.theirs, again))
  # The tensors are bitwise equal. Products in PyTorch may depend on memory alignment.
  np.testing.assert_allclose(
    second, first, atol=both.case.atol if fixed else 1e-6 * np.abs(first).max(), rtol=0
  )


def test_every_family_has_a_case():
  covered = {published.type_of(case) for case in (*CASES.values(), *towers.CASES.values())}
  assert covered == set(weights.TABLE)


def test_other_encoder_classes_have_the_same_tensors():
  import torch
  import transformers

  covered = {case.model for case in CASES.values()}
  compared = 0
  cases = {**encoders.CASES, **encoders_kin.CASES, **encoders_of_parts.CASES}
  for case in {c.config: c for c in reversed(cases.values()) if not c.merged}.values():
    family = weights.TABLE[published.type_of(case)]
    for name in (family.stem + ending for ending in family.endings):
      if name in covered or not hasattr(transformers, name):
        continue
      with torch.device('meta'):
        theirs = getattr(transformers, name)(getattr(transformers, case.config)(**case.fields))
      found = weights.published({**theirs.config.to_dict(), 'architectures': [name]})
      shapes, compared = {n: tuple(p.shape) for n, p in theirs.state_dict().items()}, compared + 1
      for tensor in weights.tensor_map(found.family, found.spec, found.ending):
        assert shapes.get(tensor.name) == tensor.shape, (name, tensor.name)
  assert compared
