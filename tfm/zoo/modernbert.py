"""ModernBERT (Warner et al., 2024): an encoder with local and global layers, RoPE and GeGLU."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, depth
from tfm.parts.act.gelu import Gelu
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.glu import Glu
from tfm.parts.head.lm import Lm, Transform
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mask.window import Window
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.layer import LayerNorm
from tfm.parts.relative.rope import RoPE
from tfm.parts.residual_layout.pre import Pre
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of, rope_parameters
from tfm.zoo.layers import GLOBAL, LOCAL, choose, layers_of, segments, types_of, window_of

PAPER = 'Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder, arXiv:2412.13663'


def modernbert(depth: int, d: int, heads: int, d_ff: int) -> Model:
  """Return a pre-norm encoder without biases; every third layer is global.

  The other layers attend to 64 tokens on each side and have another RoPE base. The embeddings are
  normalised, so the first attention has no norm of its input.

  Args:
    depth: number of layers.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.

  Returns:
    The spec of the model.
  """
  norm = LayerNorm(bias=False)
  kinds = {GLOBAL: (RoPE(160_000.0), Mask()), LOCAL: (RoPE(), Window(65, ahead=True))}
  mixers = {
    kind: Attention(heads, relative=rope, mask=mask) for kind, (rope, mask) in kinds.items()
  }
  types = choose((i % 3 for i in range(depth)), LOCAL, GLOBAL)
  layers = [Block(mixers[t], Glu(d_ff, Gelu()), norm) for t in types]
  return _model(
    50_368,
    d,
    layers,
    norm,
    Tokens(norm=norm),
    Lm(bias=True, transform=Transform(Gelu(), norm, False)),
  )


def _model(
  vocab: int, d: int, layers: list[Block], norm: LayerNorm, embed: Tokens, head: Lm
) -> Model:
  first = Block(layers[0].mixer, layers[0].ffn, norm, Pre(('mixer',)))
  init = Normal(truncated=True)
  return Model(
    dataclasses.replace(embed, vocab=vocab),
    d,
    segments([first, *layers[1:]]),
    heads={'lm': head},
    norm=norm,
    init=init,
  )


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`, with a masked-LM head."""
  c.skip(
    'max_position_embeddings',
    'initializer_cutoff_factor',
    'layer_norm_eps',
    'position_embedding_type',
  )
  c.skip('deterministic_flash_attn', 'reference_compile', 'repad_logits_with_grad')
  c.skip('sparse_prediction', 'sparse_pred_ignore_index', 'classifier_pooling')
  norm = LayerNorm(c.get('norm_eps', 1e-5), c.get('norm_bias', False))
  attention_dropout = c.get('attention_dropout', 0.0)
  every, layers = c.get('global_attn_every_n_layers', 3), c['num_hidden_layers']
  ropes = (
    c.rope(
      160_000.0, kind=GLOBAL, partial=False, fields=('global_rope_theta', 'partial_rotary_factor')
    ),
    c.rope(kind=LOCAL, partial=False, fields=('local_rope_theta', 'partial_rotary_factor')),
  )
  masks = Mask(), Window(c.get('local_attention', 128) // 2 + 1, ahead=True)
  bias = 'qkvo' if c.get('attention_bias', False) else ''
  mixers: dict[str, Attention] = {}
  for kind, rope, mask in zip((GLOBAL, LOCAL), ropes, masks, strict=True):
    mixers[kind] = Attention(
      c['num_attention_heads'], relative=rope, mask=mask, bias=bias, dropout=attention_dropout
    )
  types = c.get('layer_types', choose((i % every for i in range(layers)), LOCAL, GLOBAL))
  act = c.act('hidden_activation', 'gelu')
  ffn = Glu(c['intermediate_size'], act, c.get('mlp_bias', False), c.get('mlp_dropout', 0.0))
  top = Transform(c.act('classifier_activation', 'gelu'), norm, c.get('classifier_bias', False))
  return _model(
    c['vocab_size'], c['hidden_size'], [Block(mixers[t], ffn, norm) for t in types], norm,
    Tokens(norm=norm, dropout=c.get('embedding_dropout', 0.0)),
    Lm(c.get('tie_word_embeddings', True), c.get('decoder_bias', True), transform=top),
  )  # fmt: skip


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  block, types = m.segments[0].pattern[0], types_of(m)
  ropes = {t: rope_parameters(b.mixer.relative) for t, b in zip(types, layers_of(m), strict=True)}
  top_fields: dict[str, Any] = {}
  if m.lm is not None:
    top = m.lm.transform
    top_fields = {
      'classifier_activation': name_of(top.act), 'classifier_bias': top.bias,
      'decoder_bias': m.lm.bias,
    }  # fmt: skip
  if m.classifier is not None and m.classifier.hidden is not None:
    top_fields = {
      'classifier_activation': name_of(m.classifier.hidden),
      'classifier_bias': m.classifier.hidden_bias,
      'classifier_pooling': 'mean' if m.classifier.pick == 'mean' else 'cls',
    }  # fmt: skip
  return {
    'vocab_size': m.vocab, 'hidden_size': m.d_model, 'num_hidden_layers': depth(m),
    'num_attention_heads': block.mixer.heads, 'intermediate_size': block.ffn.d_ff,
    'layer_types': types,
    'local_attention': 2 * ((window_of(m) or 65) - 1), 'rope_parameters': ropes,
    'norm_eps': m.norm.eps,
    'norm_bias': m.norm.bias, 'hidden_activation': name_of(block.ffn.act),
    'attention_bias': bool(block.mixer.bias),
    'mlp_bias': block.ffn.bias, 'attention_dropout': block.mixer.dropout,
    'mlp_dropout': block.ffn.dropout,
    'embedding_dropout': m.embed.dropout, 'pad_token_id': 50_283 if m.vocab > 50_283 else None,
    **top_fields,
  }  # fmt: skip


MODELS = {
  'modernbert-base': Entry(modernbert(22, 768, 12, 1152), 149_655_232, '149M', PAPER),
  'modernbert-large': Entry(modernbert(28, 1024, 16, 2624), 395_881_664, '395M', PAPER),
}
