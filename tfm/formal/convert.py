"""The parameters of a model of tfm in the notation of the paper."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax

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

Params = Mapping[str, Any]
Layer = TypeVar('Layer')


def decoder_only(params: Params) -> DecoderOnly:
  """Return the parameters of `DTransformer`.

  Args:
    params: A decoder with normalisation before each branch, all biases, learned positions, and a
      separate unembedding.

  Returns:
    theta, without copies where a transposed view suffices.

  Raises:
    KeyError: The model has other parameters.
  """
  W_e, W_p = _tables(params)
  norm, W_u = _scale(params['norm']), params['head']['head']['kernel'].T
  return DecoderOnly(W_e, W_p, _layers(params, _encoder_layer), norm, W_u)


def encoder_only(params: Params) -> EncoderOnly:
  """Return the parameters of `ETransformer`.

  Args:
    params: An encoder with normalisation after each branch, all biases, learned positions, and a
      layer before the separate unembedding.

  Returns:
    theta.

  Raises:
    KeyError: The model has other parameters.
  """
  head, tables = params['head'], _tables(params)
  W_f, b_f = head['transform']['kernel'].T, head['transform']['bias']
  layers, norm = _layers(params, _encoder_layer), _scale(head['norm'])
  return EncoderOnly(*tables, layers, W_f, b_f, norm, head['head']['kernel'].T)


def encoder_decoder(params: Params) -> EncoderDecoder:
  """Return the parameters of `EDTransformer`, or of the layers of `pre_norm_transformer`.

  Args:
    params: An encoder-decoder with all biases, learned positions, and a separate unembedding. The
      paper has one position table for both sequences: that of the decoder is returned.

  Returns:
    theta.

  Raises:
    KeyError: The model has other parameters.
  """
  encoder = _layers(params['encoder'], _encoder_layer)
  decoder = _layers(params, _decoder_layer)
  W_u = params['head']['head']['kernel'].T
  return EncoderDecoder(*_tables(params), encoder, decoder, W_u)


def _tables(params: Params) -> tuple[jax.Array, jax.Array]:
  return params['embed']['table'].T, params['absolute']['table'].T


def _layers(params: Params, convert: Callable[[Params], Layer]) -> tuple[Layer, ...]:
  """Return the layers of the only segment, which are stacked on their first axis."""
  stacked = params['segment_0']['block_0']
  count = len(jax.tree.leaves(stacked)[0])
  return tuple(convert(jax.tree.map(lambda a, i=i: a[i], stacked)) for i in range(count))


def _encoder_layer(block: Params) -> EncoderLayer:
  return EncoderLayer(
    _heads(block['mixer']),
    _scale(block['mixer_norm']),
    _mlp(block['ffn']),
    _scale(block['ffn_norm']),
  )


def _decoder_layer(block: Params) -> DecoderLayer:
  return DecoderLayer(
    _heads(block['mixer']),
    _scale(block['mixer_norm']),
    _heads(block['cross']),
    _scale(block['cross_norm']),
    _mlp(block['ffn']),
    _scale(block['ffn_norm']),
  )


def _heads(params: Params) -> Heads:
  heads = []
  for h in range(params['q']['kernel'].shape[1]):
    weights: list[jax.Array] = []
    for name in 'qkv':
      weights += [params[name]['kernel'][:, h].T, params[name]['bias'][h]]
    heads.append(AttentionWeights(*weights))
  kernel = params['o']['kernel']
  return Heads(tuple(heads), kernel.reshape(-1, kernel.shape[-1]).T, params['o']['bias'])


def _mlp(params: Params) -> Mlp:
  up, down = params['up'], params['down']
  return Mlp(up['kernel'].T, up['bias'], down['kernel'].T, down['bias'])


def _scale(params: Params) -> Scale:
  return Scale(params['scale'], params['bias'])
