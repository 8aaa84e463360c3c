"""Whisper (Radford et al., 2022): an encoder-decoder for speech recognition and translation."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, Tower, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import Gelu
from tfm.parts.cross.attention import CrossAttention
from tfm.parts.embed.convolutions import Conv
from tfm.parts.embed.frames import Frames
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'Robust Speech Recognition via Large-Scale Weak Supervision, arXiv:2212.04356'
NORM = LayerNorm(1e-5)
#: Vocabulary sizes of the English models, the multilingual models, and those with Cantonese.
ENGLISH, MULTILINGUAL, CANTONESE = 51_864, 51_865, 51_866


def whisper(
  d: int,
  heads: int,
  layers: int,
  vocab: int = MULTILINGUAL,
  *,
  bins: int = 80,
  decoder_layers: int | None = None,
) -> Model:
  """Return a pre-norm encoder of log-mel frames and a decoder of text.

  Keys have no biases.

  Args:
    d: width of the residual stream.
    heads: number of attention heads.
    layers: number of layers of the encoder.
    vocab: size of the vocabulary.
    bins: number of mel bins.
    decoder_layers: number of layers of the decoder; None is that of the encoder.

  Returns:
    The spec of the model.

  Note:
    The encoder's position table starts as sinusoids and is trained. The published code keeps it
    fixed.
  """
  stacks = (heads, 4 * d, layers), (heads, 4 * d, decoder_layers or layers)
  return _model(d, vocab, bins, stacks, (1500, 448), Gelu(), 0.0, 0.0, 0.0)


def _model(
  d: int, vocab: int, bins: int, stacks: Any, positions: tuple[int, int], act: Act, dropout: float,
  attention_dropout: float,
  ffn_dropout: float,
) -> Model:  # fmt: skip
  """Return the model.

  Args:
    d: width of the residual stream.
    vocab: size of the vocabulary.
    bins: number of mel bins.
    stacks: heads, d_ff and layers of the encoder and of the decoder.
    positions: number of positions of the encoder and of the decoder.
    act: activation of the feed-forward.
    dropout: dropout rate of the residual branches.
    attention_dropout: dropout rate of the attention weights.
    ffn_dropout: dropout rate inside the feed-forward.

  Returns:
    The spec of the model.
  """
  (heads, d_ff, layers), (decoder_heads, decoder_d_ff, decoder_depth) = stacks
  encoder_block = Block(
    Attention(heads, mask=Mask(), bias='qvo', dropout=attention_dropout),
    Mlp(d_ff, act, dropout=ffn_dropout),
    NORM,
    dropout=dropout,
  )
  decoder_block = Block(
    Attention(decoder_heads, bias='qvo', dropout=attention_dropout),
    Mlp(decoder_d_ff, act, dropout=ffn_dropout),
    NORM,
    cross=CrossAttention(decoder_heads, bias='qvo', dropout=attention_dropout),
    dropout=dropout,
  )
  # The convolutions always have erf GELU.
  frames = Frames((Conv(3, 1, pad=1), Conv(3, 2, pad=1)), bins=bins, dropout=dropout)
  source, target = positions
  encoder = Tower(
    frames,
    segments=(Segment((encoder_block,), layers),),
    absolute=Learned(source, start='t2t'),
    norm=NORM,
  )
  return Model(
    Tokens(vocab, dropout=dropout),
    d,
    (Segment((decoder_block,), decoder_depth),),
    Learned(target),
    NORM,
    init=Normal(depth_scaled=False),
    towers={'encoder': encoder},
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`."""
  c.only(tie_word_embeddings=True, scale_embedding=False, use_weighted_layer_sum=False)
  c.skip(
    'encoder_layerdrop',
    'decoder_layerdrop',
    'num_hidden_layers',
    'max_source_positions',
    'median_filter_width',
  )
  c.skip(
    'classifier_proj_size',
    'apply_spec_augment',
    *(n for n in c if n.startswith(('mask_time_', 'mask_feature_'))),
  )
  stacks = tuple(
    (c[f'{s}_attention_heads'], c[f'{s}_ffn_dim'], c[f'{s}_layers']) for s in ('encoder', 'decoder')
  )  # fmt: skip
  positions = c.get('max_source_positions', 1500), c.get('max_target_positions', 448)
  dropouts = (
    c.get('dropout', 0.0),
    c.get('attention_dropout', 0.0),
    c.get('activation_dropout', 0.0),
  )
  act = c.act('activation_function', 'gelu')
  return _model(
    c['d_model'], c['vocab_size'], c.get('num_mel_bins', 80), stacks, positions, act, *dropouts
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec, with the usual special token ids."""
  encoder_block, decoder_block = m.encoder.segments[0].pattern[0], m.segments[0].pattern[0]
  # After the text tokens come the end token and the start of a transcript. Smaller vocabularies
  # lack them.
  end = min(50_256 if m.vocab == ENGLISH else 50_257, m.vocab - 2)
  return {
    'vocab_size': m.vocab, 'd_model': m.d_model, 'num_mel_bins': m.encoder.embed.bins,
    'encoder_layers': depth(m.encoder), 'encoder_attention_heads': encoder_block.mixer.heads,
    'encoder_ffn_dim': encoder_block.ffn.d_ff, 'decoder_layers': depth(m),
    'decoder_attention_heads': decoder_block.mixer.heads,
    'decoder_ffn_dim': decoder_block.ffn.d_ff, 'max_source_positions': m.encoder.max_positions,
    'max_target_positions': m.max_positions, 'activation_function': name_of(decoder_block.ffn.act),
    'dropout': decoder_block.dropout, 'attention_dropout': decoder_block.mixer.dropout,
    'activation_dropout': decoder_block.ffn.dropout,
    'is_encoder_decoder': True, 'pad_token_id': end, 'bos_token_id': end, 'eos_token_id': end,
    'decoder_start_token_id': end + 1,
  }  # fmt: skip


MODELS = {
  'whisper-tiny': Entry(whisper(384, 6, 4), 37_760_640, '39M', PAPER),
  'whisper-tiny.en': Entry(whisper(384, 6, 4, ENGLISH), 37_760_256, '39M', PAPER),
  'whisper-base': Entry(whisper(512, 8, 6), 72_593_920, '74M', PAPER),
  'whisper-base.en': Entry(whisper(512, 8, 6, ENGLISH), 72_593_408, '74M', PAPER),
  'whisper-small': Entry(whisper(768, 12, 12), 241_734_912, '244M', PAPER),
  'whisper-medium': Entry(whisper(1024, 16, 24), 763_857_920, '769M', PAPER),
  'whisper-large-v2': Entry(whisper(1280, 20, 32), 1_543_304_960, '1.55B', PAPER),
  'whisper-large-v3': Entry(
    whisper(1280, 20, 32, CANTONESE, bins=128), 1_543_490_560, '1.55B', PAPER
  ),
  'whisper-large-v3-turbo': Entry(
    whisper(1280, 20, 32, CANTONESE, bins=128, decoder_layers=4), 808_878_080, '809M', PAPER
  ),
}
