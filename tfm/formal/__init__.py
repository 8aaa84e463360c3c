"""The algorithms of "Formal Algorithms for Transformers" (arXiv:2207.09238), one function each.

Columns are tokens, and weights multiply from the left, as in the paper. Token ids and positions
count from 0. Nothing is batched or cached: these functions define what the models of `tfm` compute,
and the tests compare them in float64.
"""

from tfm.formal.architectures import DTransformer, EDTransformer, ETransformer
from tfm.formal.attention import Attention, BasicAttention, MHAttention, causal, ones
from tfm.formal.convert import decoder_only, encoder_decoder, encoder_only
from tfm.formal.elements import layer_norm, position_embedding, token_embedding, unembedding
from tfm.formal.inference import DInference, EDInference
from tfm.formal.parameters import (
  AttentionWeights,
  DecoderLayer,
  DecoderOnly,
  EncoderDecoder,
  EncoderLayer,
  EncoderOnly,
  Heads,
  Mlp,
  Scale,
)
from tfm.formal.pre_norm import PreNormEncoderDecoder, pre_norm_transformer
from tfm.formal.training import DTraining, EDTraining, ETraining, d_loss, e_loss, ed_loss

__all__ = [
  'Attention',
  'AttentionWeights',
  'BasicAttention',
  'DInference',
  'DTraining',
  'DTransformer',
  'DecoderLayer',
  'DecoderOnly',
  'EDInference',
  'EDTraining',
  'EDTransformer',
  'ETraining',
  'ETransformer',
  'EncoderDecoder',
  'EncoderLayer',
  'EncoderOnly',
  'Heads',
  'MHAttention',
  'Mlp',
  'PreNormEncoderDecoder',
  'Scale',
  'causal',
  'd_loss',
  'decoder_only',
  'e_loss',
  'ed_loss',
  'encoder_decoder',
  'encoder_only',
  'layer_norm',
  'ones',
  'position_embedding',
  'pre_norm_transformer',
  'token_embedding',
  'unembedding',
]
