"""EuroBERT (Boizard et al., 2025): Llama's block as a bidirectional encoder."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model
from tfm.parts.mask.base import Mask
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.rope import RoPE
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'EuroBERT: Scaling Multilingual Encoders for European Languages, arXiv:2503.05500'


def eurobert(layers: int, d: int, heads: int, kv_heads: int, d_ff: int) -> Model:
  """Return a bidirectional Llama with an untied masked-LM head.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    kv_heads: number of key/value heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  return _bidirectional(llama.llama(layers, d, heads, kv_heads, d_ff, 128_256, RoPE(250_000.0)))


def _bidirectional(spec: Any) -> Model:
  (block,) = spec.segments[0].pattern
  mixer = dataclasses.replace(block.mixer, mask=Mask())
  segment = dataclasses.replace(
    spec.segments[0], pattern=(dataclasses.replace(block, mixer=mixer),)
  )
  return dataclasses.replace(spec, segments=(segment,))


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.skip('pretraining_tp', 'classifier_pooling', 'mask_token', 'hidden_dropout')
  c.only(is_decoder=False)
  norm = RMSNorm(c.get('rms_norm_eps', 1e-5))
  bias = c.get('mlp_bias', False)
  block = Block(llama.attention(c, mask=Mask()), llama.glu(c), norm)
  return llama.decoder(c, [block] * c['num_hidden_layers'], norm, bias=bias)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  pooling = {}
  if m.classifier is not None and m.classifier.hidden is not None:
    name = {'first': 'bos', 'mean': 'mean'}[m.classifier.pick]
    pooling = {'classifier_pooling': 'late' if m.classifier.late else name}
  return {**llama.write(m), **llama.padding(m, 128_001), **pooling}


MODELS = {
  'eurobert-210m': Entry(eurobert(12, 768, 12, 12, 3072), 310_266_624, '310M', PAPER),
  'eurobert-610m': Entry(eurobert(26, 1152, 18, 6, 4096), 755_625_600, '750M', PAPER),
  'eurobert-2.1b': Entry(eurobert(32, 2304, 18, 6, 6144), 2_403_092_736, '2.4B', PAPER),
}
