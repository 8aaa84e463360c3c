"""BART (Lewis et al., 2019): an encoder-decoder with the blocks that its relatives share."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment, Tower, depth
from tfm.parts.absolute.base import Absolute
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.residual_layout.base import ResidualLayout
from tfm.parts.residual_layout.post import Post
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'BART: Denoising Sequence-to-Sequence Pre-training, arXiv:1910.13461'
NORM = LayerNorm(1e-5)


def bart(layers: int, d: int, heads: int, vocab: int = 50_265) -> Model:
  """Return a post-norm encoder-decoder with learned positions and a bias on the logits.

  Position embeddings start at row 2. Each stack normalises its embeddings.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    vocab: size of the vocabulary.

  Returns:
    The spec of the model.

  Note:
    The published code stores the bias of the logits as a constant. Here it is a trained parameter,
    so
    the number of parameters is larger.
  """
  blocks = encoder_decoder_blocks(heads, 4 * d, Gelu(), Post())
  return stacks(
    vocab, d, blocks, (layers, layers), Learned(1024, 2), Tokens(norm=NORM, dropout=0.1)
  )


def encoder_decoder_blocks(
  heads: int,
  d_ff: int,
  act: Act,
  residual_layout: ResidualLayout,
  dropout: float = 0.1,
  attention_dropout: float = 0.0,
  ffn_dropout: float = 0.0,
) -> tuple[Block, Block]:
  """Return the block of the encoder and the block of the decoder.

  Args:
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    act: activation of the feed-forward.
    residual_layout: where the norms and the residual additions are.
    dropout: dropout rate of the residual branches.
    attention_dropout: dropout rate of the attention weights.
    ffn_dropout: dropout rate inside the feed-forward.

  Returns:
    The two blocks. The decoder's block has causal attention and cross-attention.
  """
  encoder_attention = Attention(heads, mask=Mask(), bias='qkvo', dropout=attention_dropout)
  encoder_block = Block(
    encoder_attention, Mlp(d_ff, act, dropout=ffn_dropout), NORM, residual_layout, dropout=dropout
  )
  cross = CrossAttention(heads, bias='qkvo', dropout=attention_dropout)
  return encoder_block, dataclasses.replace(
    encoder_block, mixer=Attention(heads, bias='qkvo', dropout=attention_dropout), cross=cross
  )


def stacks(
  vocab: int, d: int, blocks: tuple[Block, Block], depths: tuple[int, int], absolute: Absolute,
  embed: Tokens,
  head: Lm = Lm(bias=True), source: int | None = None,
) -> Model:  # fmt: skip
  """Return an encoder-decoder of two blocks.

  Args:
    vocab: size of the vocabulary.
    d: width of the residual stream.
    blocks: blocks of the encoder and of the decoder.
    depths: number of layers of the encoder and of the decoder.
    absolute: absolute position embedding of both stacks.
    embed: input layer. If it has a norm, each stack has its own parameters.
    head: output head.
    source: size of the encoder's own token table; None shares the decoder's.

  Returns:
    The spec of the model.
  """
  encoder_block, decoder_block = blocks
  encoder_embed = (
    dataclasses.replace(embed, vocab=source)
    if embed.norm is not None or source is not None
    else None
  )
  encoder = Tower(
    encoder_embed, segments=(Segment((encoder_block,), depths[0]),), absolute=absolute, norm=NORM
  )
  return Model(
    dataclasses.replace(embed, vocab=vocab),
    d,
    (Segment((decoder_block,), depths[1]),),
    absolute,
    NORM,
    heads={'lm': head},
    init=Normal(depth_scaled=False),
    towers={'encoder': encoder},
  )


def read_stacks(
  c: Fields, absolute: Absolute, residual_layout: ResidualLayout, norm: LayerNorm | None = None,
  act: str = 'gelu', scaled: bool = False,
  **fields: Any,
) -> Model:  # fmt: skip
  """Return the spec of a config with BART's fields.

  Args:
    c: fields of the config.
    absolute: absolute position embedding.
    residual_layout: where the norms and the residual additions are; it decides about final norms.
    norm: norm of the embeddings; None has none.
    act: default name of the activation.
    scaled: default of `scale_embedding`: whether embeddings are multiplied by sqrt(d).
    **fields: further arguments of `stacks`; `vocab` replaces the config's `vocab_size`.

  Returns:
    The spec of the model.
  """
  c.skip('encoder_layerdrop', 'decoder_layerdrop', 'num_hidden_layers', 'max_position_embeddings')
  c.skip('add_bias_logits', 'static_position_embeddings', 'extra_pos_embeddings', 'classif_dropout')
  c.skip('_num_labels', 'output_past')
  last = residual_layout.final_norm
  c.only(normalize_before=last, add_final_layer_norm=last, normalize_embedding=norm is not None)
  dropout, kind = c.get('dropout', 0.1), c.act('activation_function', act)
  dropouts = dropout, c.get('attention_dropout', 0.0), c.get('activation_dropout', 0.0)
  encoder_block, _ = encoder_decoder_blocks(
    c['encoder_attention_heads'], c['encoder_ffn_dim'], kind, residual_layout, *dropouts
  )
  _, decoder_block = encoder_decoder_blocks(
    c['decoder_attention_heads'], c['decoder_ffn_dim'], kind, residual_layout, *dropouts
  )
  embed = Tokens(power=0.5 if c.get('scale_embedding', scaled) else 0.0, norm=norm, dropout=dropout)
  depths = (c['encoder_layers'], c['decoder_layers'])
  vocab = fields.pop('vocab', None) or c['vocab_size']
  return stacks(
    vocab, c['d_model'], (encoder_block, decoder_block), depths, absolute, embed, **fields
  )


def write_stacks(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields that `read_stacks` reads."""
  encoder_block, decoder_block = m.encoder.segments[0].pattern[0], m.segments[0].pattern[0]
  return {
    'vocab_size': m.vocab, 'd_model': m.d_model,
    'activation_function': name_of(decoder_block.ffn.act),
    'encoder_layers': depth(m.encoder), 'decoder_layers': depth(m),
    'encoder_attention_heads': encoder_block.mixer.heads,
    'encoder_ffn_dim': encoder_block.ffn.d_ff, 'decoder_attention_heads': decoder_block.mixer.heads,
    'decoder_ffn_dim': decoder_block.ffn.d_ff,
    'max_position_embeddings': m.max_positions or 1024, 'scale_embedding': m.embed.power == 0.5,
    'dropout': decoder_block.dropout, 'attention_dropout': decoder_block.mixer.dropout,
    'activation_dropout': decoder_block.ffn.dropout,
    'is_encoder_decoder': True,
  }  # fmt: skip


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True)
  return read_stacks(c, Learned(c.get('max_position_embeddings', 1024), 2), Post(), NORM)


MODELS = {
  'bart-base': Entry(bart(6, 768, 12), 139_470_681, '139M', PAPER),
  'bart-large': Entry(bart(12, 1024, 16), 406_341_721, '406M', PAPER),
}
