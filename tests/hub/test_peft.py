"""PEFT LoRA folders on their base model, and LoRAs of tfm as PEFT folders."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from tests.hub import ggufs
import tfm
from tfm import hub, zoo
from tfm.core import errors
from tfm.hub.peft import CONFIG, SAFE
from tfm.model.adapters import merge_adapters
from tfm.model.transformer import param_shapes
from tfm.parts.adapter.lora import LoRA

RNG = np.random.default_rng(0)
LLAMA = {
  'vocab_size': 61, 'hidden_size': 32, 'num_hidden_layers': 2, 'num_attention_heads': 4,
  'intermediate_size': 48, 'num_key_value_heads': 2, 'max_position_embeddings': 64,
}  # fmt: skip
GPT2 = {'vocab_size': 61, 'n_embd': 32, 'n_layer': 2, 'n_head': 4, 'n_positions': 64}
T5 = {'vocab_size': 61, 'd_model': 32, 'd_kv': 8, 'd_ff': 48, 'num_layers': 2, 'num_heads': 4}
BERT = {k: v for k, v in LLAMA.items() if k != 'num_key_value_heads'}
NEOX = BERT | {'rotary_pct': 0.25}
MIXTRAL = LLAMA | {'num_local_experts': 4, 'num_experts_per_tok': 2}


@dataclasses.dataclass(frozen=True)
class Case:
  """A model of transformers with the options of a LoRA.

  `merged` lists the modules that tfm merges into the weights.
  """

  stem: str
  model: str
  sizes: dict
  lora: dict
  merged: str = ''


CASES = {
  'llama': Case('Llama', 'LlamaForCausalLM', LLAMA, {'target_modules': ['q_proj', 'v_proj']}),
  'all_linear': Case('Llama', 'LlamaForCausalLM', LLAMA, {
    'target_modules': 'all-linear', 'lora_alpha': 3,
  }),
  'regex': Case('Llama', 'LlamaForCausalLM', LLAMA, {
    'target_modules': r'.*layers\.1\..*(up|down)_proj',
  }),
  'layers': Case('Llama', 'LlamaForCausalLM', LLAMA, {
    'target_modules': ['o_proj'], 'layers_to_transform': [1],
  }),
  'patterns': Case(
    'Llama', 'LlamaForCausalLM', LLAMA,
    {
      'target_modules': ['q_proj', 'k_proj', 'gate_proj'],
      'rank_pattern': {'k_proj': 3, 'layers.0.self_attn.q_proj': 5},
      'alpha_pattern': {'gate_proj': 7, r'layers\.1\.self_attn\.q_proj': 1},
    },
  ),
  'rslora': Case(
    'Llama', 'LlamaForCausalLM', LLAMA,
    {'target_modules': ['q_proj', 'o_proj'], 'use_rslora': True, 'rank_pattern': {'o_proj': 2}},
  ),
  'head': Case('Llama', 'LlamaForCausalLM', LLAMA, {'target_modules': ['q_proj', 'lm_head']}),
  'embedding': Case(
    'Llama', 'LlamaForCausalLM', LLAMA, {'target_modules': ['q_proj', 'embed_tokens']},
    'model.embed_tokens'
  ),
  'saved': Case(
    'Llama', 'LlamaForCausalLM', LLAMA,
    {'target_modules': ['q_proj'], 'modules_to_save': ['lm_head', 'embed_tokens']}
  ),
  'bias': Case(
    'Llama', 'LlamaForCausalLM', LLAMA | {'attention_bias': True, 'mlp_bias': True},
    {'target_modules': ['q_proj'], 'bias': 'all'},
  ),
  'lora_bias_only': Case(
    'Llama', 'LlamaForCausalLM', LLAMA | {'attention_bias': True},
    {'target_modules': ['q_proj'], 'bias': 'lora_only'}
  ),
  'experts': Case('Mixtral', 'MixtralForCausalLM', MIXTRAL, {
    'target_modules': ['q_proj', 'v_proj'],
  }),
  'gpt2': Case('GPT2', 'GPT2LMHeadModel', GPT2, {
    'target_modules': ['c_attn', 'c_proj'], 'fan_in_fan_out': True,
  }),
  'neox': Case('GPTNeoX', 'GPTNeoXForCausalLM', NEOX, {
    'target_modules': ['query_key_value', 'dense'],
  }),
  'bert_classifier': Case(
    'Bert', 'BertForSequenceClassification', BERT | {'num_labels': 3},
    {'target_modules': ['query', 'dense'], 'task_type': 'SEQ_CLS'},
  ),
  't5': Case('T5', 'T5ForConditionalGeneration', T5, {
    'target_modules': ['q', 'wo'], 'task_type': 'SEQ_2_SEQ_LM',
  }),
}  # fmt: skip


def _base(case, folder):
  import torch
  import transformers

  torch.manual_seed(0)
  theirs = getattr(transformers, case.model)(
    getattr(transformers, f'{case.stem}Config')(**case.sizes)
  ).eval()
  with torch.no_grad():
    for p in theirs.parameters():
      p.add_(0.05 * torch.randn_like(p))
  theirs.save_pretrained(folder / 'base')
  return theirs


def _inputs(case):
  ids = np.random.default_rng(1).integers(3, 61, (2, 9))
  return {'input_ids': ids} | ({'decoder_input_ids': ids[:, :5]} if case.stem == 'T5' else {})


def _logits(theirs, inputs):
  import torch

  with torch.no_grad():
    return theirs(**{n: torch.tensor(a) for n, a in inputs.items()}).logits.numpy()


def _ours(m, inputs):
  out = tfm.apply(m.spec, m.params, **inputs)
  return np.asarray(out['logits'])


@pytest.mark.oracle
@pytest.mark.filterwarnings('ignore')
@pytest.mark.large(
  when=lambda case: case in ('all_linear', 'regex', 'layers', 'lora_bias_only', 'rslora', 'neox')
)
@pytest.mark.parametrize('case', CASES)
def test_logits_match_peft(tmp_path, case, capsys):
  import peft
  import torch

  each = CASES[case]
  theirs, inputs = _base(each, tmp_path), _inputs(each)
  plain = _logits(theirs, inputs)
  model = peft.get_peft_model(theirs, peft.LoraConfig(**{'r': 4, 'lora_alpha': 8, **each.lora}))
  torch.manual_seed(1)
  with torch.no_grad():
    for p in model.parameters():
      if p.requires_grad:
        p.copy_(p + 0.1 * torch.randn_like(p))
  model.eval().save_pretrained(tmp_path / 'adapter')
  expected = _logits(model, inputs)
  assert np.abs(expected - plain).max() > 1e-2
  m = tfm.load(tmp_path / 'base', adapter=tmp_path / 'adapter')
  np.testing.assert_allclose(_ours(m, inputs), expected, atol=1e-4, rtol=1e-3)
  printed = capsys.readouterr().err
  assert (
    f'merged into the weights, because tfm adapts only linear layers: {each.merged}\n' in printed
  ) == bool(each.merged)
  spec, params = merge_adapters(m.spec, m.params)
  np.testing.assert_allclose(
    tfm.apply(spec, params, **inputs)['logits'], expected, atol=1e-4, rtol=1e-3
  )


@pytest.mark.oracle
@pytest.mark.filterwarnings('ignore')
@pytest.mark.large(when=lambda case, stable: stable != (case == 'llama'))
@pytest.mark.parametrize('case', ['llama', 'gpt2', 'neox', 'bert_classifier', 't5'])
@pytest.mark.parametrize('stable', [False, True])
def test_exported_lora_matches_peft(tmp_path, case, stable):
  import peft

  each = CASES[case]
  theirs, inputs = _base(each, tmp_path), _inputs(each)
  m = tfm.load(tmp_path / 'base')
  targets = ('q', 'v', 'o') if case in ('gpt2', 'neox') else ('q', 'k', 'down')
  spec = dataclasses.replace(m.spec, adapter=LoRA(3, 5.0, targets, stable))
  params = _adapted(spec, m.params)
  assert hub.export_peft(
    spec, params, tmp_path / 'adapter', base=tmp_path / 'base', architecture=each.model
  )
  model = peft.PeftModel.from_pretrained(theirs, tmp_path / 'adapter').eval()
  expected = np.asarray(tfm.apply(spec, params, **inputs)['logits'])
  assert np.abs(_ours(m, inputs) - expected).max() > 1e-2
  np.testing.assert_allclose(_logits(model, inputs), expected, atol=1e-4, rtol=1e-3)
  again = tfm.load(tmp_path / 'base', adapter=tmp_path / 'adapter')
  np.testing.assert_allclose(_ours(again, inputs), expected, atol=1e-4, rtol=1e-3)


@pytest.mark.oracle
@pytest.mark.filterwarnings('ignore')
def test_classifier_adapter_includes_its_head(tmp_path):
  """The base is a language model, and the adapter belongs to its sequence classifier."""
  import peft
  import transformers

  case = CASES['llama']
  _base(case, tmp_path)
  theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
    tmp_path / 'base', num_labels=5
  )
  theirs.config.pad_token_id = 0
  model = peft.get_peft_model(
    theirs, peft.LoraConfig(task_type='SEQ_CLS', target_modules=['q_proj'])
  )
  model.eval().save_pretrained(tmp_path / 'adapter')
  m = tfm.load(tmp_path / 'base', adapter=tmp_path / 'adapter')
  assert m.spec.classifier.labels == 5
  np.testing.assert_allclose(
    _ours(m, _inputs(case)), _logits(model, _inputs(case)), atol=1e-4, rtol=1e-3
  )


def _adapted(spec, params):
  """Return parameters with a random adapter."""
  shapes = jax.tree_util.tree_leaves_with_path(param_shapes(spec))
  name = lambda p: jax.tree_util.keystr(p, simple=True, separator='/')
  leaves = {name(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
  drawn = [
    leaves[name(p)] if name(p) in leaves else 0.3 * RNG.standard_normal(s.shape, np.float32)
    for p, s in shapes
  ]
  return jax.tree.unflatten(jax.tree.structure(param_shapes(spec)), [jnp.asarray(x) for x in drawn])


@pytest.fixture(scope='module')
def lora(tmp_path_factory):
  """Return a base model and a LoRA of tfm for it as a PEFT folder."""
  path = tmp_path_factory.mktemp('lora')
  spec = zoo.tiny(zoo.get('llama3-8b'))
  params = jax.tree.map(lambda x: RNG.standard_normal(x.shape, np.float32), param_shapes(spec))
  hub.export_hf(spec, params, path / 'base')
  adapted = dataclasses.replace(spec, adapter=LoRA(3, 5.0, ('q', 'down')))
  m = hub.load(path / 'base')
  hub.export_peft(adapted, _adapted(adapted, m.params), path / 'adapter', base='base')
  return path


def test_export_and_load_return_the_same_adapter(lora, tmp_path):
  m = tfm.load(lora / 'base', adapter=lora / 'adapter')
  assert m.spec.adapter == LoRA(3, 5.0, ('down', 'q'))
  hub.export_peft(m.spec, m.params, tmp_path / 'again', base='base')
  for name in (CONFIG, SAFE):
    assert (tmp_path / 'again' / name).read_bytes() == (lora / 'adapter' / name).read_bytes()
  config = json.loads((tmp_path / 'again' / CONFIG).read_text())
  assert config['target_modules'] == ['down_proj', 'q_proj']
  assert (config['r'], config['lora_alpha'], config['base_model_name_or_path']) == (3, 5.0, 'base')


def test_adapter_loads_onto_a_mesh(lora):
  from tfm.train.mesh import Mesh
  from tfm.train.shard import make_mesh

  m = tfm.load(
    lora / 'base', adapter=lora / 'adapter', mesh=make_mesh(Mesh(data=1, fsdp=4, tensor=2))
  )
  one = tfm.load(lora / 'base', adapter=lora / 'adapter')
  jax.tree.map(np.testing.assert_array_equal, m.params, one.params)
  assert all(len(x.devices()) == 8 for x in jax.tree.leaves(m.params))


def _changed(lora, path, fields, rename=lambda name: name):
  path.mkdir()
  config = json.loads((lora / 'adapter' / CONFIG).read_text()) | fields
  (path / CONFIG).write_text(json.dumps(config))
  arrays = safetensors.numpy.load_file(lora / 'adapter' / SAFE)
  safetensors.numpy.save_file({rename(n): a for n, a in arrays.items() if rename(n)}, path / SAFE)
  return path


@pytest.mark.parametrize(
  ('fields', 'rename', 'message'),
  [
    ({'peft_type': 'IA3'}, str, r"unknown peft_type 'IA3'"),
    ({'use_dora': True}, str, 'use_dora=True: not supported, and may change the output'),
    ({'target_parameters': ['x']}, str, r"target_parameters=\['x'\]"),
    (
      {'init_lora_weights': 'pissa'},
      str,
      "init_lora_weights is 'pissa', which changes the base model",
    ),
    (
      {},
      lambda n: n.replace('q_proj', 'qq'),
      r'adapts modules that the base model lacks: .*qq\. Expected its base model',
    ),
    (
      {},
      lambda n: '' if n.endswith('0.self_attn.q_proj.lora_B.weight') else n,
      'lora_A and lora_B do not match',
    ),
    (
      {},
      lambda n: n.replace('lora_B.weight', 'lora_magnitude_vector'),
      r'Expected only lora_A and lora_B .*no DoRA',
    ),
    ({}, lambda n: n.replace('q_proj', 'k_proj'), r'k_proj has shape \[.*as in the base'),
  ],
)
def test_unsupported_adapters_raise_errors(lora, tmp_path, fields, rename, message):
  with pytest.raises(errors.UserError, match=message):
    tfm.load(lora / 'base', adapter=_changed(lora, tmp_path / 'odd', fields, rename))


def test_folders_without_an_adapter_raise_errors(lora, tmp_path):
  with pytest.raises(
    errors.UserError, match=r'has no adapter_config\.json\. Expected the folder of a PEFT adapter'
  ):
    tfm.load(lora / 'base', adapter=lora / 'base')
  (tmp_path / CONFIG).write_text('{"peft_type": "LORA", "r": 8, "lora_alpha": 8}')
  with pytest.raises(errors.UserError, match=r'has no adapter_model\.safetensors'):
    tfm.load(lora / 'base', adapter=tmp_path)
  m = tfm.load(lora / 'base')
  with pytest.raises(errors.UserError, match='the model has no LoRA'):
    hub.export_peft(m.spec, m.params, tmp_path / 'new', base='base')
  tfm.hub.save(m.spec, m.params, tmp_path / 'ours')
  with pytest.raises(errors.UserError, match='this is a checkpoint of tfm'):
    tfm.load(tmp_path / 'ours', adapter=lora / 'adapter')


@pytest.mark.oracle
def test_pickled_adapter_loads(lora, tmp_path):
  import torch

  arrays = safetensors.numpy.load_file(lora / 'adapter' / SAFE)
  torch.save({n: torch.tensor(a) for n, a in arrays.items()}, tmp_path / 'adapter_model.bin')
  (tmp_path / CONFIG).write_bytes((lora / 'adapter' / CONFIG).read_bytes())
  found, expected = (
    tfm.load(lora / 'base', adapter=path).params for path in (tmp_path, lora / 'adapter')
  )
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_adapter_of_a_gguf_file_loads(tmp_path):
  path = ggufs.write(tmp_path / 'm.gguf', ggufs.TINY, ggufs.plain(ggufs.tiny_arrays()))
  m = tfm.load(path)
  hub.export_hf(m.spec, m.params, tmp_path / 'plain')
  spec = dataclasses.replace(m.spec, adapter=LoRA(2, 1.0, ('v',)))
  hub.export_peft(spec, _adapted(spec, m.params), tmp_path / 'adapter', base='m')
  found, expected = (
    tfm.load(p, adapter=tmp_path / 'adapter').params for p in (path, tmp_path / 'plain')
  )
  assert 'lora' in found['segment_0']['block_0']['mixer']['v']
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_hub_id_of_an_adapter_raises_an_error(lora):
  with pytest.raises(errors.UserError, match='hf download org/adapter'):
    tfm.load(lora / 'base', adapter='org/adapter')


def test_zero_padded_factors_stay_zero_in_training(lora, tmp_path):
  """Padded ranks and layers without an adapter get no gradient."""
  drop = lambda n: '' if 'layers.1' in n else n
  m = tfm.load(lora / 'base', adapter=_changed(lora, tmp_path / 'part', {}, drop))
  total = lambda params: jnp.sum(
    tfm.apply(m.spec, params, input_ids=np.arange(6)[None])['logits'] ** 2
  )
  gradients = jax.grad(total)(m.params)['segment_0']['block_0']['mixer']['q']['lora']
  for half in ('a', 'b'):
    assert np.any(np.asarray(gradients[half][0]))
    assert not np.any(np.asarray(gradients[half][1]))
