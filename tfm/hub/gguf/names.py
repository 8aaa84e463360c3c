"""Convert tensors from llama.cpp's names and layout to Hugging Face's."""

from collections.abc import Iterator, Mapping
import dataclasses
import re
from typing import Any

from jax.typing import DTypeLike
import ml_dtypes
import numpy as np

from tfm.hub.gguf.reader import Info
from tfm.hub.tensors import Entry, Tensors, drop_pages

#: The number of values that are dequantized at a time.
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
#: `general.architecture` -> names in a layer, which override the common ones.
_SPECIFIC = {
  'llama': _MIXTRAL, 'qwen2moe': _QWEN_EXPERTS, 'qwen3moe': _QWEN_EXPERTS, 'gemma2': _SANDWICH,
  'gemma3': _SANDWICH,
}  # fmt: skip
_MODEL = {'token_embd': 'model.embed_tokens', 'output_norm': 'model.norm', 'output': 'lm_head'}
_BLOCK = re.compile(r'^blk\.(\d+)\.(\w+)\.(weight|bias)$')

#: Factors of rotary frequencies, which `tfm.hub.gguf.config` reads.
DERIVED = re.compile(r'^rope_freqs\.weight$|\.attn_rot_embd$')


@dataclasses.dataclass(frozen=True)
class Blocks:
  """A lazy tensor of a GGUF file, dequantized a few rows at a time.

  Attributes:
    info: The position and type of the tensor.
    dtype: The dtype of the result. Each number is rounded once.
    heads: The number of heads with permuted rows, 0 for rows in Hugging Face's order.
    shift: A constant that is added to all numbers.
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
    """Return the row in the file of each row. The two halves of a head are interleaved there."""
    if not self.heads:
      return np.arange(0)
    return np.arange(rows).reshape(self.heads, -1, 2).swapaxes(1, 2).reshape(-1)

  def chunks(self) -> Iterator[np.ndarray]:
    yield self.array()

  def release(self) -> None:
    drop_pages(self.info.file.map, self.info.begin, self.info.nbytes)


def to_hugging_face(
  infos: Mapping[str, Info], architecture: str, config: Mapping[str, Any], dtype: DTypeLike | None
) -> Tensors:
  """Return the tensors of a GGUF file under their Hugging Face names.

  Args:
    infos: The tensors of the file by name.
    architecture: The field `general.architecture`.
    config: The fields of the equivalent config.json.
    dtype: The dtype of all tensors. None keeps the stored dtype of float tensors, and converts
      quantized tensors to bfloat16.

  Returns:
    The tensors, which are dequantized on access.
  """
  heads = {'attn_q': config['num_attention_heads'], 'attn_k': config['num_key_value_heads']}
  entries: dict[str, Entry | np.ndarray] = {}
  for name, info in infos.items():
    if DERIVED.search(name):
      continue
    kind = np.dtype(dtype or info.type.dtype or ml_dtypes.bfloat16)
    part = name.rpartition('.')[0].rpartition('.')[2]
    permuted = heads.get(part, 0) if architecture == 'llama' else 0
    # Gemma multiplies by 1 + weight. llama.cpp stores this sum.
    shift = -1 if architecture.startswith('gemma') and name.endswith('norm.weight') else 0
    for new_name, part_info in _split(_name(name, architecture), info):
      shape = part_info.shape
      if permuted and len(shape) == 1:  # A bias is permuted like a matrix with one column.
        column = part_info._replace(shape=(*shape, 1))
        entries[new_name] = Blocks(column, kind, permuted, shift).array()[:, 0]
      else:
        entries[new_name] = Blocks(part_info, kind, permuted, shift)
  return Tensors(entries)


def _split(name: str, info: Info) -> Iterator[tuple[str, Info]]:
  """Yield the name and position of a tensor, or of each expert in a stacked tensor."""
  if name.endswith('shared_expert_gate.weight') and len(info.shape) == 1:
    info = info._replace(shape=(1, *info.shape))
  if '*' not in name:
    yield name, info
    return
  step = info.nbytes // info.shape[0]
  for expert in range(info.shape[0]):
    begin = info.begin + expert * step
    yield name.replace('*', str(expert)), info._replace(shape=info.shape[1:], begin=begin)


def _name(name: str, architecture: str) -> str:
  """Return the Hugging Face name of a tensor, or the same name if it is unknown.

  The check of the checkpoint lists unknown names in its error.
  """
  layer = _LAYER | _SPECIFIC.get(architecture, {})
  if match := _BLOCK.match(name):
    number, part, leaf = match.groups()
    return f'model.layers.{number}.{layer[part]}.{leaf}' if part in layer else name
  stem, _, leaf = name.rpartition('.')
  return f'{_MODEL[stem]}.{leaf}' if stem in _MODEL else name
