"""Toy decoders of transformers with the equivalent specs and maps of parameters."""

from collections.abc import Callable
import dataclasses
from typing import Any

from tests.oracles.copying import Flat, Theirs, stacked
from tfm.model.spec import Block, Model, Segment
from tfm.parts.act import GeluTanh
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn import Glu, Mlp
from tfm.parts.head.lm import Lm
from tfm.parts.mask import Causal, Window
from tfm.parts.mixer import Attention
from tfm.parts.norm import LayerNorm, RMSNorm
from tfm.parts.relative import ALiBi, RoPE
from tfm.parts.residual_layout import Sandwich
from tfm.zoo import llama

V, D, N, K, H, F, L = 61, 32, 4, 2, 8, 48, 2


@dataclasses.dataclass(frozen=True)
class Case:
  """A toy decoder in both libraries.

  Attributes:
    theirs: The prefix of the config class, `<theirs>Config`.
    model: The name of the model class.
    fields: The fields of the config.
    spec: The spec of tfm.
    flat: Returns the parameters of tfm for a state dict.
  """

  theirs: str
  model: str
  fields: dict[str, Any]
  spec: Model
  flat: Callable[[Theirs], Flat]


_SIZES = {
  'vocab_size': V, 'hidden_size': D, 'num_hidden_layers': L, 'num_attention_heads': N,
  'intermediate_size': F,
  'max_position_embeddings': 64,
}  # fmt: skip
_PLAIN = {'rope_type': 'default', 'rope_theta': 10_000.0}


def _llama_block(t: Theirs, at: str) -> Flat:
  found = t.merge('mixer/o', f'{at}.self_attn.o_proj')
  for n in 'qkv':
    found |= t.heads(f'mixer/{n}', f'{at}.self_attn.{n}_proj')
  for n in ('gate', 'up', 'down'):
    found |= t.dense(f'ffn/{n}', f'{at}.mlp.{n}_proj')
  return found


def _llama_flat(t: Theirs) -> Flat:
  def block(i):
    at = f'model.layers.{i}'
    norms = t.norm('mixer_norm', f'{at}.input_layernorm') | t.norm(
      'ffn_norm', f'{at}.post_attention_layernorm'
    )
    return _llama_block(t, at) | norms

  found = {
    'embed/table': t['model.embed_tokens.weight'],
    **stacked('segment_0/block_0', range(L), block),
  }
  return found | t.norm('norm', 'model.norm') | t.dense('head/head', 'lm_head')


def _llama() -> Case:
  fields = {**_SIZES, 'num_key_value_heads': K, 'rope_parameters': _PLAIN, 'rms_norm_eps': 1e-5}
  return Case(
    'Llama', 'LlamaForCausalLM', fields, llama.llama(L, D, N, K, F, V, RoPE(1e4)), _llama_flat
  )


def _gemma2_flat(t: Theirs) -> Flat:
  def block(i):
    at = f'model.layers.{i}'
    ours = {
      'mixer_norm': 'input',
      'mixer_post_norm': 'post_attention',
      'ffn_norm': 'pre_feedforward',
    }
    found = _llama_block(t, at) | t.norm('ffn_post_norm', f'{at}.post_feedforward_layernorm')
    for o, name in ours.items():
      found |= t.norm(o, f'{at}.{name}_layernorm')
    return found

  local, far = (stacked(f'segment_0/block_{j}', range(j, 4, 2), block) for j in (0, 1))
  return {
    'embed/table': t['model.embed_tokens.weight'],
    **local,
    **far,
    **t.norm('norm', 'model.norm'),
  }


def _gemma2() -> Case:
  norm = RMSNorm(1e-6, one_plus=True, scale_first=True)
  attention = Attention(N, K, H, RoPE(1e4), cap=50.0, scale=24**-0.5)
  block = Block(attention, Glu(F, GeluTanh()), norm, Sandwich())
  local = dataclasses.replace(
    block, mixer=dataclasses.replace(attention, mask=Causal() & Window(4))
  )
  head = Lm(cap=30.0)
  spec = Model(
    Tokens(V, power=0.5), D, (Segment((local, block), 2),), heads={'lm': head}, norm=norm
  )
  fields = {
    **_SIZES, 'num_hidden_layers': 4, 'num_key_value_heads': K, 'head_dim': H,
    'query_pre_attn_scalar': 24,
    'sliding_window': 4, 'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0,
    'rope_parameters': _PLAIN,
  }  # fmt: skip
  return Case('Gemma2', 'Gemma2ForCausalLM', fields, spec, _gemma2_flat)


def _bloom() -> Case:
  def flat(t: Theirs) -> Flat:
    def block(i):
      at = f'transformer.h.{i}'
      found = t.fused('mixer', f'{at}.self_attention.query_key_value') | t.merge(
        'mixer/o', f'{at}.self_attention.dense'
      )
      found |= t.norm('mixer_norm', f'{at}.input_layernorm') | t.norm(
        'ffn_norm', f'{at}.post_attention_layernorm'
      )
      return (
        found
        | t.dense('ffn/up', f'{at}.mlp.dense_h_to_4h')
        | t.dense('ffn/down', f'{at}.mlp.dense_4h_to_h')
      )

    found = {
      'embed/table': t['transformer.word_embeddings.weight'],
      **stacked('segment_0/block_0', range(L), block),
    }
    return (
      found
      | t.norm('embed/norm', 'transformer.word_embeddings_layernorm')
      | t.norm('norm', 'transformer.ln_f')
    )

  norm = LayerNorm(1e-5)
  block = Block(Attention(N, relative=ALiBi(), bias='qkvo'), Mlp(4 * D, GeluTanh()), norm)
  spec = Model(Tokens(V, norm=norm), D, (Segment((block,), L),), norm=norm)
  fields = {'vocab_size': V, 'hidden_size': D, 'n_layer': L, 'n_head': N}
  return Case('Bloom', 'BloomForCausalLM', fields, spec, flat)


CASES: dict[str, Callable[[], Case]] = {
  'llama': _llama,
  'bloom': _bloom,
  'gemma2': _gemma2,
}
