"""Mamba (2023), Falcon Mamba (2024) and Mamba-2 (2024): selective state-space models.

They have neither attention nor feed-forward layers.
"""

import math
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.embed.tokens import Tokens
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.base import Mixer
from tfm.parts.mixer.mamba import Mamba
from tfm.parts.mixer.mamba2 import Mamba2
from tfm.parts.norm.rms import RMSNorm
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'Mamba: Linear-Time Sequence Modeling with Selective State Spaces, arXiv:2312.00752'
PAPER_2 = 'Transformers are SSMs, arXiv:2405.21060'
PAPER_FALCON = (
  'Falcon Mamba: The First Competitive Attention-free 7B Language Model, arXiv:2410.05355'
)


def mamba(depth: int, d: int, mixer: Mixer, vocab: int, tied: bool = True) -> Model:
  """Return a pre-norm model with RMSNorm and one state-space mixer per layer.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    mixer: mixer of every layer.
    vocab: size of the vocabulary.
    tied: whether the head shares the token table.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  segments = (Segment((Block(mixer, None, norm),), depth),)
  return Model(
    Tokens(vocab),
    d,
    segments,
    heads={'lm': Lm(tied=tied)},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` of Mamba."""
  c.only(rms_norm=True, ssm_cfg={})
  return _decoder(c, _selective(c))


def read_falcon(c: Fields) -> Model:
  """Return the spec of a published `config.json` of Falcon Mamba.

  It normalises the time step, B and C without weights.
  """
  c.skip('use_falcon_mambapy')
  return _decoder(c, _selective(c, norm=RMSNorm(c.get('mixer_rms_eps', 1e-6), scale=False)))


def read_2(c: Fields) -> Model:
  """Return the spec of a published `config.json` of Mamba-2."""
  groups = c.get('n_groups', 8)
  mixer = Mamba2(
    c.get('num_heads', 128), c.get('head_dim', 64), c.get('state_size', 128), groups,
    c.get('conv_kernel', 4),
    bias=c.get('use_bias', False), conv_bias=c.get('use_conv_bias', True),
    act=c.act('hidden_act', 'silu'),
    norm=RMSNorm(c.get('layer_norm_epsilon', 1e-5)), norm_groups=groups, limits=limits(c),
  )  # fmt: skip
  # The heads determine the width of the mixer.
  c.only(expand=mixer.heads * mixer.head_dim / c['hidden_size'])
  c.skip('chunk_size', 'time_step_rank', 'norm_before_gate', 'rms_norm')
  return _decoder(c, mixer, tied=False)


def _selective(c: Fields, **changes: Any) -> Mamba:
  d = c['hidden_size']
  rank = c.get('time_step_rank', 'auto')
  c.skip('use_mambapy', 'use_associative_scan', 'expand')
  return Mamba(
    c.get('intermediate_size', int(c.get('expand', 2) * d)), c.get('state_size', 16),
    math.ceil(d / 16) if rank == 'auto' else int(rank), c.get('conv_kernel', 4),
    bias=c.get('use_bias', False),
    conv_bias=c.get('use_conv_bias', True), act=c.act('hidden_act', 'silu'), **changes,
  )  # fmt: skip


#: Fields of initialization and of the residual dtype, and older names of sizes.
_SILENT = (
  'd_inner', 'd_model', 'fused_add_norm', 'n_layer', 'pad_vocab_size_multiple',
  'rescale_prenorm_residual',
  'residual_in_fp32', 'time_step_floor', 'time_step_init_scheme', 'time_step_max', 'time_step_min',
  'time_step_scale',
)  # fmt: skip


def _decoder(c: Fields, mixer: Mixer, tied: bool = True) -> Model:
  c.skip(*_SILENT)
  norm = RMSNorm(c.get('layer_norm_epsilon', 1e-5))
  return llama.decoder(c, [Block(mixer, None, norm)] * c['num_hidden_layers'], norm, tied)


def limits(c: Fields) -> tuple[float, float]:
  """Return the smallest and the largest time step of a config.

  Infinity may be written as `{'__float__': 'Infinity'}`.
  """
  low, high = c.get('time_step_limit', (0.0, math.inf))
  return float(low), float(high['__float__'] if isinstance(high, dict) else high)


def limits_of(mixer: Any) -> list[Any]:
  """Return the limits of a mixer as transformers writes them."""
  low, high = mixer.limits
  return [low, {'__float__': 'Infinity'} if math.isinf(high) else high]


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` of Mamba for a spec."""
  mixer = m.segments[0].pattern[0].mixer
  return {
    **_common(m, mixer), 'intermediate_size': mixer.width, 'expand': expand(mixer.width, m),
    'state_size': mixer.d_state, 'time_step_rank': mixer.rank,
  }  # fmt: skip


def write_falcon(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` of Falcon Mamba for a spec."""
  return {**write(m), 'mixer_rms_eps': m.segments[0].pattern[0].mixer.norm.eps}


def write_2(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` of Mamba-2 for a spec."""
  mixer = m.segments[0].pattern[0].mixer
  return {
    **_common(m, mixer), 'num_heads': mixer.heads, 'head_dim': mixer.head_dim,
    'state_size': mixer.d_state,
    'n_groups': mixer.key_heads, 'expand': expand(mixer.heads * mixer.head_dim, m),
    'time_step_limit': limits_of(mixer),
  }  # fmt: skip


def expand(width: int, m: FamilyModel) -> float:
  """Return the width of a mixer divided by that of the model, as an int if it is whole."""
  share = width / m.d_model
  return int(share) if share == int(share) else share


def _common(m: FamilyModel, mixer: Any) -> dict[str, Any]:
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'layer_norm_epsilon': m.norm.eps,
    'conv_kernel': mixer.conv, 'use_bias': mixer.bias, 'use_conv_bias': mixer.conv_bias,
    'hidden_act': name_of(mixer.act), 'tie_word_embeddings': m.lm is None or m.lm.tied,
  }  # fmt: skip


_FALCON = Mamba(8192, 16, 256, norm=RMSNorm(1e-6, scale=False))
_CODESTRAL = Mamba2(128, 64, 128, 8, norm_groups=8)

MODELS = {
  'mamba-130m': Entry(mamba(24, 768, Mamba(1536, 16, 48), 50_280), 129_135_360, '130M', PAPER),
  'mamba-1.4b': Entry(mamba(48, 2048, Mamba(4096, 16, 128), 50_280), 1_372_178_432, '1.4B', PAPER),
  'mamba-2.8b': Entry(mamba(64, 2560, Mamba(5120, 16, 160), 50_280), 2_768_345_600, '2.8B', PAPER),
  'falcon-mamba-7b': Entry(
    mamba(64, 4096, _FALCON, 65_024, False), 7_272_665_088, '7.3B', PAPER_FALCON
  ),
  'mamba-codestral-7b': Entry(
    mamba(64, 4096, _CODESTRAL, 32_768, False), 7_285_403_648, '7.3B', PAPER_2
  ),
}
