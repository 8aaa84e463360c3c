"""Models of several towers: checks, outputs, training, sharding, counts, display, storage."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm.cli import main
from tfm.core import config, errors
from tfm.model import count, inputs, transformer
from tfm.model.spec import Block, Model, Segment, Tower
from tfm.parts.context import Run
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.classify import Classify
from tfm.parts.head.lm import Lm
from tfm.parts.head.probe import Probe
from tfm.parts.head.project import Project
from tfm.parts.head.similarity import Similarity
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.train import shard
from tfm.train.mesh import Mesh

D, V, TEXTS, IMAGES = 32, 64, 8, 4


def layers(*crosses: str, mask: Mask = Mask(), repeats: int = 2) -> tuple[Segment, ...]:
  """Return layers with a block per tower that is read, or one block that reads none."""
  block = Block(Attention(4, mask=mask), Mlp(48), LayerNorm())
  reading = [dataclasses.replace(block, cross=CrossAttention(4, tower=name)) for name in crosses]
  return (Segment(tuple(reading) or (block,), repeats),)


IMAGE = Tower(Patches(4, 16, norm=LayerNorm()), 24, layers(), norm=None)
SOUND = Tower(Tokens(40), 16, layers(repeats=1))


def projected(tower: Tower, name: str, **fields) -> Tower:
  return tower.with_heads(project=Project(16, name=f'{name}_embeds', **fields))


def model(*crosses: str, heads=None, **towers: Tower) -> Model:
  """Return a text model that reads some of these towers."""
  heads = {'lm': Lm()} if heads is None else heads
  return Model(Tokens(V), D, layers(*crosses), norm=LayerNorm(), heads=heads, towers=towers)


#: Heads that compare, listed before the heads that they read.
COMPARING = {
  'similarity': Similarity(bias=-2.0),
  'text': Project(16, 'largest', name='text_embeds'),
}
WITH_SOUND = {**COMPARING, 'sound': Similarity(columns='sound_embeds', name='sound')}
# A bias of keys does not change a softmax, so it would have no gradient.
PROBE = Probe(4, 'qvo', ffn=Mlp(40), unit=True, name='image_embeds')
NO_LAYERS = Tower(Patches(4, 16), D, (), norm=None)
MODELS = {
  'side-by-side': model(heads=COMPARING, vision=projected(IMAGE, 'image', norm=LayerNorm())),
  'probe': model(heads={**COMPARING, 'text': Project(24, 'end', name='text_embeds')},
                 vision=IMAGE.with_heads(image=PROBE)),
  'no-layers': model('vision', vision=NO_LAYERS),
  'three': model(heads=WITH_SOUND, vision=projected(IMAGE, 'image'),
                 sound=projected(SOUND, 'sound', pick='mean')),
  'reads-two': model('vision', 'sound', vision=IMAGE, sound=SOUND),
  'chain': model('middle', middle=Tower(Tokens(40), 16, layers('vision')), vision=IMAGE),
  'encoder': model('encoder', encoder=Tower(segments=layers(), norm=LayerNorm())),
}  # fmt: skip


@pytest.fixture(scope='module', params=MODELS)
def spec(request):
  return config.validate(MODELS[request.param])


@functools.cache
def params_of(spec: Model):
  return jax.jit(transformer.init, static_argnums=0)(spec, jax.random.key(0))


def batch(spec: Model, texts: int = TEXTS, images: int = TEXTS) -> dict[str, jax.Array]:
  """Return inputs of every tower, with possibly different numbers of texts and images."""
  rng, found = np.random.default_rng(0), {}
  for name in inputs.order(spec):
    tower = spec.tower(name)
    rows = images if isinstance(tower.embed, Patches) else texts
    for bare, s in tower.embed.shapes(rows, 6).items():
      whole = jnp.issubdtype(s.dtype, jnp.integer)
      array = rng.integers(0, tower.vocab, s.shape) if whole else rng.standard_normal(s.shape)
      found[inputs.input_name(spec, name, bare)] = jnp.asarray(array, s.dtype)
  return found


def loss(spec: Model, params, given, run: Run = Run()):
  """Return a weighted sum of all outputs of heads, and the outputs."""
  out = transformer.apply(spec, params, run=run, **given)
  scored = [n for n in sorted(out) if n != 'aux' and not n.endswith('hidden_state')]
  weights = [
    np.random.default_rng(i).standard_normal(out[n].shape).astype(np.float32)
    for i, n in enumerate(scored)
  ]
  return sum(jnp.sum(w * out[n]) for w, n in zip(weights, scored, strict=True)), out


@functools.cache
def step(spec: Model):
  """Return a compiled function of parameters and inputs: the loss and its gradient."""
  return jax.jit(jax.value_and_grad(lambda p, x: loss(spec, p, x)[0]))


@functools.cache
def first(spec: Model):
  """Return the loss and its gradient at the start."""
  return step(spec)(params_of(spec), batch(spec))


def test_every_parameter_has_a_gradient(spec):
  for path, grad in jax.tree_util.tree_leaves_with_path(first(spec)[1]):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    by_layer = np.reshape(grad, (len(grad), -1) if 'segment_' in name else (1, -1))
    assert np.all(np.max(np.abs(by_layer), 1) > 1e-7), name


def test_training_lowers_the_loss(spec):
  params, losses = params_of(spec), []
  for _ in range(4):
    value, grads = step(spec)(params, batch(spec))
    size = sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)) ** 0.5
    params = jax.tree.map(lambda p, g, size=size: p - 0.02 * g / size, params, grads)
    losses.append(float(value))
  assert losses == sorted(losses, reverse=True)


def test_scan_and_unroll_agree(spec):
  value = jax.jit(lambda p, x: loss(spec, p, x, Run(loop='unroll'))[0])(
    params_of(spec), batch(spec)
  )
  np.testing.assert_allclose(value, first(spec)[0], rtol=2e-5)


def test_eight_devices_agree_with_one(spec):
  mesh, value_and_grad = Mesh(2, 2, 2), jax.value_and_grad(lambda p, x: loss(spec, p, x)[0])
  grid = shard.make_mesh(mesh, jax.devices())
  letters, shapes = transformer.param_letters(spec), transformer.param_shapes(spec)
  where, rules, _ = shard.shardings(grid, mesh.table(), letters, shapes)
  rows = shard.batch_axis(grid, rules)
  many = jax.jit(shard.with_rules(grid, rules, value_and_grad), in_shardings=(where, rows))
  value, grads = many(jax.device_put(params_of(spec), where), jax.device_put(batch(spec), rows))
  one, one_grads = first(spec)
  np.testing.assert_allclose(value, one, rtol=2e-5)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()))
  jax.tree.map(close, grads, one_grads)
  split = [sharding for sharding in jax.tree.leaves(where) if sharding.spec != jax.P()]
  assert len(split) > len(jax.tree.leaves(where)) / 2


def test_table_of_layers_adds_up(spec):
  rows = count.table(spec, 8)
  assert sum(r.params * r.repeats for r in rows) == count.count_params(spec)
  assert count.count_params(spec) == sum(x.size for x in jax.tree.leaves(params_of(spec)))
  np.testing.assert_allclose(
    sum(r.flops * r.repeats for r in rows), count.flops_per_token(spec, 8), rtol=1e-12
  )


def test_flops_follow_the_arithmetic():
  """FLOPs are 2 per weight and token, and 4 N H per attended pair."""
  text, image = 8, 17  # tokens, class token and patches
  layer = lambda d, n: n * (2 * (4 * d * d + 2 * d * 48) + 4 * d * n)
  both = 2 * layer(D, text) + 2 * layer(24, image) + image * 2 * 48 * 24 + 2 * 16 * (D + 24)
  assert count.flops_per_token(MODELS['side-by-side'], text) == both / text
  attention = 2 * (2 * 24 * 24) + image * 2 * (2 * 24 * 24) + 4 * image * 24
  probe = attention + 2 * 2 * 24 * 40 - 2 * 16 * 24 + 2 * D * (24 - 16)
  assert count.flops_per_token(MODELS['probe'], text) == (both + probe) / text


def test_json_round_trip(spec):
  for sort in (False, True):
    stored = json.loads(json.dumps(config.to_json(spec), sort_keys=sort))
    again = config.validate(config.from_json(Model, stored))
    assert again == spec
    assert hash(again) == hash(spec)
  out = jax.eval_shape(
    lambda p, x: transformer.apply(again, p, **x), transformer.param_shapes(again), batch(again)
  )
  assert sorted(out) == sorted(
    jax.eval_shape(lambda p, x: loss(spec, p, x)[1], params_of(spec), batch(spec))
  )


def test_init_is_a_function_of_the_key(spec):
  again = jax.jit(transformer.init, static_argnums=0)(spec, jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, again, params_of(spec))
  other = jax.jit(transformer.init, static_argnums=0)(spec, jax.random.key(1))
  assert not jnp.array_equal(other['embed']['table'], again['embed']['table'])


def test_init_of_a_tower_ignores_the_others():
  two, three = params_of(MODELS['side-by-side']), params_of(MODELS['three'])
  jax.tree.map(
    np.testing.assert_array_equal, two['vision']['segment_0'], three['vision']['segment_0']
  )
  jax.tree.map(np.testing.assert_array_equal, two['text_head'], three['text_head'])


def test_show_lists_every_tower(tmp_path, capsys):
  path, stored = tmp_path / 'towers.py', json.dumps(config.to_json(MODELS['three']))
  path.write_text(
    'import json\nfrom tfm.core import config\nfrom tfm.model.spec import Model\n\n'
    f"def get_config():\n  return config.from_json(Model, json.loads('''{stored}'''))"
  )
  assert main.run(['show', f'--config={path}']) == 0, capsys.readouterr().err
  out = capsys.readouterr().out
  lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
  for where in ('towers.vision.embed', 'towers.sound.segments.0.pattern.0', 'heads.similarity'):
    assert where in lines
  assert 'project' in lines['towers.vision.heads.project']
  assert f'{count.count_params(MODELS["three"]):,}' in out
  assert re.search(r'cache +none', out)


def test_batches_of_texts_and_images_may_differ():
  given = batch(MODELS['side-by-side'], TEXTS, IMAGES)
  _, out = jax.jit(lambda p, x: loss(MODELS['side-by-side'], p, x))(
    params_of(MODELS['side-by-side']), given
  )
  assert out['logits_per_text'].shape == (TEXTS, IMAGES)
  np.testing.assert_array_equal(out['logits_per_image'], out['logits_per_text'].T)
  np.testing.assert_allclose(jnp.linalg.norm(out['image_embeds'], axis=-1), 1.0, rtol=1e-6)


def test_heads_pool_given_tower_outputs():
  spec, params = MODELS['probe'], params_of(MODELS['probe'])
  given = batch(spec)
  run = jax.jit(lambda p, x: transformer.apply(spec, p, **x))
  whole = run(params, given)
  pixels = given.pop('pixel_values')
  again = run(params, {**given, 'vision_outputs': whole['vision_last_hidden_state']})
  np.testing.assert_allclose(again['logits_per_text'], whole['logits_per_text'], rtol=1e-5)
  alone = transformer.apply(spec, params, tower='vision', pixel_values=pixels)
  np.testing.assert_allclose(alone['image_embeds'], whole['image_embeds'], atol=1e-6)


def test_selected_tower_runs_with_the_towers_it_reads():
  spec = MODELS['chain']
  given = batch(spec)
  given.pop('input_ids')
  out = jax.eval_shape(
    lambda p, x: transformer.apply(spec, p, tower='middle', **x), params_of(spec), given
  )
  assert sorted(out) == ['aux', 'middle_last_hidden_state', 'vision_last_hidden_state']


def test_probe_ignores_padding():
  spec = Model(Tokens(V), D, layers(), heads={'probe': Probe(4, ffn=Mlp(40))})
  params, ids = params_of(spec), jnp.arange(12, dtype=jnp.int32).reshape(2, 6)
  short = transformer.apply(spec, params, input_ids=ids)['pooler_output']
  mask = jnp.pad(jnp.ones((2, 6), jnp.int32), ((0, 0), (0, 3)))
  padded = jnp.pad(ids, ((0, 0), (0, 3)), constant_values=5)
  long = transformer.apply(spec, params, input_ids=padded, attention_mask=mask)['pooler_output']
  np.testing.assert_allclose(long, short, atol=1e-5)


@pytest.mark.parametrize(
  ('pick', 'places'), [('largest', (3, 1)), (7, (1, 2)), (9, (0, 0))], ids=lambda v: f'pick={v}'
)
def test_end_tokens_are_found(pick, places):
  spec = Model(Tokens(V), D, layers(), heads={'pooled': Project(16, pick, unit=False)})
  ids = jnp.array([[1, 7, 7, 50, 0], [3, 60, 7, 4, 60]], jnp.int32)
  params = params_of(spec)
  out = transformer.apply(spec, params, input_ids=ids)
  expected = (
    out['last_hidden_state'][jnp.arange(2), jnp.array(places)]
    @ params['pooled_head']['out']['kernel']
  )
  np.testing.assert_allclose(out['embeds'], expected, atol=1e-5)


VISION = projected(IMAGE, 'image')
READING = {
  'a': Tower(Tokens(8), 16, layers('b')),
  'b': Tower(Tokens(8), 16, layers('a')),
}


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (model('vision'), r"reads tower 'vision', which does not exist\. Expected a tower"),
    (
      model(vision=Tower(IMAGE.embed, 24, layers('sound'))),
      r"towers\.vision: reads tower 'sound', which does not exist\. Expected a tower .*: vision\.",
    ),
    (model('a', **READING), r'towers: a -> b -> a read each other in a cycle\. Expected no cycle'),
    (
      model(heads=COMPARING, vision=VISION, other=VISION),
      r"towers\.other\.heads\.project: returns 'image_embeds', as towers\.vision\.heads\.project "
      r"does\. "
      r'Expected another towers\.other\.heads\.project\.name\.',
    ),
    (
      model(heads={'one': Classify(2), 'two': Classify(3)}),
      r"heads\.two: returns 'logits', as heads\.one does\. Expected another heads\.two\.name\.",
    ),
    (
      model(heads={'one': Project(8, name='last_hidden_state')}),
      r"heads\.one: returns 'last_hidden_state', as the model does\.",
    ),
    (
      model(heads=COMPARING, vision=projected(IMAGE, 'images')),
      r"heads\.similarity: reads an output that no head returns: unknown output 'image_embeds'\. "
      r"Did you mean 'images_embeds'",
    ),
    (
      model(heads={'text': COMPARING['text']}, vision=VISION.with_heads(similarity=Similarity())),
      r"towers\.vision\.heads\.similarity: reads 'text_embeds' of the model's own tower, "
      r"which runs last\. "
      r'Expected heads\.similarity\.',
    ),
    (
      model(heads={'loop': Similarity('x', 'text_per_x', name='text'), 'x': Project(8, name='x')}),
      r'heads\.loop: reads heads\.loop, which reads it\. Expected no cycle\.',
    ),
    (
      model(heads={'x': Project(8, 64)}),
      r'heads\.x: pick=64 is not a token id\. Expected 0 to 63\.',
    ),
    (
      model(vision=IMAGE.with_heads(x=Project(8, 'largest', name='x'))),
      r'towers\.vision\.heads\.x: pick=largest needs token ids, and the tower has '
      r'none\.',
    ),
    (
      model(
        heads={**COMPARING, 'text': Project(None, name='text_embeds')},
        vision=projected(IMAGE, 'image'),
      ),
      r'heads\.similarity: reads text_embeds of width 32 and image_embeds of width 16\. Expected '
      r'the same width',
    ),
    (model(heads={'x': Project(0)}), r'heads\.x: dim=0 is not a width\.'),
    (model(heads={'x': Similarity('y', 'y')}), r"heads\.x: rows and columns are both 'y'\."),
    (model(heads={'x': Probe(5)}), r'heads\.x: heads=5 does not divide d_model=32\.'),
  ],
)  # fmt: skip
def test_invalid_models_are_errors(spec, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(spec)


@pytest.mark.parametrize(
  ('tower', 'given', 'message'),
  [
    ('vison', ('pixel_values',), r"apply: tower: unknown tower 'vison'\. Did you mean 'vision'\?"),
    (
      'vision', ('pixel_values', 'input_ids'),
      r"input_ids is given, but tower='vision' does not read it",
    ),
    ('', ('pixel_values', 'input_ids'), r"pixel_values is given, but tower='' does not read it"),
    ('vision', (), r'pixel_values is missing'),
    (None, ('input_ids',), r"pixel_values is missing\. Expected pixel_values, input_ids\."),
  ],
)  # fmt: skip
def test_inputs_must_match_the_selected_tower(tower, given, message):
  spec = MODELS['side-by-side']
  inputs_of = {name: array for name, array in batch(spec).items() if name in given}
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(
      lambda p, x: transformer.apply(spec, p, tower=tower, **x), params_of(spec), inputs_of
    )


def test_head_without_its_inputs_is_an_error():
  spec = MODELS['side-by-side']
  unread = dataclasses.replace(
    spec, towers={'vision': dataclasses.replace(spec.towers['vision'], heads={})}
  )
  with pytest.raises(
    errors.UserError, match=r"head 'similarity' reads 'image_embeds', which was not computed\. Exp"
  ):
    jax.eval_shape(lambda p, x: transformer.apply(unread, p, **x), params_of(spec), batch(spec))
