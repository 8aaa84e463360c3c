"""Write GGUF files for tests.

The writer follows the definition of the format. Models are converted as llama.cpp does.
"""

import struct

import numpy as np

from tfm.hub.gguf.blocks import TYPES

RNG = np.random.default_rng(0)
#: Name of a tensor type -> its number.
KINDS = {t.name: number for number, t in TYPES.items()}
_FORMS = {bool: (7, '?'), int: (4, 'I'), float: (6, 'f')}


def _text(text):
  raw = text.encode()
  return struct.pack('<Q', len(raw)) + raw


def _value(value):
  if isinstance(value, str):
    return struct.pack('<I', 8) + _text(value)
  if not isinstance(value, list):
    kind, form = _FORMS[type(value)]
    return struct.pack(f'<I{form}', kind, value)
  if isinstance(value[0], str):
    return struct.pack('<IIQ', 9, 8, len(value)) + b''.join(map(_text, value))
  kind, form = _FORMS[type(value[0])]
  return struct.pack(f'<IIQ{len(value)}{form}', 9, kind, len(value), *value)


def write(path, fields, tensors, version=3):
  """Write a GGUF file.

  Args:
    path: The file.
    fields: The values of the header by name.
    tensors: Name -> (shape in row-major order, number of the type, bytes).
    version: The version of the format.

  Returns:
    The path.
  """
  head = struct.pack('<4sIQQ', b'GGUF', version, len(tensors), len(fields))
  head += b''.join(_text(name) + _value(value) for name, value in fields.items())
  body = b''
  for name, (shape, kind, raw) in tensors.items():
    head += _text(name) + struct.pack(
      f'<I{len(shape)}QIQ', len(shape), *shape[::-1], kind, len(body)
    )
    body += raw + b'\0' * (-len(raw) % 32)
  path.write_bytes(head + b'\0' * (-len(head) % 32) + body)
  return path


def random_blocks(name, rows):
  """Return random blocks of a tensor type with small scales, bytes `[rows, size]`."""
  kind = TYPES[KINDS[name]]
  blocks = RNG.integers(0, 256, (rows, kind.size), np.uint8)
  scales = {
    'Q2_K': (80, 82), 'Q3_K': (108,), 'Q6_K': (208,), 'Q4_0': (0,), 'Q5_0': (0,), 'Q8_0': (0,),
  }  # fmt: skip
  for at in scales.get(name, (0, 2)):
    factors = RNG.uniform(1e-4, 1e-3, rows).astype(np.float16)
    blocks[:, at : at + 2] = factors[:, None].view(np.uint8)
  return blocks


def plain(arrays):
  """Return the tensors for `write` of float32 arrays."""
  return {name: (a.shape, 0, np.asarray(a, np.float32).tobytes()) for name, a in arrays.items()}


def permuted(rows, heads):
  """Return query or key rows in llama.cpp's order: the halves of a head interleaved."""
  return (
    rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    .swapaxes(1, 2)
    .reshape(rows.shape)
  )


#: llama.cpp module of a layer -> module in transformers.
LAYER = {
  'attn_norm': 'input_layernorm', 'attn_q': 'self_attn.q_proj', 'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj', 'attn_output': 'self_attn.o_proj',
  'attn_q_norm': 'self_attn.q_norm',
  'attn_k_norm': 'self_attn.k_norm', 'ffn_gate': 'mlp.gate_proj', 'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj', 'ffn_norm': 'post_attention_layernorm', 'ffn_gate_inp': 'mlp.gate',
  'ffn_gate_inp_shexp': 'mlp.shared_expert_gate', 'ffn_gate_shexp': 'mlp.shared_expert.gate_proj',
  'ffn_up_shexp': 'mlp.shared_expert.up_proj', 'ffn_down_shexp': 'mlp.shared_expert.down_proj',
}  # fmt: skip
SANDWICH = LAYER | {
  'post_attention_norm': 'post_attention_layernorm', 'ffn_norm': 'pre_feedforward_layernorm',
  'post_ffw_norm': 'post_feedforward_layernorm',
}  # fmt: skip


def stems(architecture, layers):
  """Return the llama.cpp module for each module of transformers."""
  layer = SANDWICH if architecture in ('gemma2', 'gemma3') else LAYER
  found = {'model.embed_tokens': 'token_embd', 'model.norm': 'output_norm', 'lm_head': 'output'}
  return found | {
    f'model.layers.{i}.{theirs}': f'blk.{i}.{ours}'
    for i in range(layers)
    for ours, theirs in layer.items()
  }


def names_of(architecture, layers):
  """Return the llama.cpp name of each weight and bias in transformers."""
  pairs = stems(architecture, layers).items()
  return {
    f'{theirs}.{leaf}': f'{ours}.{leaf}' for theirs, ours in pairs for leaf in ('weight', 'bias')
  }


def sizes(architecture, config):
  """Return the size fields of the header for a config of transformers."""
  fields = {
    'context_length': config.max_position_embeddings, 'block_count': config.num_hidden_layers,
    'embedding_length': config.hidden_size, 'feed_forward_length': config.intermediate_size,
    'attention.head_count': config.num_attention_heads,
    'attention.head_count_kv': config.num_key_value_heads,
    'attention.layer_norm_rms_epsilon': config.rms_norm_eps,
    'attention.key_length': config.head_dim,
    'attention.value_length': config.head_dim, 'vocab_size': config.vocab_size,
  }  # fmt: skip
  return {'general.architecture': architecture} | {
    f'{architecture}.{n}': v for n, v in fields.items()
  }


#: The header of a Llama with one layer.
TINY = {
  'general.architecture': 'llama', 'llama.context_length': 64, 'llama.block_count': 1,
  'llama.embedding_length': 32, 'llama.feed_forward_length': 64, 'llama.attention.head_count': 4,
  'llama.attention.head_count_kv': 2, 'llama.attention.layer_norm_rms_epsilon': 1e-5,
  'llama.rope.dimension_count': 8,
}  # fmt: skip


def tiny_arrays():
  """Return the tensors of the `TINY` model."""
  rng = np.random.default_rng(0)
  shapes = {
    'token_embd': (48, 32), 'blk.0.attn_norm': (32,), 'blk.0.attn_q': (32, 32),
    'blk.0.attn_k': (16, 32), 'blk.0.attn_v': (16, 32), 'blk.0.attn_output': (32, 32),
    'blk.0.ffn_norm': (32,), 'blk.0.ffn_gate': (64, 32), 'blk.0.ffn_up': (64, 32),
    'blk.0.ffn_down': (32, 64), 'output_norm': (32,), 'output': (48, 32),
  }  # fmt: skip
  return {
    f'{name}.weight': rng.standard_normal(shape).astype(np.float32)
    for name, shape in shapes.items()
  }
