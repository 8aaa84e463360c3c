"""CLIP (Radford et al., 2021): a text and an image tower, compared by cosine similarity."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model, Segment, Tower, depth
from tfm.parts.absolute.learned import Learned
from tfm.parts.act.base import Act
from tfm.parts.act.gelu import QuickGelu
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.head.pick import Pick
from tfm.parts.head.project import Project
from tfm.parts.head.similarity import Similarity
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel, FamilyTower
from tfm.zoo.fields import Fields, name_of

PAPER = 'Learning Transferable Visual Models From Natural Language Supervision, arXiv:2103.00020'
#: End token id of early configs, which means "the largest id".
_LARGEST = 2


def layers(
  depth: int, heads: int, d_ff: int, act: Act, eps: float, mask: Mask = Mask(), dropout: float = 0.0
) -> tuple[Segment, ...]:
  """Return the pre-norm layers of a tower, with biases everywhere.

  Args:
    depth: number of layers.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    act: activation of the feed-forward.
    eps: epsilon of the norms.
    mask: attention mask.
    dropout: dropout rate of the residual branches.

  Returns:
    One segment.
  """
  attention = Attention(heads, mask=mask, bias='qkvo', dropout=dropout)
  return (Segment((Block(attention, Mlp(d_ff, act), LayerNorm(eps)),), depth),)


def clip(
  dim: int,
  text: tuple[int, int, int],
  image: tuple[int, int, int],
  size: int,
  side: int = 224,
  vocab: int = 49_408,
) -> Model:
  """Return a CLIP with a text tower and an image tower.

  The text tower is causal, has 77 learned positions and is pooled at the end token. The image tower
  normalises its embeddings and is pooled at the class token.

  Args:
    dim: width of the compared vectors.
    text: depth, width and heads of the text tower.
    image: depth, width and heads of the image tower.
    size: side of a patch in pixels.
    side: side of an image in pixels.
    vocab: size of the vocabulary; the end token has the largest id.

  Returns:
    The spec of the model.
  """
  act, eps = QuickGelu(), 1e-5
  patches = Patches(size, side, bias=False, norm=LayerNorm(eps))
  tower = Tower(patches, image[1], layers(image[0], image[2], 4 * image[1], act, eps), norm=None)
  text_layers = layers(text[0], text[2], 4 * text[1], act, eps, Causal())
  model = Model(
    Tokens(vocab), text[1], text_layers, Learned(77), LayerNorm(eps), init=Normal(), heads={}
  )
  return joined(model, tower, dim, 'largest', eps)


def joined(
  text: Model, image: Tower, dim: int, pick: Pick, eps: float, scale: float = 2.6592
) -> Model:
  """Return a text and an image tower as one model that compares their vectors.

  Args:
    text: text tower without heads.
    image: image tower without heads.
    dim: width of the compared vectors.
    pick: pooled position of the text tower.
    eps: epsilon of the norm after image pooling.
    scale: initial logarithm of the similarity's factor.

  Returns:
    The spec of the model.
  """
  heads = {'image': Project(dim, norm=LayerNorm(eps), name='image_embeds')}
  text = text.with_heads(
    text=Project(dim, pick, name='text_embeds'), similarity=Similarity(scale=scale)
  )
  return text.with_towers(vision=dataclasses.replace(image, heads=heads))


def tower_fields(c: Fields, name: str) -> Fields:
  """Return the config fields of a tower.

  An older `text_config_dict` or `vision_config_dict` replaces the present field.
  """
  older = f'{name}_dict'
  if not c.get(older):
    return c.part(name)
  c.skip(name)
  return c.part(older)


def text_tower(
  c: Fields,
  sizes: Mapping[str, int],
  act: str = 'quick_gelu',
  eps: float = 1e-5,
  mask: Mask = Causal(),
) -> Model:
  """Return the text tower of a config, without heads.

  Args:
    c: fields of the config.
    sizes: default sizes of the family.
    act: default name of the activation.
    eps: default epsilon of the norms.
    mask: attention mask.

  Returns:
    The spec of the model.
  """
  c.skip('tie_word_embeddings', 'projection_dim')
  c.only(dropout=0.0)
  kind, eps, size = c.act('hidden_act', act), c.get('layer_norm_eps', eps), _sizes(c, sizes)
  text_layers = layers(*size[1:], kind, eps, mask, c.get('attention_dropout', 0.0))
  absolute = Learned(c.get('max_position_embeddings', sizes['max_position_embeddings']))
  tokens = Tokens(c.get('vocab_size', sizes['vocab_size']))
  return Model(tokens, size[0], text_layers, absolute, LayerNorm(eps), heads={}, init=Normal())


def image_tower(
  c: Fields,
  sizes: Mapping[str, int],
  act: str = 'quick_gelu',
  eps: float = 1e-5,
  plain: bool = False,
) -> Tower:
  """Return the image tower of a config, without heads.

  Args:
    c: fields of the config.
    sizes: default sizes of the family.
    act: default name of the activation.
    eps: default epsilon of the norms.
    plain: whether patches have a bias and the tower a final norm (SigLIP), instead of a class token
      and a norm before the first layer (CLIP).

  Returns:
    The spec of the tower.
  """
  c.skip('tie_word_embeddings', 'projection_dim')
  c.only(dropout=0.0)
  kind = c.act('hidden_act', act)
  norm = LayerNorm(c.get('layer_norm_eps', eps))
  size = _sizes(c, sizes)
  patch, side = c.get('patch_size', sizes['patch_size']), c.get('image_size', 224)
  if not isinstance(patch, int) or not isinstance(side, int):
    raise errors.UserError(
      f'{c.where}: patch_size={patch}, image_size={side}. Expected one number each; '
      'only squares are supported.'
    )
  channels = c.get('num_channels', 3)
  patches = Patches(
    patch, side, channels, bias=plain, class_token=not plain, norm=None if plain else norm
  )
  blocks = layers(*size[1:], kind, norm.eps, dropout=c.get('attention_dropout', 0.0))
  return Tower(patches, size[0], blocks, norm=norm if plain else None)


def _sizes(c: Fields, sizes: Mapping[str, int]) -> tuple[int, int, int, int]:
  """Return (width, depth, heads, d_ff) of a tower."""
  names = ('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'intermediate_size')
  width, depth, heads, d_ff = (c.get(name, sizes[name]) for name in names)
  return width, depth, heads, d_ff


#: Sizes if a config has none.
TEXT = {
  'hidden_size': 512, 'num_hidden_layers': 12, 'num_attention_heads': 8, 'intermediate_size': 2048,
  'max_position_embeddings': 77, 'vocab_size': 49_408,
}  # fmt: skip
IMAGE = {
  'hidden_size': 768, 'num_hidden_layers': 12, 'num_attention_heads': 12, 'intermediate_size': 3072,
  'patch_size': 32,
}  # fmt: skip


def pick_of(c: Fields) -> Pick:
  """Return the position at which a config's text tower is pooled."""
  end = c.get('eos_token_id', 49_407)
  if not isinstance(end, int):
    raise errors.UserError(
      f'{c.where}: eos_token_id is {end!r}. Expected one number: the id of the pooled token.'
    )
  return 'largest' if end == _LARGEST else end


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` with both towers."""
  text, image = tower_fields(c, 'text_config'), tower_fields(c, 'vision_config')
  scale, eps = c.get('logit_scale_init_value', 2.6592), image.get('layer_norm_eps', 1e-5)
  towers = text_tower(text, TEXT), image_tower(image, IMAGE)
  return joined(*towers, c.get('projection_dim', 512), pick_of(text), eps, scale)


def read_text(c: Fields) -> Model:
  """Return the spec of a config of the text tower, with its projection."""
  project = Project(c.get('projection_dim', 512), pick_of(c), unit=False, name='text_embeds')
  return text_tower(c, TEXT).with_heads(text=project)


def read_image(c: Fields) -> Model:
  """Return the spec of a config of the image tower, with its projection."""
  norm = LayerNorm(c.get('layer_norm_eps', 1e-5))
  project = Project(c.get('projection_dim', 512), norm=norm, unit=False, name='image_embeds')
  return as_model(image_tower(c, IMAGE)).with_heads(image=project)


def as_model(tower: FamilyTower) -> Model:
  """Return a tower as a complete model."""
  return Model(
    tower.embed, tower.d_model, tower.segments, norm=tower.norm, init=Normal(), heads=tower.heads
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  project = m.heads['text']
  return {
    'projection_dim': project.dim, 'logit_scale_init_value': m.heads['similarity'].scale,
    'text_config': {**write_text(m), 'model_type': 'clip_text_model'},
    'vision_config': {**write_image(m.tower('vision')), 'model_type': 'clip_vision_model'},
  }  # fmt: skip


def write_text(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a text tower."""
  head = m.heads.get('text') or m.heads['classify']
  fields = text_fields(m) | {'eos_token_id': _LARGEST if head.pick == 'largest' else head.pick}
  return fields | ({'projection_dim': head.dim} if isinstance(head, Project) else {})


def write_image(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of an image tower."""
  head = m.heads.get('image') or m.heads['classify']
  return image_fields(m) | ({'projection_dim': head.dim} if isinstance(head, Project) else {})


def text_fields(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of a text tower that do not depend on its head."""
  return _fields(m) | {'vocab_size': m.vocab, 'max_position_embeddings': m.max_positions}


def image_fields(m: FamilyModel) -> dict[str, Any]:
  """Return the config fields of an image tower that do not depend on its head."""
  embed = m.embed
  return _fields(m) | {
    'patch_size': embed.size,
    'image_size': embed.image,
    'num_channels': embed.channels,
  }


def _fields(m: FamilyModel) -> dict[str, Any]:
  block = m.segments[0].pattern[0]
  return {
    'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads,
    'intermediate_size': block.ffn.d_ff, 'hidden_act': name_of(block.ffn.act, 'gelu_pytorch_tanh'),
    'layer_norm_eps': block.norm.eps, 'attention_dropout': block.mixer.dropout,
  }  # fmt: skip


_B = 12, 768, 12
_L = 24, 1024, 16
MODELS = {
  'clip-vit-base-patch32': Entry(clip(512, (12, 512, 8), _B, 32), 151_277_313, '151M', PAPER),
  'clip-vit-base-patch16': Entry(clip(512, (12, 512, 8), _B, 16), 149_620_737, '150M', PAPER),
  'clip-vit-large-patch14': Entry(clip(768, (12, 768, 12), _L, 14), 427_616_513, '428M', PAPER),
  'clip-vit-large-patch14-336': Entry(
    clip(768, (12, 768, 12), _L, 14, 336), 427_944_193, '428M', PAPER
  ),
}
