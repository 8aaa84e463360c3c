"""LFM2 (Liquid AI, 2025): gated short convolutions with a few attention layers."""

from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.base import Mixer
from tfm.parts.mixer.gated_conv import GatedConv
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import GLOBAL, as_attention, check_layer_types, choose, layers_of, segments

PAPER = 'LFM2 Technical Report, arXiv:2511.23404'
CONV = 'conv'


def lfm2(depth: int, d: int, heads: int, d_ff: int, at: tuple[int, ...]) -> Model:
  """Return a tied pre-norm hybrid with RMSNorm, SwiGLU, 8 key/value heads and query/key norms.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    at: indices of the attention layers.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, 8, d // heads, RoPE(1e6), qk_norm=norm)
  mixers: list[Mixer] = choose((i in at for i in range(depth)), attention, GatedConv())
  layers = [Block(mixer, Glu(d_ff), norm) for mixer in mixers]
  return Model(Tokens(65_536), d, segments(layers), norm=norm, init=Normal(depth_scaled=False))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  n, norm = c['num_hidden_layers'], RMSNorm(c.get('norm_eps', 1e-5))
  at = c.get('full_attn_idxs', list(range(n)))
  types = c.get('layer_types', choose((i in at for i in range(n)), GLOBAL, CONV))
  check_layer_types(c, types, (CONV, GLOBAL))
  # Duplicate sizes and initialization in the authors' configs.
  c.skip(
    'block_dim',
    'block_mlp_init_scale',
    'block_out_init_scale',
    'block_norm_eps',
    'conv_dim',
    'conv_dim_out',
  )
  c.skip('conv_use_xavier_init', 'block_use_xavier_init', 'num_heads', 'theta')
  c.only(block_use_swiglu=True, use_pos_enc=True)
  attention = llama.attention(c, 8, relative=c.rope(1e6), qk_norm=norm, bias='', dropout=0.0)
  recurrent, ffn = GatedConv(c.get('conv_L_cache', 3), c.get('conv_bias', False)), Glu(_width(c))
  mixers: list[Mixer] = choose((t == GLOBAL for t in types), attention, recurrent)
  layers = [Block(mixer, ffn, norm) for mixer in mixers]
  return llama.decoder(c, layers, norm, c.get('tie_embedding', True))


def _width(c: Fields) -> int:
  """Return the width of the feed-forward; some configs state 3/2 of it."""
  width: int = c.get('block_ff_dim', c.get('intermediate_size', 12_288))
  by, step = c.given('block_ffn_dim_multiplier', 1.0), c.get('block_multiple_of', 256)
  if not c.given('block_auto_adjust_ff_dim', True):
    return width
  width = int(2 * width / 3)
  return width if by is None else -(-int(by * width) // step) * step


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields, blocks = llama.sizes(as_attention(m), 'norm_eps'), layers_of(m)
  conv: Any = next((b.mixer for b in blocks if isinstance(b.mixer, GatedConv)), GatedConv())
  types = choose((hasattr(b.mixer, 'sizes') for b in blocks), GLOBAL, CONV)
  for name in ('attention_dropout', 'hidden_act'):
    del fields[name]
  return {
    **fields, 'layer_types': types, 'conv_L_cache': conv.size, 'conv_bias': conv.bias,
    'block_auto_adjust_ff_dim': False,
  }  # fmt: skip


_AT = (2, 5, 8, 10, 12, 14)

MODELS = {
  'lfm2-350m': Entry(lfm2(16, 1024, 16, 4608, _AT), 354_483_968, '354M', PAPER),
  'lfm2-700m': Entry(lfm2(16, 1536, 24, 6912, _AT), 742_489_344, '742M', PAPER),
  'lfm2-1.2b': Entry(lfm2(16, 2048, 32, 8192, _AT), 1_170_340_608, '1.17B', PAPER),
}
