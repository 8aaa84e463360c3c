"""Llama 4 (Meta, 2025), text model: chunked attention with RoPE, and top-1 experts.

Every fourth layer has full attention without positions.
"""

from typing import Any

from tfm.core import errors
from tfm.model.spec import Block, Model
from tfm.parts.embed.tokens import Tokens
from tfm.parts.ffn.base import FFN
from tfm.parts.ffn.glu import Glu
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.init.normal import Normal
from tfm.parts.mask.base import Mask
from tfm.parts.mask.causal import Causal
from tfm.parts.mask.chunks import Chunks
from tfm.parts.mixer.attention import Attention
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.base import Relative
from tfm.parts.relative.rope import RoPE
from tfm.parts.relative.scaling.llama3 import Llama3
from tfm.parts.relative.temperature import Temperature
from tfm.parts.router.top_k import TopK
from tfm.zoo import llama
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import GLOBAL, check_layer_types, choose, layers_of, segments

CARD = 'Llama 4, model card, Meta 2025'
CHUNKED = 'chunked_attention'
_HEADS = 40, 8, 128


def llama4(experts: int, every: int, rope: RoPE, normed: bool) -> Model:
  """Return a pre-norm decoder of 48 layers with experts in every `every`-th layer.

  Args:
    experts: number of experts.
    every: distance between layers with experts; the others have SwiGLU.
    rope: rotary position embedding.
    normed: whether rotated queries and keys are normalised.

  Returns:
    The spec of the model.
  """
  norm = RMSNorm(1e-5)
  qk_norm = RMSNorm(1e-5, scale=False) if normed else None
  chunked = Attention(*_HEADS, rope, Causal() & Chunks(8192), qk_norm=qk_norm)
  full = Attention(*_HEADS, Temperature(8192, 0.1))
  moe = Moe(experts, _router(0.001, 1), Glu(8192), Glu(8192), scaled='input')
  feed = lambda i: moe if (i + 1) % every == 0 else Glu(16_384)
  mixers = choose(((i + 1) % 4 for i in range(48)), chunked, full)
  layers = [Block(mixer, feed(i), norm) for i, mixer in enumerate(mixers)]
  head = Lm(tied=False)
  return Model(
    Tokens(202_048),
    5120,
    segments(layers),
    heads={'lm': head},
    norm=norm,
    init=Normal(depth_scaled=False),
  )


