"""nanochat (Karpathy, 2025): small chat models with parameter-free norms."""

from typing import Any

from tfm.model.spec import Block, Model, Segment
from tfm.parts.act.relu import SquaredRelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

CODE = 'nanochat, Andrej Karpathy 2025'


def nanochat(depth: int, d: int, heads: int, vocab: int) -> Model:
  """Return a pre-norm decoder with squared ReLU, normalised embeddings and capped logits.

  Queries and keys are normalised after the rotation.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-6, scale=False)
  attention = Attention(heads, heads, d // heads, RoPE(1e4), qk_norm=norm, rotate_first=True)
  segment = Segment((Block(attention, Mlp(4 * d, SquaredRelu(), bias=False), norm),), depth)
  head = Lm(tied=False, cap=15.0)
  return Model(
    Tokens(vocab, norm=norm),
    d,
    (segment,),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=True),
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  norm = RMSNorm(c.get('rms_norm_eps', 1e-6), scale=False)
  attention = llama.attention(c, qk_norm=norm, rotate_first=True)
  block = Block(
    attention, Mlp(c['intermediate_size'], c.act('hidden_act', 'relu2'), bias=False), norm
  )
  embed, cap = Tokens(norm=norm), c.given('final_logit_softcapping', 15.0)
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm, embed=embed, cap=cap)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  fields = llama.sizes(m)
  del fields['head_dim']
  cap = m.lm and m.lm.cap
  return {
    **fields,
    'attention_bias': bool(m.segments[0].pattern[0].mixer.bias),
    'final_logit_softcapping': cap,
  }


MODELS = {'nanochat-d32': Entry(nanochat(32, 2048, 16, 65_536), 1_879_048_192, '1.9B', CODE)}
