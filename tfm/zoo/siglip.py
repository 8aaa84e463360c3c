"""SigLIP (Zhai et al., 2023): a text and an image tower trained with a sigmoid per pair."""

import dataclasses
from typing import Any

from tfm.model.spec import Model, Tower
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.gelu import GeluTanh
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.probe import Probe
from tfm.parts.head.project import Project
from tfm.parts.head.similarity import Similarity
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo import clip
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields

PAPER = 'Sigmoid Loss for Language Image Pre-Training, arXiv:2303.15343'
_ACT, _EPS = 'gelu_pytorch_tanh', 1e-6


def siglip(
  size: tuple[int, int, int], patch: int, side: int, d_ff: int = 0, length: int = 64
) -> Model:
  """Return a SigLIP with towers of equal sizes.

  The text tower attends in both directions and is pooled at its last position, padding included.
  Pad texts to `length` and pass no attention mask. An attention probe pools the image tower.

  Args:
    size: depth, width and heads of both towers.
    patch: side of a patch in pixels.
    side: side of an image in pixels.
    d_ff: hidden width of the feed-forward; 0 is four times the width.
    length: number of positions of the text tower.

  Returns:
    The spec of the model.
  """
  depth, d, heads = size
  blocks = clip.layers(depth, heads, d_ff or 4 * d, GeluTanh(), _EPS)
  model = Model(
    Tokens(32_000), d, blocks, Learned(length), LayerNorm(_EPS), heads={}, init=Normal()
  )
  return joined(
    model, Tower(Patches(patch, side, class_token=False), d, blocks, norm=LayerNorm(_EPS))
  )


def joined(text: Model, image: Tower, dim: int | None = None) -> Model:
  """Return a text and an image tower as one model that compares their vectors.

  Args:
    text: text tower without heads.
    image: image tower without heads.
    dim: width of the compared vectors, equal to that of the image tower; None is that of the text
      tower.

  Returns:
    The spec of the model.
  """
  project = Project(dim, 'end', bias=True, name='text_embeds')
  text = text.with_heads(text=project, similarity=Similarity(scale=2.3026, bias=-10.0))
  return text.with_towers(
    vision=dataclasses.replace(image, heads={'image': probe(image, 'image_embeds', True)})
  )


def probe(image: Any, name: str, unit: bool) -> Probe:
  """Return the attention pooling of an image tower.

  Args:
    image: the image tower; its layers give the sizes.
    name: name of the output.
    unit: whether the output is scaled to length 1.

  Returns:
    The head.
  """
  block = image.segments[0].pattern[0]
  return Probe(
    block.mixer.heads, norm=block.norm, ffn=Mlp(block.ffn.d_ff, block.ffn.act), name=name, unit=unit
  )


_TEXT = {
  **clip.TEXT, 'hidden_size': 768, 'num_attention_heads': 12, 'intermediate_size': 3072,
  'vocab_size': 32_000,
  'max_position_embeddings': 64,
}  # fmt: skip
_IMAGE = {**clip.IMAGE, 'patch_size': 16}


def _text_tower(c: Fields) -> Model:
  return clip.text_tower(c, _TEXT, _ACT, _EPS, Mask())


def _image_tower(c: Fields) -> Tower:
  return clip.image_tower(c, _IMAGE, _ACT, _EPS, plain=True)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` with both towers."""
  text, image = clip.tower_fields(c, 'text_config'), clip.tower_fields(c, 'vision_config')
  image.only(vision_use_head=True)
  model = _text_tower(text)
  return joined(model, _image_tower(image), _dim(text, model))


def _dim(c: Fields, text: Model) -> int | None:
  """Return the width of the compared vectors; None is that of the text tower."""
  dim: int = c.get('projection_size', text.d_model)
  return None if dim == text.d_model else dim


def read_text(c: Fields) -> Model:
  """Return the spec of a config of the text tower."""
  model = _text_tower(c)
  return model.with_heads(
    text=Project(_dim(c, model), 'end', bias=True, unit=False, name='pooler_output')
  )


def read_image(c: Fields) -> Model:
  """Return the spec of a config of the image tower, with its pooling head if it has one."""
  model = clip.as_model(_image_tower(c))
  return model.with_heads(
    image=probe(model, 'pooler_output', False) if c.get('vision_use_head', True) else None
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  return {
    'text_config': {**write_text(m), 'model_type': 'siglip_text_model'},
    'vision_config': {**write_image(m.tower('vision')), 'model_type': 'siglip_vision_model'},
  }  # fmt: skip


def write_text(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a text tower."""
  return clip.text_fields(m) | {'projection_size': m.heads['text'].dim or m.d_model}


def write_image(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of an image tower."""
  return clip.image_fields(m) | {'vision_use_head': 'image' in m.heads}


_B, _L, _SO = (12, 768, 12), (24, 1024, 16), (27, 1152, 16)
MODELS = {
  'siglip-base-patch16-224': Entry(siglip(_B, 16, 224), 203_155_970, '203M', PAPER),
  'siglip-base-patch16-256': Entry(siglip(_B, 16, 256), 203_202_050, '203M', PAPER),
  'siglip-large-patch16-256': Entry(siglip(_L, 16, 256), 652_150_786, '652M', PAPER),
  'siglip-large-patch16-384': Entry(siglip(_L, 16, 384), 652_478_466, '652M', PAPER),
  'siglip-so400m-patch14-224': Entry(siglip(_SO, 14, 224, 4304, 16), 877_360_306, '877M', PAPER),
}
