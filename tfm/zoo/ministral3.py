"""Ministral 3 (Mistral AI, 2025): Mistral's block with YaRN and position-scaled queries."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.length_scale import LengthScale
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.yarn import Yarn
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, rope_parameters
from tfm.zoo.layers import causal_mask, window_of

PAPER = 'Ministral 3, arXiv:2601.08584'
#: Keys of the rotary position embedding if a config has none.
_USUAL = {
  'rope_type': 'yarn', 'rope_theta': 1e6, 'factor': 16.0,
  'original_max_position_embeddings': 16_384,
  'beta_fast': 32.0, 'beta_slow': 1.0, 'mscale_all_dim': 1.0, 'mscale': 1.0,
  'llama_4_scaling_beta': 0.1,
}  # fmt: skip


def ministral3(depth: int, d: int, d_ff: int, tied: bool = False) -> Model:
  """Return a pre-norm decoder with RMSNorm, SwiGLU and 8 key/value heads of width 128.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    d_ff: hidden width of the feed-forward.
    tied: whether the head shares the token table.

  Returns:
    The spec of the model.
  """
  norm, yarn = RMSNorm(1e-5), Yarn(16.0, 16_384, 32.0, 1.0, mscale=1.0, mscale_all=1.0)
  attention = Attention(32, 8, 128, RoPE(1e6, scaling=yarn), length_scale=LengthScale(0.1, 16_384))
  segment, head = Segment((Block(attention, Glu(d_ff), norm),), depth), Lm(tied=tied)
  return Model(
    Tokens(131_072), d, (segment,), heads={'lm': head}, norm=norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  given = dict(c.get('rope_parameters') or c.get('rope_scaling') or _USUAL)
  rate = given.pop('llama_4_scaling_beta', None)
  every = given.get('original_max_position_embeddings')
  given.pop('max_position_embeddings', None)
  rope = c.changed(rope_parameters=given, rope_scaling=None).rope(1e6)
  c.skip('max_position_embeddings')
  scale = LengthScale(float(rate), every) if rate is not None and every is not None else None
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  mask = causal_mask(c.given('sliding_window'))
  attention = llama.attention(c, 8, 128, mask=mask, relative=rope, length_scale=scale)
  return llama.decoder(c, [Block(attention, llama.glu(c), norm)] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  a = m.segments[0].pattern[0].mixer
  rope = rope_parameters(a.relative)
  if a.length_scale is not None:
    more = {
      'llama_4_scaling_beta': a.length_scale.rate,
      'original_max_position_embeddings': a.length_scale.every,
    }
    rope = {**rope, **more}
  return {**llama.sizes(m), 'rope_parameters': rope, 'sliding_window': window_of(m)}


MODELS = {
  'ministral3-3b': Entry(ministral3(26, 3072, 9216, True), 3_429_006_336, '3.4B', PAPER),
  'ministral3-8b': Entry(ministral3(34, 4096, 14_336), 8_489_553_920, '8.4B', PAPER),
  'ministral3-14b': Entry(ministral3(40, 5120, 16_384), 13_506_073_600, '13.5B', PAPER),
}
