"""The parameters of the algorithms, with the names and shapes of the paper."""

from typing import NamedTuple

import jax


class AttentionWeights(NamedTuple):
  """The parameters W_qkv of one attention head.

  Attributes:
    W_q: Query weights [d_attn, d_x].
    b_q: Query bias [d_attn].
    W_k: Key weights [d_attn, d_z].
    b_k: Key bias [d_attn].
    W_v: Value weights [d_out, d_z].
    b_v: Value bias [d_out].
  """

  W_q: jax.Array
  b_q: jax.Array
  W_k: jax.Array
  b_k: jax.Array
  W_v: jax.Array
  b_v: jax.Array


class Heads(NamedTuple):
  """The parameters W of multi-head attention.

  Attributes:
    heads: The H attention heads.
    W_o: Output weights [d_out, H d_mid].
    b_o: Output bias [d_out].
  """

  heads: tuple[AttentionWeights, ...]
  W_o: jax.Array
  b_o: jax.Array


class Mlp(NamedTuple):
  """The parameters of a feed-forward network.

  Attributes:
    W_1: Weights of the hidden layer [d_mlp, d_e].
    b_1: Its bias [d_mlp].
    W_2: Weights of the output [d_e, d_mlp].
    b_2: Its bias [d_e].
  """

  W_1: jax.Array
  b_1: jax.Array
  W_2: jax.Array
  b_2: jax.Array


class Scale(NamedTuple):
  """The parameters of a layer normalisation.

  Attributes:
    gamma: The scale [d_e].
    beta: The offset [d_e].
  """

  gamma: jax.Array
  beta: jax.Array


class EncoderLayer(NamedTuple):
  """A layer of an encoder, or of a decoder without a context sequence.

  Attributes:
    attention: Its self-attention.
    norm_1: The normalisation of the attention.
    mlp: Its feed-forward network.
    norm_2: The normalisation of the feed-forward network.
  """

  attention: Heads
  norm_1: Scale
  mlp: Mlp
  norm_2: Scale


class DecoderLayer(NamedTuple):
  """A layer of a decoder that attends to a context sequence.

  Attributes:
    attention: Its self-attention.
    norm_3: The normalisation of the self-attention.
    cross: Its attention to the context.
    norm_4: The normalisation of the attention to the context.
    mlp: Its feed-forward network.
    norm_5: The normalisation of the feed-forward network.
  """

  attention: Heads
  norm_3: Scale
  cross: Heads
  norm_4: Scale
  mlp: Mlp
  norm_5: Scale


class EncoderDecoder(NamedTuple):
  """The parameters theta of `EDTransformer`.

  Attributes:
    W_e: Token embeddings [d_e, N_V].
    W_p: Position embeddings [d_e, l_max].
    encoder: The encoder layers.
    decoder: The decoder layers.
    W_u: Unembedding weights [N_V, d_e].
  """

  W_e: jax.Array
  W_p: jax.Array
  encoder: tuple[EncoderLayer, ...]
  decoder: tuple[DecoderLayer, ...]
  W_u: jax.Array


class EncoderOnly(NamedTuple):
  """The parameters theta of `ETransformer`.

  Attributes:
    W_e: Token embeddings [d_e, N_V].
    W_p: Position embeddings [d_e, l_max].
    layers: The layers.
    W_f: Weights of the final layer [d_f, d_e].
    b_f: Its bias [d_f].
    norm: The final normalisation.
    W_u: Unembedding weights [N_V, d_f].
  """

  W_e: jax.Array
  W_p: jax.Array
  layers: tuple[EncoderLayer, ...]
  W_f: jax.Array
  b_f: jax.Array
  norm: Scale
  W_u: jax.Array


class DecoderOnly(NamedTuple):
  """The parameters theta of `DTransformer`.

  Attributes:
    W_e: Token embeddings [d_e, N_V].
    W_p: Position embeddings [d_e, l_max].
    layers: The layers.
    norm: The final normalisation.
    W_u: Unembedding weights [N_V, d_e].
  """

  W_e: jax.Array
  W_p: jax.Array
  layers: tuple[EncoderLayer, ...]
  norm: Scale
  W_u: jax.Array
