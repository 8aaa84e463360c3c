"""Errors of wrong inputs of each input layer, and of incompatible parts."""

import jax
import jax.numpy as jnp
import pytest

from tests.parts.towers import block, causal, model, source
from tfm.core import config, errors
from tfm.model import transformer
from tfm.model.spec import Model, Segment
from tfm.parts.absolute import Learned
from tfm.parts.cross import CrossAttention
from tfm.parts.embed import Codes, Conditioned, Features, Interleave, Latents, Splice, Tokens
from tfm.parts.embed.interleave import Stream
from tfm.parts.head import Lm, Regress, Unpatchify
from tfm.parts.mtp import SequentialMTP
from tfm.parts.norm import AdaptiveNorm, LayerNorm
from tfm.parts.resample import Merge, Stride
from tfm.parts.residual import Dlcl
from tfm.parts.residual_scale import Gate

B, T = 2, 6


def floats(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def ints(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.int32)


VECTORS = model(Features('states', 5, timesteps=9), absolute=Learned(8))
IMAGE = model(Features('latents', 5, grid=(2, 3)))
CODES = model(Codes(3, 11), absolute=Learned(8))
READER = block(cross=CrossAttention(4, tower='inputs'))
LATENTS = model(Latents(4), READER, towers={'inputs': source()})
LLAVA = causal(Splice(Tokens(61)), heads={'lm': Lm()}, towers={'vision': source('pixel_values')})
STREAMS = causal(
  Interleave(
    (Stream('states', Features('states', 5)), Stream('actions', Features('actions', 2))),
    timesteps=9,
  ),
  absolute=Learned(8),
)
DIT = model(
  Conditioned(Features('latents', 5), classes=4, pooled=7),
  block(norm=AdaptiveNorm(), residual_scale=Gate()),
)
STEP = {'states': floats(B, T, 5), 'timesteps': ints(B, T)}
MOVE = {'states': floats(B, 3, 5), 'actions': floats(B, 3, 2), 'timesteps': ints(B, 3)}
NOISE = {
  'latents': floats(B, T, 5), 'timestep': floats(B), 'class_labels': ints(B),
  'pooled_projections': floats(B, 7)
}  # fmt: skip
IDS = ints(B, T)


def without(inputs, name):
  """Return the inputs without the input `name`."""
  return {n: x for n, x in inputs.items() if n != name}


@pytest.mark.parametrize(
  ('spec', 'inputs', 'message'),
  [
    pytest.param(spec, inputs, message, id=f'case={name}')
    for name, spec, inputs, message in [
      (
        'features-missing',
        VECTORS,
        without(STEP, 'states'),
        r'states is missing\. Expected states, timesteps',
      ),
      (
        'features-no-time',
        VECTORS,
        without(STEP, 'timesteps'),
        r'timesteps is missing\. Expected states, timesteps',
      ),
      (
        'features-unknown',
        VECTORS,
        STEP | {'state': IDS},
        "unknown input 'state'. Did you mean 'states'",
      ),
      (
        'features-rank',
        VECTORS,
        STEP | {'states': floats(B, 5)},
        r'states has shape \(2, 5\)\. Expected \[B, T, R=5\]',
      ),
      (
        'features-width',
        VECTORS,
        STEP | {'states': floats(B, T, 4)},
        r'states has shape \(2, 6, 4\).*\[B, T, R=5\]',
      ),
      (
        'features-time',
        VECTORS,
        STEP | {'timesteps': ints(B, 5)},
        r'timesteps has shape.*Expected \[B=2, T=6\]',
      ),
      (
        'features-mask',
        VECTORS,
        STEP | {'attention_mask': ints(B, 5)},
        r'attention_mask has shape \(2, 5\)\. Expected',
      ),
      (
        'features-two-masks',
        VECTORS,
        STEP | {'attention_mask': IDS, 'segment_ids': IDS},
        'are both given',
      ),
      (
        'features-long',
        VECTORS,
        {'states': floats(B, 9, 5), 'timesteps': ints(B, 9)},
        'states has 9 tokens, the position table has 8 entries',
      ),
      (
        'features-grid',
        IMAGE,
        {'latents': floats(B, 5, 5)},
        'latents has 5 vectors. Expected 6, for a grid of 2 x 3',
      ),
      ('codes-missing', CODES, {}, r'input_ids is missing\. Expected input_ids'),
      (
        'codes-flat',
        CODES,
        {'input_ids': IDS},
        r'input_ids has shape \(2, 6\)\. Expected \[B, T, U=3\]',
      ),
      (
        'codes-books',
        CODES,
        {'input_ids': ints(B, T, 4)},
        r'input_ids has shape.*Expected \[B, T, U=3\]',
      ),
      (
        'codes-long',
        CODES,
        {'input_ids': ints(B, 9, 3)},
        'has 9 tokens, the position table has 8 entries',
      ),
      ('latents-missing', LATENTS, {}, r'vectors is missing\. Expected vectors'),
      (
        'latents-width',
        LATENTS,
        {'vectors': floats(B, T, 4)},
        r'vectors has shape.*Expected \[B, T, R=5\]',
      ),
      (
        'latents-unknown',
        LATENTS,
        {'vectors': floats(B, T, 5), 'latents': IDS},
        "unknown input 'latents'",
      ),
      (
        'splice-missing',
        LLAVA,
        {'pixel_values': floats(B, 2, 5)},
        r'input_ids is missing\. Expected pixel_values, input_ids',
      ),
      (
        'splice-ids',
        LLAVA,
        {'input_ids': ints(T)},
        r'input_ids has shape \(6,\)\. Expected \[B, T\]',
      ),
      (
        'splice-image',
        LLAVA,
        {'input_ids': IDS, 'pixel_values': floats(B, 2, 4)},
        r'pixel_values has shape.*R=5',
      ),
      (
        'splice-many',
        LLAVA,
        {'input_ids': IDS, 'pixel_values': floats(B, 7, 5)},
        'at most 12 placeholders',
      ),
      (
        'streams-missing',
        STREAMS,
        without(MOVE, 'actions'),
        r'actions is missing\. Expected states, actions, timesteps',
      ),
      (
        'streams-width',
        STREAMS,
        MOVE | {'actions': floats(B, 3, 3)},
        r'actions has shape.*Expected \[B, T, R=2\]',
      ),
      (
        'streams-steps',
        STREAMS,
        MOVE | {'actions': floats(B, 2, 2)},
        'actions has 2 examples of 2 steps, and states has 2 of 3. Expected equal numbers in '
        'states, actions',
      ),
      (
        'streams-mask',
        STREAMS,
        MOVE | {'attention_mask': ints(B, 6)},
        r'attention_mask has shape.*\[B=2, T=3\]',
      ),
      (
        'streams-long',
        STREAMS,
        {'states': floats(B, 5, 5), 'actions': floats(B, 5, 2), 'timesteps': ints(B, 5)},
        '5 steps of 2 streams are 10 tokens, the position table has 8 entries. Expected at most 4 '
        'steps',
      ),
      (
        'condition-missing',
        DIT,
        without(NOISE, 'timestep'),
        r'timestep is missing\. Expected latents, timestep, class_labels, pooled_projections',
      ),
      (
        'condition-time',
        DIT,
        NOISE | {'timestep': floats(B, 1)},
        r'timestep has shape \(2, 1\)\. Expected \[B=2\]',
      ),
      (
        'condition-batch',
        DIT,
        NOISE | {'class_labels': ints(3)},
        r'class_labels has shape \(3,\)\. Expected \[B=2\]',
      ),
      (
        'condition-pooled',
        DIT,
        NOISE | {'pooled_projections': floats(B, 6)},
        r'Expected \[B=2, R=7\]',
      ),
    ]
  ],
)
def test_wrong_inputs_are_errors(spec, inputs, message):
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(
      lambda p, x: transformer.apply(spec, p, **x), transformer.param_shapes(spec), inputs
    )


def bare(embed, *pattern, **fields) -> Model:
  """Return a model without validation."""
  fields = {'heads': {'regress': Regress(3)}, 'norm': LayerNorm()} | fields
  return Model(embed, 32, (Segment(pattern or (block(),), 2),), **fields)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    pytest.param(spec, message, id=f'case={name}')
    for name, spec, message in [
      ('size', bare(Features(size=0)), 'embed: size=0, timesteps=0 are not valid sizes'),
      ('width', bare(Features(size=5, project=False)), 'embed: size=5 is not d_model=32'),
      (
        'input',
        bare(Features('attention_mask')),
        "embed: input='attention_mask' is not a valid name of an input",
      ),
      (
        'latents-tower',
        bare(Latents(4)),
        "reads tower 'inputs', which does not exist. Expected a tower of the model: none",
      ),
      (
        'count',
        bare(Latents(0), towers={'inputs': source()}),
        'embed: count=0 is too small',
      ),
      (
        'shared',
        bare(Splice(Tokens(None)), towers={'vision': source()}),
        'text.vocab=none shares a table',
      ),
      ('no-parts', bare(Interleave(())), 'embed: parts is empty'),
      (
        'same-input',
        bare(Interleave((Stream('a', Features('x')), Stream('b', Features('x'))))),
        "embed.parts: two streams use the input 'x'",
      ),
      (
        'same-name',
        bare(Interleave((Stream('a', Features('x')), Stream('a', Features('y'))))),
        "'a' is not an identifier, or reserved, or used twice",
      ),
      ('books', bare(Codes(0)), 'embed: books=0, codes=2049 must be positive'),
      ('nothing', bare(Conditioned(waves=0)), 'waves, classes and pooled are all 0'),
      (
        'unread',
        bare(Conditioned()),
        'embed: provides a condition, but no norm or residual_scale needs it',
      ),
      (
        'norm',
        bare(Features(), block(norm=AdaptiveNorm())),
        r'segments\.0\.pattern\.0\.norm: norm=adaptive needs a condition, but embed=features '
        r'provides none',
      ),
      (
        'residual_scale',
        bare(Features(), block(residual_scale=Gate())),
        r'segments\.0\.pattern\.0\.residual_scale: residual_scale=gate needs a condition',
      ),
      (
        'final',
        bare(Features(), norm=AdaptiveNorm()),
        'model.norm|norm: norm=adaptive needs a condition',
      ),
      (
        'elsewhere',
        bare(Conditioned(Features()), block(norm=AdaptiveNorm()), residual=Dlcl(AdaptiveNorm())),
        r'residual\.norm: norm=adaptive needs a condition, which is not available here',
      ),
      (
        'stream',
        bare(Features(), heads={'r': Regress(stream='a')}),
        r"heads\.r: stream='a' is not a stream of embed=features",
      ),
      (
        'known-streams',
        bare(Interleave(), heads={'r': Regress(stream='action')}),
        "stream='action' is not a stream of embed=interleave. Expected one of returns, states, "
        'actions',
      ),
      (
        'lm',
        bare(Features(), heads={'lm': Lm()}),
        r'heads\.lm: lm needs a vocabulary',
      ),
      (
        'grid',
        bare(Features(), heads={'u': Unpatchify()}),
        r'heads\.u: unpatchify needs a grid of image patches',
      ),
      (
        'mtp',
        bare(
          Splice(Tokens(61)),
          block(),
          mtp=SequentialMTP(),
          towers={'vision': source()},
          heads={'lm': Lm()},
        ),
        'mtp reads token embeddings, but embed=splice',
      ),
      (
        'merge',
        Model(Features(), 32, (Segment((block(),), 1, resample=Merge()),), heads={}),
        r'segments\.0\.resample: needs a grid of image patches, which embed=features does not',
      ),
      (
        'resampled-stream',
        Model(
          Interleave(),
          32,
          (Segment((block(),), 1, resample=Stride()),),
          heads={'r': Regress(stream='states')},
        ),
        "stream='states': a segment changes the length",
      ),
    ]
  ],
)
def test_parts_incompatible_with_the_input_layer_are_errors(spec, message):
  with pytest.raises(errors.ConfigError, match=message):
    config.validate(spec)
