"""Translate tensors from the names and layout of llama.cpp to those in Hugging Face checkpoints."""

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import Any

import ml_dtypes
import numpy as np

from tfm.hub.gguf.reader import Info
from tfm.hub.tensors import Entry, Tensors, drop_pages

#: Numbers that are dequantized at a time.
_CHUNK = 1 << 20

_LAYER = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm',
  'attn_k_norm': 'self_attn.k_norm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
  'ffn_norm': 'post_attention_layernorm',
}
_SANDWICH = {
  'ffn_norm': 'pre_feedforward_layernorm',
  'post_attention_norm': 'post_attention_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}
_QWEN_EXPERTS = {
  'ffn_gate_inp': 'mlp.gate',
  'ffn_gate_exps': 'mlp.experts.*.gate_proj',
  'ffn_up_exps': 'mlp.experts.*.up_proj',
  'ffn_down_exps': 'mlp.experts.*.down_proj',
  'ffn_gate_inp_shexp': 'mlp.shared_expert_gate',
  'ffn_gate_shexp': 'mlp.shared_expert.gate_proj',
  'ffn_up_shexp': 'mlp.shared_expert.up_proj',
  'ffn_down_shexp': 'mlp.shared_expert.down_proj',
}
_MIXTRAL = {
  'ffn_gate_inp': 'block_sparse_moe.gate',
  'ffn_gate_exps': 'block_sparse_moe.experts.*.w1',
  'ffn_up_exps': 'block_sparse_moe.experts.*.w3',
  'ffn_down_exps': 'block_sparse_moe.experts.*.w2',
}
#: `general.architecture` -> further names in a layer; they replace the common ones.
_OWN = {
  'llama': _MIXTRAL, 'qwen2moe': _QWEN_EXPERTS, 'qwen3moe': _QWEN_EXPERTS, 'gemma2': _SANDWICH,
  'gemma3': _SANDWICH,
}  # fmt: skip
_MODEL = {'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm', 'output': 'lm_head'}
_BLOCK = re.compile(r'^blk\.(\d+)\.(\w+)\.(weight|bias)$')

#: Tensors that follow from the config: factors of rotary frequencies (`tfm.hub.gguf.config` reads
#: them).
DERIVED = re.compile(r'^rope_freqs\.weight$|\.attn_rot_embd$')


@dataclasses.dataclass(frozen=True)
class Blocks:
  """A tensor of a GGUF file, dequantized to `dtype` a few rows at a time.

  Attributes:
    info: its place in the file.
    dtype: of the result; each number is rounded once.
    heads: number of heads whose rows llama.cpp has permuted, 0 for rows in Hugging Face's order.
    shift: is added to the numbers.
  """

  info: Info
  dtype: np.dtype
  heads: int = 0
  shift: int = 0

  @property
  def shape(self) -> tuple[int, ...]:
    return self.info.shape

  def array(self) -> np.ndarray:
    info = self.info
    raw = np.frombuffer(info.file.map, np.uint8, info.nbytes, info.begin)
    if info.type.dtype is not None:
      stored = raw.view(info.type.dtype).reshape(self.shape)
      if not self.heads and not self.shift:
        return stored if stored.dtype == self.dtype else stored.astype(self.dtype)
    columns = self.shape[-1]
    rows = raw.reshape(-1, columns // info.type.numbers * info.type.size)
    order, out = self._order(len(rows)), np.empty((len(rows), columns), self.dtype)
    step = max(1, _CHUNK // columns)
    for start in range(0, len(rows), step):
      part = rows[order[start : start + step]] if self.heads else rows[start : start + step]
      out[start : start + step] = self._numbers(part).reshape(-1, columns)
    return out.reshape(self.shape)

  def _numbers(self, rows: np.ndarray) -> np.ndarray:
    kind = self.info.type
    if kind.dequantize is not None:
      numbers = kind.dequantize(rows.reshape(-1, kind.size))
    else:
      numbers = rows.view(kind.dtype or np.float32).astype(np.float32)
    return numbers + np.float32(self.shift) if self.shift else numbers

  def _order(self, rows: int) -> np.ndarray:
    """Return which row of the file each row is: llama.cpp has the two halves of a head's rows in
    turns.
    """
    return (
      np.arange(rows).reshape(self.heads or 1, -1, 2).swapaxes(1, 2).reshape(-1)
      if self.heads
      else np.arange(0)
    )

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    drop_pages(self.info.file.map, self.info.begin, self.info.nbytes)


def to_hugging_face(
  found: Mapping[str, Info], architecture: str, config: Mapping[str, Any], dtype: Any | None
) -> Tensors:
  """Return the tensors of a GGUF file under the names of the Hugging Face model.

  Args:
    found: the tensors of the file by name.
    architecture: `general.architecture`.
    config: the config.json that the header stands for.
    dtype: of every tensor. None keeps the stored dtype of float tensors; quantized tensors become
    bfloat16.
  """
  heads = {'attn_q': config['num_attention_heads'], 'attn_k': config['num_key_value_heads']}
  entries: dict[str, Entry | np.ndarray] = {}
  for name, info in found.items():
    if DERIVED.search(name):
      continue
    kind = np.dtype(dtype or info.type.dtype or ml_dtypes.bfloat16)
    part = name.rpartition('.')[0].rpartition('.')[2]
    permuted = heads.get(part, 0) if architecture == 'llama' else 0
    # Gemma multiplies with 1 + weight, and llama.cpp stores the sum.
    shift = -1 if architecture.startswith('gemma') and name.endswith('norm.weight') else 0
    for theirs, own in _placed(_name(name, architecture), info):
      shaped = own._replace(shape=(*own.shape, 1)) if permuted and len(own.shape) == 1 else own
      entry = Blocks(shaped, kind, permuted, shift)
      entries[theirs] = entry.array()[:, 0] if shaped is not own else entry
  return Tensors(entries)


def _placed(name: str, info: Info) -> Iterator[tuple[str, Info]]:
  """Yield the names and places of a tensor: each expert's of one with all experts, else the tensor
  itself.
  """
  if name.endswith('shared_expert_gate.weight') and len(info.shape) == 1:
    info = info._replace(shape=(1, *info.shape))
  if '*' not in name:
    yield name, info
    return
  step = info.nbytes // info.shape[0]
  for expert in range(info.shape[0]):
    yield (
      name.replace('*', str(expert)),
      info._replace(shape=info.shape[1:], begin=info.begin + expert * step),
    )


def _name(name: str, architecture: str) -> str:
  """Return the Hugging Face name of a tensor; unknown ones keep theirs, for the error that lists
  them.
  """
  layer = _LAYER | _OWN.get(architecture, {})
  if match := _BLOCK.match(name):
    number, part, leaf = match.groups()
    return f'model.layers.{number}.{layer[part]}.{leaf}' if part in layer else name
  stem, _, leaf = name.rpartition('.')
  return f'{_MODEL[stem]}.{leaf}' if stem in _MODEL else name
