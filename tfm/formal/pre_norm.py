"""An encoder-decoder with normalisation before each branch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tfm.formal.attention import MHAttention, causal, ones
from tfm.formal.elements import (
  layer_norm_columns,
  position_embedding,
  token_embedding,
  unembedding,
)
from tfm.formal.parameters import EncoderDecoder, Scale


class PreNormEncoderDecoder(NamedTuple):
  """The parameters of `pre_norm_transformer`.

  Attributes:
    body: The embeddings, layers and unembedding.
    encoder_norm: The final normalisation of the encoder.
    decoder_norm: The final normalisation of the decoder.
  """

  body: EncoderDecoder
  encoder_norm: Scale
  decoder_norm: Scale


@jax.jit
def pre_norm_transformer(z: jax.Array, x: jax.Array, theta: PreNormEncoderDecoder) -> jax.Array:
  """Return the probabilities of the next tokens, given a context (arXiv:2002.04745).

  The layers have the parameters of `EDTransformer`. The normalisation of a branch is applied to its
  input, and each stack ends with a further normalisation.

  Args:
    z: The ids of the context sequence, int [l_z].
    x: The ids of the primary sequence, int [l_x].
    theta: The parameters.

  Returns:
    P [N_V, l_x]. Column t is the distribution of token t + 1.
  """
  W_e, W_p, encoder, decoder, W_u = theta.body
  Z = token_embedding(z, W_e) + position_embedding(jnp.arange(len(z)), W_p)
  for enc in encoder:
    Z_ = layer_norm_columns(Z, *enc.norm_1)
    Z = Z + MHAttention(Z_, Z_, enc.attention, ones(Z_, Z_))
    Z_ = layer_norm_columns(Z, *enc.norm_2)
    W_1, b_1, W_2, b_2 = enc.mlp
    Z = Z + W_2 @ jax.nn.relu(W_1 @ Z_ + b_1[:, None]) + b_2[:, None]
  Z = layer_norm_columns(Z, *theta.encoder_norm)
  X = token_embedding(x, W_e) + position_embedding(jnp.arange(len(x)), W_p)
  for dec in decoder:
    X_ = layer_norm_columns(X, *dec.norm_3)
    X = X + MHAttention(X_, X_, dec.attention, causal(X_))
    X_ = layer_norm_columns(X, *dec.norm_4)
    X = X + MHAttention(X_, Z, dec.cross, ones(Z, X_))
    X_ = layer_norm_columns(X, *dec.norm_5)
    W_3, b_3, W_4, b_4 = dec.mlp
    X = X + W_4 @ jax.nn.relu(W_3 @ X_ + b_3[:, None]) + b_4[:, None]
  X = layer_norm_columns(X, *theta.decoder_norm)
  return unembedding(X, W_u)
