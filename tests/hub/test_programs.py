"""Exported programs run with jax alone, and give the results of tfm."""

import json
import subprocess
import sys

import jax
from jax import export
import numpy as np
import pytest

import tfm
from tfm import zoo
from tfm.core import config, errors
from tfm.hub.loaded import Loaded
from tfm.hub.programs import export_programs, flat
from tfm.model import inputs, transformer
from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu
from tfm.parts.mixer import Attention, Mamba

#: The script of tfm/hub/README.md, with greedy decoding of a padded batch.
SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from jax import export
from safetensors.numpy import load_file

folder = sys.argv[1]
load = lambda name: export.deserialize(bytearray(Path(f'{folder}/{name}.jax').read_bytes()))
params, prefill, step = load_file(f'{folder}/params.safetensors'), load('prefill'), load('step')
ids = np.array([[0, 0, 5, 6], [1, 2, 3, 4]], np.int32)
mask = np.array([[0, 0, 1, 1], [1, 1, 1, 1]], np.int32)
logits, cache = prefill.call(params, {'input_ids': ids, 'attention_mask': mask})
out = []
for _ in range(4):
  ids = np.asarray(logits).argmax(-1).astype(np.int32)[:, None]
  out.append(ids[:, 0].tolist())
  logits, cache = step.call(params, cache, ids)
assert not any(name.split('.')[0] == 'tfm' for name in sys.modules)
print(json.dumps(np.transpose(out).tolist()))
"""


def decoder(mixer=None):
  block = Block(Attention(4, 2) if mixer is None else mixer, Glu(32))
  return Model(Tokens(64), 16, (Segment((block,), 2),))


def loaded(spec):
  return Loaded(spec, transformer.init(spec, jax.random.key(0)))


def read(folder, name):
  return export.deserialize(bytearray((folder / f'{name}.jax').read_bytes()))


def test_exported_decoding_equals_generate_without_tfm(tmp_path):
  model = loaded(decoder())
  about = export_programs(model, tmp_path / 'out', slots=16)
  assert about['platforms'] == ['cpu', 'cuda', 'tpu']
  assert about['programs']['prefill']['arguments'][0]['input_ids'] == 'int32[b,t]'
  script = tmp_path / 'run.py'
  script.write_text(SCRIPT)
  command = [sys.executable, str(script), str(tmp_path / 'out')]
  done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
  assert done.returncode == 0, done.stderr
  want = tfm.generate(
    model.spec, model.params, [[5, 6], [1, 2, 3, 4]], max_new_tokens=4, temperature=0.0
  )
  assert json.loads(done.stdout) == want


@pytest.mark.parametrize('length', [3, 9])
def test_one_forward_program_serves_every_length(tmp_path, length):
  model = loaded(decoder())
  export_programs(model, tmp_path / 'out', platforms=['cpu'], slots=16)
  ids = jax.random.randint(jax.random.key(1), (2, length), 0, 64)
  given = {'input_ids': ids, 'attention_mask': np.ones_like(ids)}
  found = read(tmp_path / 'out', 'forward').call(flat(model.params), given)
  want = transformer.apply(model.spec, model.params, input_ids=ids)
  np.testing.assert_allclose(found['logits'], want['logits'], atol=1e-6)


@pytest.mark.parametrize('name', ['t5', 'vit', 'bert'])
def test_other_models_export_their_forward_pass(tmp_path, name):
  entry = {'t5': 't5-small', 'vit': 'vit-small-16', 'bert': 'bert-base'}[name]
  spec = zoo.get(entry)
  for path, value in (('segments.*.repeats', 1), ('towers.*.segments.*.repeats', 1)):
    if path.startswith('segments') or spec.towers:
      spec = config.override(spec, path, str(value))
  model = loaded(spec)
  about = export_programs(model, tmp_path / 'out', platforms=['cpu'], slots=16)
  assert ('step' in about['programs']) == (name == 't5')
  shapes = inputs.shapes(spec, 2, 8)
  given = {k: jax.random.randint(jax.random.key(2), a.shape, 0, 9) for k, a in shapes.items()}
  given = {k: a.astype(shapes[k].dtype) for k, a in given.items()}
  takes = about['programs']['forward']['arguments'][0]
  masked = {'attention_mask': np.ones((2, 8), np.int32)} if 'attention_mask' in takes else {}
  found = read(tmp_path / 'out', 'forward').call(flat(model.params), given | masked)
  want = transformer.apply(spec, model.params, **given)
  key = 'logits' if 'logits' in want else 'last_hidden_state'
  np.testing.assert_allclose(found[key], want[key], atol=2e-5)


def test_parts_with_fixed_lengths_are_noted(tmp_path):
  about = export_programs(
    loaded(decoder(Mamba(width=32, d_state=4, rank=2))), tmp_path / 'out', platforms=['cpu'],
    slots=16,
  )  # fmt: skip
  assert about['programs']['forward']['arguments'][0]['input_ids'] == 'int32[b,16]'
  assert any('the length is fixed to 16 tokens' in note for note in about['notes'])


def test_weights_inside_need_no_file(tmp_path):
  model = loaded(decoder())
  about = export_programs(model, tmp_path / 'out', platforms=['cpu'], inside=True, slots=16)
  assert about['weights'] is None
  assert not (tmp_path / 'out' / 'params.safetensors').exists()
  ids = np.ones((1, 4), np.int32)
  found = read(tmp_path / 'out', 'forward').call({'input_ids': ids, 'attention_mask': ids})
  want = transformer.apply(model.spec, model.params, input_ids=ids)
  np.testing.assert_allclose(found['logits'], want['logits'], atol=1e-6)


def test_unknown_platforms_and_large_weights_are_errors(tmp_path, monkeypatch):
  model = loaded(decoder())
  with pytest.raises(errors.UserError, match="unknown platform 'gpu'"):
    export_programs(model, tmp_path / 'out', platforms=['gpu'])
  monkeypatch.setattr('tfm.hub.programs.INSIDE', 100)
  with pytest.raises(errors.UserError, match='Expected at most 100 inside a program'):
    export_programs(model, tmp_path / 'out', inside=True)
