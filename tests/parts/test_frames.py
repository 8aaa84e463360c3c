"""Input layers of audio: convolutions over time, their masks and their errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tfm import zoo
from tfm.core import config, errors
from tfm.model.count import flops_of_document
from tfm.model.spec import Model, Segment, Tower
from tfm.model.stack import tower_dims
from tfm.model.transformer import RUN, apply, init
from tfm.parts.absolute import Absolute, Learned
from tfm.parts.absolute.sinusoidal import waves
from tfm.parts.act import Sigmoid
from tfm.parts.embed.convolutions import Conv
from tfm.parts.embed.frames import Frames
from tfm.parts.embed.waveform import Waveform

SMALL = Waveform((Conv(10, 5, 24), Conv(3, 2, 24), Conv(2, 2, 24)))


def tower(embed, d_model=32):
  """A model that is nothing but an input layer."""
  return Model(embed, d_model, segments=(), absolute=Absolute(), norm=None, heads={})


def vectors(embed, params, **inputs):
  return np.asarray(apply(tower(embed), {'embed': params}, **inputs)['last_hidden_state'])


def started(embed):
  """Random parameters, biases and norms too."""
  leaves, tree = jax.tree.flatten(init(tower(embed), jax.random.key(0))['embed'])
  rng = np.random.default_rng(1)
  return jax.tree.unflatten(
    tree, [a + 0.3 * rng.standard_normal(a.shape).astype(np.float32) for a in leaves]
  )


def features(embed, frames, batch=2):
  shape = (batch, frames, embed.bins) if embed.bins_last else (batch, embed.bins, frames)
  return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
  'conv', [Conv(3, 1, pad=1), Conv(3, 2, pad=1), Conv(5, 2, pad=2), Conv(4, 3)]
)
def test_convolution_equals_a_sum_over_windows(conv):
  embed = Frames((conv,), bins=6)
  params, x = started(embed), features(embed, 11)
  kernel, bias = (np.asarray(params['conv_0'][name]) for name in ('kernel', 'bias'))
  padded = np.pad(x, ((0, 0), (0, 0), (conv.pad, conv.pad)))
  expected = [
    np.einsum('bip,ipo->bo', padded[:, :, t : t + conv.size], kernel) + bias
    for t in range(0, padded.shape[2] - conv.size + 1, conv.stride)
  ]
  expected = jax.nn.gelu(np.stack(expected, 1), approximate=False)
  np.testing.assert_allclose(vectors(embed, params, input_features=x), expected, atol=2e-5)


@pytest.mark.parametrize(
  'embed', [Frames(), SMALL, Waveform()], ids=['embed=frames', 'embed=small', 'embed=wav2vec2']
)
@pytest.mark.parametrize('length', [1, 2, 7])
def test_declared_shapes_give_the_requested_length(embed, length):
  frames = embed.frames(length)
  assert embed.windows(frames) == length
  assert [s.shape[-1] for s in embed.shapes(2, length).values()] == [frames]


def test_whisper_makes_1500_vectors_of_thirty_seconds():
  assert zoo.get('whisper-tiny').encoder.embed.frames(1500) == 3000


@pytest.mark.parametrize('embed', [Frames(bins=4), SMALL], ids=['embed=frames', 'embed=waveform'])
def test_mask_has_the_length_of_each_example(embed):
  total = 83
  mask = (np.arange(total)[None] < np.arange(total + 1)[:, None]).astype(np.int32)
  name, shape = (
    ('input_features', (84, 4, total))
    if isinstance(embed, Frames)
    else ('input_values', (84, total))
  )
  module = embed.make(tower_dims(tower(embed), tower(embed), RUN))
  inputs = {name: jnp.zeros(shape), 'attention_mask': mask}
  info = module.apply({'params': started(embed)}, inputs, {}, None, method='start').info
  lengths = np.asarray(info.segment_ids).sum(1)
  assert lengths.tolist() == [0, *(max(embed.windows(n), 0) for n in range(1, total + 1))]
  assert (np.diff(np.asarray(info.segment_ids), axis=1) <= 0).all()


def test_padding_outside_the_windows_has_no_effect():
  spec = zoo.tiny(zoo.get('whisper-tiny'))
  params = init(spec, jax.random.key(0))
  x = features(spec.encoder.embed, 64, 1)
  mask = (np.arange(64)[None] < 40).astype(np.int32)
  run = jax.jit(lambda x, **mask: apply(spec, params, tower='encoder', input_features=x, **mask))
  first, second = (
    run(a, attention_mask=mask)['encoder_last_hidden_state'] for a in (x, _changed(x, 44))
  )
  np.testing.assert_array_equal(first[:, :20], second[:, :20])
  whole, other = (run(a)['encoder_last_hidden_state'] for a in (x, _changed(x, 44)))
  assert np.abs(whole - other)[:, :20].max() > 1e-4


def _changed(x, start):
  return np.concatenate([x[:, :, :start], x[:, :, start:] + 1], 2)


@pytest.mark.parametrize(
  ('x', 'problem'),
  [
    (np.zeros((1, 79, 100)), r'has shape \(1, 79, 100\)\. Expected \[B, D=80, T\]'),
    (np.zeros((80, 100)), 'has shape'),
    (np.zeros((1, 80, 0)), 'which is empty. Expected at least 1 on each axis'),
    (np.zeros((1, 80, 130)), 'are 65 tokens; .* 64 entries. Expected at most 128 frames'),
  ],
)
def test_wrong_audio_shapes_are_errors(x, problem):
  spec = zoo.tiny(zoo.get('whisper-tiny'))
  params = init(spec, jax.random.key(0))
  with pytest.raises(errors.UserError, match=problem):
    apply(
      spec, params, input_features=x.astype(np.float32), decoder_input_ids=np.ones((1, 2), np.int32)
    )


@pytest.mark.parametrize(
  ('embed', 'problem'),
  [
    (Frames(()), 'convs=.*empty'),
    (Frames((Conv(3, 0),)), 'stride=0'),
    (Frames((Conv(3, 1, pad=2),)), 'pad=2'),
    (Frames((Conv(3, 1, 16, pad=1),)), 'channels=16.*d_model=32'),
    (Frames(bins=0), '0 input channels'),
    (Frames(dropout=1.0), 'dropout=1.0'),
  ],
)
def test_inconsistent_audio_fields_are_errors(embed, problem):
  with pytest.raises(errors.ConfigError, match=problem):
    config.validate(tower(embed))


def test_spec_survives_json():
  spec = zoo.get('whisper-large-v3')
  assert config.from_json(Model, config.to_json(spec)) == spec


def test_audio_flops_match_the_formula():
  embed = Frames((Conv(3, 1, 48, pad=1), Conv(5, 4, pad=2)), bins=20)
  n = 10
  spec = tower(embed)
  expected = 2 * n * (4 * 3 * 20 * 48 + 5 * 48 * 32)
  assert flops_of_document(spec, n) == expected


def test_audio_dropout_needs_training():
  embed = Frames(bins=6, dropout=0.5)
  params, x = {'embed': started(embed)}, features(embed, 16)
  plain, again = (
    apply(tower(embed), params, input_features=x)['last_hidden_state'] for _ in range(2)
  )
  dropped = apply(tower(embed), params, input_features=x, key=jax.random.key(0))[
    'last_hidden_state'
  ]
  np.testing.assert_array_equal(plain, again)
  assert 0.3 < float(jnp.mean(dropped == 0)) < 0.7


def test_position_table_starts_as_sinusoids():
  spec = Model(
    Frames(bins=6), 32, segments=(), absolute=Learned(20, start='t2t'), norm=None, heads={}
  )
  table = init(spec, jax.random.key(0))['absolute']['table']
  np.testing.assert_allclose(table, waves(jnp.arange(20)[None], 32, 't2t')[0], atol=1e-6)
  shifted = dataclasses.replace(spec, absolute=Learned(20, 2, start='t2t'))
  np.testing.assert_allclose(
    init(shifted, jax.random.key(0))['absolute']['table'][2:], table, atol=1e-5
  )


def test_audio_with_a_cache_is_an_error():
  embed = Frames(bins=6)
  module = embed.make(tower_dims(tower(embed), tower(embed), RUN))
  with pytest.raises(errors.UserError, match='a cache cannot be used with audio inputs'):
    module.apply(
      {'params': started(embed)},
      {'input_features': features(embed, 8)},
      {},
      jnp.zeros(2, jnp.int32),
      method='start',
    )


@pytest.mark.oracle
def test_gated_frames_equal_speech2text():
  import torch
  from transformers import Speech2TextConfig
  from transformers.models.speech_to_text.modeling_speech_to_text import Conv1dSubsampler

  torch.manual_seed(0)
  reference = Conv1dSubsampler(
    Speech2TextConfig(
      d_model=32, input_feat_per_channel=10, input_channels=1, conv_channels=24,
      conv_kernel_sizes=(5, 5),
      num_conv_layers=2,
    )
  )  # fmt: skip
  embed = Frames(
    (Conv(5, 2, 12, pad=2), Conv(5, 2, pad=2)), Sigmoid(), gated=True, bins=10, bins_last=True
  )
  params = {f'conv_{i}': _conv(conv) for i, conv in enumerate(reference.conv_layers)}
  x = features(embed, 21)
  with torch.no_grad():
    expected = reference(torch.tensor(x)).numpy()
  np.testing.assert_allclose(vectors(embed, params, input_features=x), expected, atol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize(
  ('kind', 'norm', 'bias'), [('group', 'first', False), ('layer', 'each', True)]
)
def test_waveform_equals_wav2vec2(kind, norm, bias):
  import torch
  import transformers

  torch.manual_seed(0)
  reference = transformers.Wav2Vec2Model(
    transformers.Wav2Vec2Config(
      hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
      feat_extract_norm=kind,
      conv_dim=(24, 24, 24), conv_kernel=(10, 3, 2), conv_stride=(5, 2, 2), conv_bias=bias,
      num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )
  ).eval()  # fmt: skip
  with torch.no_grad():
    for p in reference.parameters():
      p.add_(0.2 * torch.randn_like(p))
  embed = dataclasses.replace(SMALL, norm=norm, bias=bias)
  params = {}
  for i, layer in enumerate(reference.feature_extractor.conv_layers):
    params[f'conv_{i}'] = _conv(layer.conv)
    if hasattr(layer, 'layer_norm'):
      params[f'norm_{i}'] = _norm(layer.layer_norm)
  project = reference.feature_projection
  params['project_norm'] = _norm(project.layer_norm)
  params['projection'] = {
    'kernel': project.projection.weight.detach().numpy().T,
    'bias': project.projection.bias.detach().numpy()
  }  # fmt: skip
  x = np.random.default_rng(3).standard_normal((2, 700)).astype(np.float32)
  with torch.no_grad():
    expected = project(reference.feature_extractor(torch.tensor(x)).transpose(1, 2))[0].numpy()
  np.testing.assert_allclose(vectors(embed, params, input_values=x), expected, atol=2e-5)
  lengths = reference._get_feat_extract_output_lengths(torch.arange(30, 100)).tolist()
  assert [embed.windows(n) for n in range(30, 100)] == lengths


def _conv(conv):
  found = {'kernel': conv.weight.detach().numpy().transpose(1, 2, 0)}
  return found if conv.bias is None else found | {'bias': conv.bias.detach().numpy()}


def _norm(norm):
  return {'scale': norm.weight.detach().numpy(), 'bias': norm.bias.detach().numpy()}


def test_decoder_attends_to_a_waveform_encoder():
  encoder = Tower(SMALL, d_model=24, segments=(Segment(),), norm=None)
  whisper = zoo.tiny(zoo.get('whisper-tiny'))
  spec = config.validate(
    whisper.with_towers(encoder=dataclasses.replace(encoder, segments=whisper.encoder.segments))
  )
  out = apply(
    spec, init(spec, jax.random.key(0)), input_values=np.zeros((2, 300), np.float32),
    decoder_input_ids=np.ones((2, 3), np.int32),
  )  # fmt: skip
  assert out['encoder_last_hidden_state'].shape == (2, SMALL.windows(300), 24)
  assert out['logits'].shape == (2, 3, spec.vocab)
