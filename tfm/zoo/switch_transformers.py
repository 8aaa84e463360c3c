"""Switch Transformers (Fedus et al., 2021): T5 with top-1 experts in some layers."""

import dataclasses
from typing import Any

from tfm.model.spec import Block, Model, Segment, depth
from tfm.parts.act.relu import Relu
from tfm.parts.ffn.mlp import Mlp
from tfm.parts.ffn.moe import Moe
from tfm.parts.head.lm import Lm
from tfm.parts.norm.rms import RMSNorm
from tfm.parts.relative.t5 import T5Bias
from tfm.parts.router.top_k import TopK
from tfm.zoo import t5
from tfm.zoo.entry import Entry
from tfm.zoo.family_model import FamilyModel, FamilyTower
from tfm.zoo.fields import Fields, name_of
from tfm.zoo.layers import layers_of, segments

PAPER = (
  'Switch Transformers: Scaling to Trillion Parameter Models with Simple and Efficient '
  'Sparsity, arXiv:2101.03961'
)


def switch(layers: int, d: int, heads: int, d_ff: int, sparse: int, experts: int) -> Model:
  """Return a T5 with experts in `sparse` layers of each stack.

  An expert takes up to 64 tokens of a sequence; further tokens pass unchanged.

  Args:
    layers: number of layers of each stack.
    d: width of the residual stream.
    heads: number of attention heads.
    d_ff: hidden width of the feed-forward.
    sparse: number of layers of each stack with experts.
    experts: number of experts.

  Returns:
    The spec of the model.
  """
  ffn = Mlp(d_ff, Relu(), bias=False, dropout=0.1)
  m = t5.stacks(
    32_128, (layers, layers), d, heads, 64, ffn, Lm(power=-0.5), T5Bias(), RMSNorm(1e-6), 0.1
  )
  return with_experts(m, Moe(experts, TopK(k=1, renormalize=False), ffn, slots=64), sparse, sparse)


def with_experts(m: Model, moe: Moe, n_encoder: int, n_decoder: int) -> Model:
  """Return `m` with experts in some layers of each stack.

  Args:
    m: spec of the model.
    moe: mixture of experts.
    n_encoder: number of encoder layers with experts.
    n_decoder: number of decoder layers with experts.

  Returns:
    The spec of the model.
  """
  assert m.encoder is not None
  return _sparse(m, moe, n_decoder).with_towers(encoder=_sparse(m.encoder, moe, n_encoder))


def _sparse(stack: FamilyTower, moe: Moe, n: int) -> Any:
  layers: list[Block] = []
  for block, sparse in zip(layers_of(stack), _sparse_layers(depth(stack), n), strict=True):
    layers.append(dataclasses.replace(block, ffn=moe if sparse else moe.expert))
  return dataclasses.replace(stack, segments=segments(layers))


def _sparse_layers(n: int, sparse: int) -> list[bool]:
  """Return for each of n layers whether it has experts, spread as in the released code.

  With `sparse` = 0, the second layer still has experts if there are at least two.
  """
  step = n // sparse if sparse else n
  return [step == 1 or (step > 0 and i % step == 1) for i in range(n)]


def read(c: Fields) -> Model:
  """Return the spec of a published `config.json`.

  Note:
    Padding takes no slot of an expert, unlike in the released code.
  """
  c.only(router_bias=False, feed_forward_proj='relu', router_dtype='float32')
  c.skip(
    'router_ignore_padding_tokens', 'add_router_probs', 'encoder_sparse_step', 'decoder_sparse_step'
  )
  c.skip('batch_prioritized_routing', 'num_selected_experts', 'router_type', 'second_expert_policy')
  tied = c.get('tie_word_embeddings', True)
  m = t5.read_stacks(c, Lm(tied, power=-0.5 if tied else 0.0))
  balance, z = c.get('router_aux_loss_coef', 0.001), c.get('router_z_loss_coef', 0.001)
  router = TopK(k=1, renormalize=False, balance=balance, z=z)
  expert = Mlp(
    c['d_ff'], c.act('dense_act_fn', 'relu'), bias=False, dropout=c.get('dropout_rate', 0.1)
  )
  moe = Moe(c.get('num_experts', 8), router, expert, slots=c.get('expert_capacity', 64))
  return with_experts(
    m, moe, c.get('num_sparse_encoder_layers', 3), c.get('num_sparse_decoder_layers', 3)
  )


def write(m: FamilyModel) -> dict[str, Any]:
  """Return the fields of a published `config.json` for a spec."""
  moe = next(b.ffn for b in layers_of(m) + layers_of(m.encoder) if b.ffn.active < 1)
  dense = dataclasses.replace(
    m.segments[0].pattern[0], ffn=dataclasses.replace(moe.expert, act=Relu())
  )
  plain = dataclasses.replace(m, segments=(Segment((dense,), depth(m)),))
  return {
    **t5.write_stacks(plain), 'num_experts': moe.experts, 'expert_capacity': moe.slots,
    'dense_act_fn': name_of(moe.expert.act),
    'num_sparse_encoder_layers': _count(m.encoder), 'num_sparse_decoder_layers': _count(m),
    'router_aux_loss_coef': moe.router.balance, 'router_z_loss_coef': moe.router.z,
  }  # fmt: skip


def _count(stack: FamilyTower) -> int:
  """Return the number of sparse layers that reproduces the layers with experts."""
  flags = [b.ffn.active < 1 for b in layers_of(stack)]
  return next(n for n in range(1, len(flags) + 1) if _sparse_layers(len(flags), n) == flags)


MODELS = {
  'switch-base-8': Entry(switch(12, 768, 12, 3072, 6, 8), 619_339_008, '620M', PAPER),
  'switch-base-128': Entry(switch(12, 768, 12, 3072, 6, 128), 7_415_217_408, '7.4B', PAPER),
}
