"""ESM-1b and ESM-2 (Rives et al., 2021; Lin et al., 2022): pre-norm BERTs of proteins."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.base import Absolute
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER_1B = (
  'Biological structure and function emerge from scaling unsupervised learning, PNAS 118(15), 2021'
)
PAPER_2 = (
  'Evolutionary-scale prediction of atomic-level protein structure with a language model, '
  'Science 379, 2023'
)


def esm2(layers: int, d: int, heads: int) -> Model:
  """Return a pre-norm encoder with RoPE; mask tokens rescale the embeddings.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.

  Returns:
    The spec of the model.
  """
  attention = Attention(heads, relative=RoPE(), mask=Mask(), bias='qkvo')
  norm = LayerNorm(1e-5)
  return _model(
    Tokens(33, mask_token=32), d, layers, Block(attention, Mlp(4 * d, Gelu()), norm), Absolute()
  )


def esm1b() -> Model:
  """Return ESM-1b, which has learned positions and normalised embeddings."""
  norm = LayerNorm(1e-5)
  block = Block(Attention(20, mask=Mask(), bias='qkvo'), Mlp(5120, Gelu()), norm)
  return _model(Tokens(33, norm=norm, mask_token=32), 1280, 33, block, Learned(1024, 2))


def _model(embed: Tokens, d: int, layers: int, block: Block, absolute: Absolute) -> Model:
  head = Lm(bias=True, transform=Transform(Gelu(), block.norm))
  init = Normal(depth_scaled=False, truncated=True)
  return Model(
    embed, d, (Segment((block,), layers),), absolute, block.norm, heads={'lm': head}, init=init
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with its masked-LM head.

  Note:
    There is no contact head, and no dropout of embeddings, which transformers never applies either.
  """
  c.only(
    is_folding_model=False, is_decoder=False, add_cross_attention=False, tie_word_embeddings=True
  )
  c.only(hidden_act='gelu')
  c.skip('vocab_list', 'esmfold_config', 'position_embedding_type', 'rope_theta', 'mask_token_id')
  norm, pad = LayerNorm(c.get('layer_norm_eps', 1e-12)), c.get('pad_token_id', 1)
  length = c.get('max_position_embeddings', 1026) - pad - 1
  rotary, learned = RoPE(float(c.get('rope_theta', 1e4))), Learned(length, pad + 1)
  kinds: dict[str, tuple[Relative, Absolute]] = {
    'rotary': (rotary, Absolute()),
    'absolute': (Relative(), learned),
  }
  relative, absolute = c.choice('position_embedding_type', kinds, 'absolute')
  attention_dropout = c.get('attention_probs_dropout_prob', 0.1)
  dropout = c.get('hidden_dropout_prob', 0.1)
  attention = Attention(
    c['num_attention_heads'], relative=relative, mask=Mask(), bias='qkvo', dropout=attention_dropout
  )
  block = Block(attention, Mlp(c['intermediate_size'], Gelu()), norm, dropout=dropout)
  mask = c['mask_token_id'] if c.get('token_dropout', False) else None
  embed = Tokens(
    c['vocab_size'], norm=norm if c.get('emb_layer_norm_before', False) else None, mask_token=mask
  )
  return _model(embed, c['hidden_size'], c['num_hidden_layers'], block, absolute)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  rotary = isinstance(block.mixer.relative, RoPE)
  pad = 1 if rotary else m.absolute.offset - 1
  positions: dict[str, Any] = {'position_embedding_type': 'rotary' if rotary else 'absolute'}
  if rotary:
    positions['rope_theta'] = block.mixer.relative.base
  else:
    positions['max_position_embeddings'] = m.max_positions + pad + 1
  masks = {} if m.embed.mask_token is None else {'mask_token_id': m.embed.mask_token}
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads, 'intermediate_size': block.ffn.d_ff,
    'layer_norm_eps': block.norm.eps,
    'hidden_dropout_prob': block.dropout, 'attention_probs_dropout_prob': block.mixer.dropout,
    'pad_token_id': pad,
    'emb_layer_norm_before': m.embed.norm is not None,
    'token_dropout': m.embed.mask_token is not None,
    **positions, **masks,
  }  # fmt: skip


MODELS = {
  'esm1b': Entry(esm1b(), 652_358_433, '650M', PAPER_1B),
  'esm2-8m': Entry(esm2(6, 320, 20), 7_512_353, '8M', PAPER_2),
  'esm2-35m': Entry(esm2(12, 480, 20), 33_501_153, '35M', PAPER_2),
  'esm2-150m': Entry(esm2(30, 640, 20), 148_139_553, '150M', PAPER_2),
  'esm2-650m': Entry(esm2(33, 1280, 20), 651_042_593, '650M', PAPER_2),
  'esm2-3b': Entry(esm2(36, 2560, 40), 2_839_004_193, '3B', PAPER_2),
  'esm2-15b': Entry(esm2(48, 5120, 40), 15_129_098_273, '15B', PAPER_2),
}
