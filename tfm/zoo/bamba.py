"""Bamba (2024): Mamba-2 layers with a few attention layers, and SwiGLU in every layer."""

from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.mixer.mamba2 import Mamba2
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields
from tfm.zoo.layers import as_attention, choose, layers_of, segments
from tfm.zoo.mamba import expand, limits, limits_of

POST = 'Bamba: Inference-Efficient Hybrid Mamba2 Model, IBM, Princeton, CMU and UIUC 2024'


def bamba(
  depth: int, d: int, heads: int, d_ff: int, recurrent: Mamba2, at: tuple[int, ...]
) -> Model:
  """Return a pre-norm hybrid of Mamba-2 and attention with RMSNorm and SwiGLU.

  RoPE rotates half of each attention head.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    recurrent: mixer of the recurrent layers.
    at: indices of the attention layers.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, 8, d // heads, RoPE(1e4, fraction=0.5))
  mixers = choose((i in at for i in range(depth)), attention, recurrent)
  layers = [Block(mixer, Glu(d_ff), norm) for mixer in mixers]
  head = Lm(tied=False)
  return Model(
    Tokens(128_256),
    d,
    segments(layers),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm, at = RMSNorm(c.get('rms_norm_eps', 1e-5)), c.get('attn_layer_indices', [])
  c.only(z_loss_coefficient=0.0, attn_rotary_emb=64)
  # transformers always rotates half of each head.
  attention = llama.attention(c, 8, relative=c.rope(fraction=0.5))
  recurrent = mamba2(c)
  mixers = choose((i in at for i in range(c['num_hidden_layers'])), attention, recurrent)
  layers = [Block(mixer, llama.glu(c), norm) for mixer in mixers]
  return llama.decoder(c, layers, norm)


def mamba2(c: Fields, **changes: Any) -> Mamba2:
  """Return the Mamba-2 mixer of a config with fields named `mamba_*`.

  Args:
    c: fields of the config.
    **changes: fields of the mixer that the family sets.

  Returns:
    The mixer.

  Raises:
    UserError: if heads times head width is not the width of the mixer.
  """
  heads, groups = c.get('mamba_n_heads', 128), c.get('mamba_n_groups', 1)
  width = c.get('mamba_d_ssm', c.get('mamba_expand', 2) * c['hidden_size'])
  size = c.get('mamba_d_head', 'auto')
  size = width // heads if size == 'auto' else size
  if size * heads != width:
    raise errors.UserError(
      f'{c.where}: mamba_n_heads ({heads}) x mamba_d_head ({size}) is {size * heads}. Expected '
      f'{width}: mamba_d_ssm, or mamba_expand x hidden_size.'
    )
  c.skip('mamba_chunk_size', 'mamba_expand', 'num_logits_to_keep')
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  fields = {
    'bias': c.get('mamba_proj_bias', False),
    'norm': norm,
    'norm_groups': groups,
    'limits': limits(c),
  }
  fields |= changes
  return Mamba2(
    heads, size, c.get('mamba_d_state', 256), groups, c.get('mamba_d_conv', 4),
    conv_bias=c.get('mamba_conv_bias', True), act=c.act('hidden_act', 'silu'), **fields,
  )  # fmt: skip


def mamba_fields(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a spec's Mamba-2 layers, none if it has no such layer."""
  mixer: Any = next((b.mixer for b in layers_of(m) if isinstance(b.mixer, Mamba2)), None)
  if mixer is None:
    return {}
  return {
    'mamba_n_heads': mixer.heads, 'mamba_d_head': mixer.head_dim, 'mamba_d_state': mixer.d_state,
    'mamba_n_groups': mixer.key_heads, 'mamba_d_conv': mixer.conv,
    'mamba_conv_bias': mixer.conv_bias,
    'mamba_proj_bias': mixer.bias, 'mamba_expand': expand(mixer.heads * mixer.head_dim, m),
    'time_step_limit': limits_of(mixer),
  }  # fmt: skip


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  at = [i for i, b in enumerate(layers_of(m)) if hasattr(b.mixer, 'sizes')]
  return {**llama.write(as_attention(m)), **mamba_fields(m), 'attn_layer_indices': at}


_RECURRENT = Mamba2(128, 64, 128, 1)

MODELS = {
  'bamba-9b': Entry(
    bamba(32, 4096, 32, 14_336, _RECURRENT, (9, 18, 27)), 9_780_235_392, '9.8B', POST
  )
}