def _router(balance: float, k: int) -> TopK:
  return TopK(balance, 0.0, k, 'sigmoid', renormalize=False)


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json` of the language model."""
  norm, n = RMSNorm(c.get('rms_norm_eps', 1e-5)), c['num_hidden_layers']
  every = c.get('no_rope_layer_interval', 4)
  # transformers treats an empty list as missing.
  rotated = c.get('no_rope_layers') or [int((i + 1) % every != 0) for i in range(n)]
  types = c.get('layer_types') or choose(rotated, CHUNKED, GLOBAL)
  c.skip('for_llm_compressor')
  for name, values in {'no_rope_layers': rotated, 'layer_types': types}.items():
    if len(values) != n:
      raise errors.UserError(
        f'{c.where}: {name} has {len(values)} layers. Expected num_hidden_layers ({n}).'
      )
  tuned = bool(c.get('attn_temperature_tuning', True))
  temperature = Temperature(c.get('floor_scale', 8192), c.get('attn_scale', 0.1))
  full = temperature if tuned else Relative()
  qk_norm = RMSNorm(norm.eps, scale=False) if c.get('use_qk_norm', True) else None
  masks, rope = _masks(c, types), c.rope(5e5, 'interleaved')
  kinds: dict[bool, dict[str, Any]] = {
    True: {'relative': rope, 'qk_norm': qk_norm},
    False: {'relative': full},
  }
  mixers = [
    llama.attention(c, 8, 128, mask=mask, **kinds[bool(rotates)])
    for mask, rotates in zip(masks, rotated, strict=True)
  ]
  pairs = zip(mixers, _ffns(c), strict=True)
  return llama.decoder(c, [Block(mixer, ffn, norm) for mixer, ffn in pairs], norm)


def _masks(c: Fields, types: list[str]) -> list[Mask]:
  """Return the attention mask of every layer."""
  check_layer_types(c, types, (CHUNKED, GLOBAL))
  size = c.given('attention_chunk_size', 8192)
  if CHUNKED in types and size is None:
    raise errors.UserError(
      f'{c.where}: attention_chunk_size is null, and layer_types has {CHUNKED}. '
      'Expected a number of tokens.'
    )
  if CHUNKED not in types:
    return [Causal()] * len(types)
  return choose((t == CHUNKED for t in types), Causal() & Chunks(size), Causal())


def _ffns(c: Fields) -> list[FFN]:
  """Return the feed-forward of every layer."""
  n = c['num_hidden_layers']
  step = c.get('interleave_moe_layer_step', 1)
  act = c.act('hidden_act', 'silu')
  sparse = c.get('moe_layers', list(range(step - 1, n, step)))
  expert = Glu(c.get('intermediate_size', 8192), act)
  dense = Glu(c.get('intermediate_size_mlp', 16_384), act)
  router = _router(c.get('router_aux_loss_coef', 0.001), c.get('num_experts_per_tok', 1))
  moe = Moe(c.get('num_local_experts', 16), router, expert, expert, scaled='input')
  return choose((i in sparse for i in range(n)), moe, dense)


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  blocks: list[Any] = layers_of(m)
  ffns: list[Any] = [b.ffn for b in blocks]
  dense = [f for f in ffns if hasattr(f, 'd_ff')]
  no_moe = Moe(1, _router(0.0, 1), dense[0] if dense else Glu())
  moe: Any = next((f for f in ffns if hasattr(f, 'expert')), no_moe)
  rotated = [int(hasattr(b.mixer.relative, 'base')) for b in blocks]
  chunks = [b.mixer.mask.lookback for b in blocks]
  tuned = next(
    (b.mixer.relative for b in blocks if isinstance(b.mixer.relative, Temperature)), None
  )
  chunked = next(b.mixer for b in blocks if hasattr(b.mixer.relative, 'base'))
  tuning = {} if tuned is None else _tuning(tuned)
  dense_width = dense[0].d_ff if dense else 2 * moe.expert.d_ff
  sparse = [i for i, f in enumerate(ffns) if hasattr(f, 'expert')]
  types = choose((size is None for size in chunks), GLOBAL, CHUNKED)
  return {
    **llama.sizes(m), 'attention_bias': bool(chunked.bias), 'no_rope_layers': rotated,
    'layer_types': types,
    'attention_chunk_size': next((size + 1 for size in chunks if size is not None), None),
    'attn_temperature_tuning': tuned is not None, **tuning,
    'use_qk_norm': chunked.qk_norm is not None, 'num_local_experts': moe.experts,
    'num_experts_per_tok': moe.router.k,
    'router_aux_loss_coef': moe.router.balance, 'intermediate_size': moe.expert.d_ff,
    'hidden_act': name_of(moe.expert.act),
    'intermediate_size_mlp': dense_width,
    'moe_layers': sparse,
  }  # fmt: skip


def _tuning(relative: Temperature) -> dict[str, Any]:
  return {'floor_scale': relative.every, 'attn_scale': relative.scale}


_SCOUT = RoPE(5e5, 'interleaved', scaling=Llama3(16.0, 1.0, 1.0))

MODELS = {
  'llama4-scout': Entry(llama4(16, 1, _SCOUT, True), 107_769_861_120, '109B', CARD),
  'llama4-maverick': Entry(
    llama4(128, 2, RoPE(5e5, 'interleaved'), False), 400_711_848_960, '400B', CARD
  ),
}
