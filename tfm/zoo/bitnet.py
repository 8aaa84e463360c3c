"""BitNet b1.58 (Ma et al., 2025): a Llama with ternary weights.

Its gates are squared ReLU, and both output projections of a block have a norm before them.
"""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.relu import SquaredRelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.rounding.ternary import Ternary
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'BitNet b1.58 2B4T Technical Report, arXiv:2504.12285'


def bitnet(depth: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a pre-norm decoder with ternary projections and tied embeddings.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  attention = Attention(heads, kv_heads, d // heads, RoPE(5e5), out_norm=norm)
  block = Block(attention, Glu(d_ff, SquaredRelu(), norm=norm), norm, rounding=Ternary())
  return Model(
    Tokens(128_256), d, (Segment((block,), depth),), norm=norm, init=Normal(depth_scaled=False)
  )


def read(c: Fields) -> Model:
  """Return the spec of a published config, without the rounding (see `tfm.zoo.rounding`)."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  attention = llama.attention(c, relative=c.rope(5e5, partial=False), out_norm=norm)
  ffn = Glu(c['intermediate_size'], c.act('hidden_act', 'relu2'), norm=norm)
  return llama.decoder(c, [Block(attention, ffn, norm)] * c['num_hidden_layers'], norm)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the published fields of a spec."""
  fields = llama.write(m)
  del fields['mlp_bias']
  return fields


#: The published 2B are the parameters without the token table.
MODELS = {'bitnet-b1.58-2b': Entry(bitnet(30, 2560, 20, 5, 6912), 2_412_820_480, '2.4B', PAPER)}
