"""Vision Transformer (Dosovitskiy et al., 2020): a pre-norm encoder of patches."""

from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.absolute.base import Absolute
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.patches import Patches
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.classify import Classify
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of

PAPER = 'An Image is Worth 16x16 Words, arXiv:2010.11929'
STEPS = 'How to train your ViT?, arXiv:2106.10270'
INIT = Normal(depth_scaled=False, truncated=True)


def vit(
  depth: int, d: int, heads: int, patch: int = 16, labels: int = 1000, distilled: bool = False
) -> Model:
  """Return a pre-norm encoder of patches with learned positions and a classified class token.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    patch: side of a patch in pixels.
    labels: number of classes.
    distilled: whether there is a distillation token (DeiT).

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(1e-12)
  block = Block(Attention(heads, mask=Mask(), bias='qkvo'), Mlp(4 * d, Gelu()), norm)
  return Model(
    Patches(patch, 224, distillation_token=distilled),
    d,
    (Segment((block,), depth),),
    Absolute(),
    norm,
    heads={'classify': Classify(labels)},
    init=INIT,
  )


def read(c: Fields, distilled: bool = False) -> Model:
  """Return the spec of a published `config.json`, with a classifier of the class token."""
  # Used by the masked-image decoder and the body's pooler only.
  c.skip('encoder_stride', 'pooler_act', 'pooler_output_size')
  norm, dropout = LayerNorm(c.get('layer_norm_eps', 1e-12)), c.get('hidden_dropout_prob', 0.0)
  bias = 'qkvo' if c.get('qkv_bias', True) else 'o'
  attention_dropout = c.get('attention_probs_dropout_prob', 0.0)
  attention = Attention(c['num_attention_heads'], mask=Mask(), bias=bias, dropout=attention_dropout)
  block = Block(
    attention, Mlp(c['intermediate_size'], c.act('hidden_act', 'gelu')), norm, dropout=dropout
  )
  return Model(
    patches(c, distillation_token=distilled, dropout=dropout),
    c['hidden_size'],
    (Segment((block,), c['num_hidden_layers']),),
    Absolute(),
    norm,
    heads={'classify': Classify(c.labels)},
    init=INIT,
  )


def patches(c: Fields, size: int = 16, **fields: Any) -> Patches:
  """Return the input layer of a config.

  Args:
    c: fields of the config.
    size: side of a patch in pixels if the config has none.
    **fields: further fields of the input layer.

  Returns:
    The input layer.
  """
  image, patch = (_side(c.get(name, n)) for name, n in (('image_size', 224), ('patch_size', size)))
  return Patches(patch, image, c.get('num_channels', 3), **fields)


def _side(value: Any) -> int | tuple[int, ...]:
  return tuple(value) if isinstance(value, list | tuple) else value


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block = m.segments[0].pattern[0]
  return {
    **write_patches(m.embed), 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads, 'intermediate_size': block.ffn.d_ff,
    'layer_norm_eps': block.norm.eps,
    'hidden_act': name_of(block.ffn.act, 'gelu'), 'qkv_bias': 'q' in block.mixer.bias,
    'hidden_dropout_prob': block.dropout, 'attention_probs_dropout_prob': block.mixer.dropout,
    **_write_pooler(m),
  }  # fmt: skip


def write_patches(embed: Any) -> dict[str, Any]:
  """Return the config fields of an input layer."""
  return {'image_size': embed.image, 'patch_size': embed.size, 'num_channels': embed.channels}


def _write_pooler(m: FamilyModel) -> dict[str, Any]:
  act = None if m.classifier is None else m.classifier.hidden
  return {} if act is None else {'pooler_act': name_of(act, 'tanh')}


MODELS = {
  'vit-tiny-16': Entry(vit(12, 192, 3), 5_717_416, '5.7M', STEPS),
  'vit-small-16': Entry(vit(12, 384, 6), 22_050_664, '22M', STEPS),
  'vit-base-16': Entry(vit(12, 768, 12), 86_567_656, '86M', PAPER),
  'vit-base-32': Entry(vit(12, 768, 12, 32), 88_224_232, '88M', PAPER),
  'vit-large-16': Entry(vit(24, 1024, 16), 304_326_632, '307M', PAPER),
  'vit-large-32': Entry(vit(24, 1024, 16, 32), 306_535_400, '307M', PAPER),
  'vit-huge-14': Entry(vit(32, 1280, 16, 14), 632_045_800, '632M', PAPER),
}
