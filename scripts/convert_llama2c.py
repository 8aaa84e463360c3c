"""Convert a model of llama2.c to a folder in the format of transformers.

    .venv/bin/python scripts/convert_llama2c.py model.bin tokenizer.bin folder

`tfm.load` and `from_pretrained` open the folder. The file has version 0: seven integers, then
float32 numbers without names. Its rotary embedding is interleaved; the folder's is in halves.
"""

from pathlib import Path
import struct
import sys
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, processors

from tfm import hub
from tfm.core import errors
from tfm.data.tokenizer.file import FileVocabulary
from tfm.data.tokenizer.published.pieces import merges_of
from tfm.hub.check_tensors import check_tensors
from tfm.hub.fill_params import fill_params
from tfm.hub.tensors import Tensors
from tfm.zoo import weights

_HEADER = 7
#: Names of the first tokens, in place of the file's.
_SPECIALS = ('<unk>', '<s>', '</s>')


def main(model: Path, tokens: Path, folder: Path) -> None:
  """Write the folder.

  Args:
    model: the `model.bin`.
    tokens: the `tokenizer.bin`.
    folder: folder to write.

  Raises:
    UserError: if the file is not a model of llama2.c.
  """
  values, tensors = read(model)
  published = weights.published(values, str(model))
  params = fill_params(
    published.spec, check_tensors(str(model), published, tensors), tensors, None, None
  )
  vocabulary = vocabulary_of(tokens, values['vocab_size'])
  hub.export_hf(
    published.spec, params, folder, tokenizer=vocabulary, architecture='LlamaForCausalLM'
  )


def read(path: Path) -> tuple[dict[str, Any], Tensors]:
  """Return the config of the header, and the tensors by their names in transformers."""
  content = path.read_bytes()
  if len(content) < 4 * _HEADER:
    raise errors.UserError(
      f'{path}: the file ends within its header. Expected a model.bin of llama2.c, version 0.'
    )
  d, d_ff, layers, heads, kv_heads, vocab, length = struct.unpack(
    f'<{_HEADER}i', content[: 4 * _HEADER]
  )
  tied = vocab > 0
  vocab = abs(vocab)
  numbers = np.frombuffer(content, np.float32, offset=4 * _HEADER)
  half = d // max(heads, 1) // 2
  kv = 2 * half * kv_heads
  # The file has rotary tables between the norm and the head, which are not needed.
  shapes = {
    'embed': (vocab, d), 'mixer_norm': (layers, d), 'q': (layers, d, d), 'k': (layers, kv, d),
    'v': (layers, kv, d),
    'o': (layers, d, d), 'ffn_norm': (layers, d), 'gate': (layers, d_ff, d),
    'down': (layers, d, d_ff),
    'up': (layers, d_ff, d), 'norm': (d,), 'cos': (length, half), 'sin': (length, half),
    **({} if tied else {'head': (vocab, d)}),
  }  # fmt: skip
  if min(d, d_ff, layers, heads, kv_heads, length) < 1 or sum(map(np.prod, shapes.values())) != len(
    numbers
  ):
    raise errors.UserError(
      f'{path}: header and size disagree. Expected a model.bin of llama2.c, version 0.'
    )
  ends = np.cumsum([np.prod(shape) for shape in shapes.values()])
  parts = dict(zip(shapes, np.split(numbers, ends[:-1]), strict=True))
  found = {name: parts[name].reshape(shape) for name, shape in shapes.items()}
  values = {
    'model_type': 'llama', 'vocab_size': vocab, 'hidden_size': d, 'intermediate_size': d_ff,
    'rms_norm_eps': 1e-5,
    'num_hidden_layers': layers, 'num_attention_heads': heads, 'num_key_value_heads': kv_heads,
    'tie_word_embeddings': tied, 'max_position_embeddings': length,
  }  # fmt: skip
  return values, Tensors(_named(found, half))


def _named(found: dict[str, np.ndarray], half: int) -> dict[str, np.ndarray]:
  attention, ffn = ('q', 'k', 'v', 'o'), ('gate', 'up', 'down')
  found |= {name: _halves(found[name], half) for name in ('q', 'k')}
  named = {'model.embed_tokens.weight': found['embed'], 'model.norm.weight': found['norm']}
  for i in range(len(found['q'])):
    at = f'model.layers.{i}'
    named |= {f'{at}.self_attn.{n}_proj.weight': found[n][i] for n in attention}
    named |= {f'{at}.mlp.{n}_proj.weight': found[n][i] for n in ffn}
    named[f'{at}.input_layernorm.weight'] = found['mixer_norm'][i]
    named[f'{at}.post_attention_layernorm.weight'] = found['ffn_norm'][i]
  return named | ({'lm_head.weight': found['head']} if 'head' in found else {})


def _halves(rows: np.ndarray, half: int) -> np.ndarray:
  """Return query or key weights with rotated pairs in halves in place of interleaved."""
  layers, out, d = rows.shape
  return rows.reshape(layers, -1, half, 2, d).swapaxes(2, 3).reshape(layers, out, d)


def vocabulary_of(path: Path, size: int) -> FileVocabulary:
  """Return the pieces of a tokenizer.bin; the pieces with the highest scores merge first."""
  content, at, scored = path.read_bytes(), 4, []
  while at < len(content):
    score, length = struct.unpack_from('<fi', content, at)
    text = content[at + 8 : at + 8 + length].decode('utf-8', 'replace')
    scored.append(
      (_SPECIALS[len(scored)] if len(scored) < len(_SPECIALS) else text.replace(' ', '▁'), score)
    )
    at += 8 + length
  if len(scored) != size:
    raise errors.UserError(
      f'{path}: the file has {len(scored)} tokens, and the model {size}. '
      'Expected the tokenizer.bin of this model.'
    )
  vocab = {text: i for i, (text, _) in enumerate(scored)}
  rank = lambda text: (-scored[vocab[text]][1], vocab[text])
  likeliest = sorted((text for text in vocab if not _plain(text)), key=rank)
  merges = merges_of({text: i for i, text in enumerate(likeliest)})
  inner = tokenizers.Tokenizer(
    models.BPE(vocab, merges, unk_token='<unk>', fuse_unk=True, byte_fallback=True)
  )
  inner.normalizer = normalizers.Sequence([normalizers.Prepend('▁'), normalizers.Replace(' ', '▁')])
  steps = [
    decoders.Replace('▁', ' '),
    decoders.ByteFallback(),
    decoders.Fuse(),
    decoders.Strip(' ', 1, 0),
  ]
  inner.decoder = decoders.Sequence(steps)
  inner.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _SPECIALS])
  inner.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
  vocabulary = FileVocabulary(inner, framed=True)
  return vocabulary.with_specials(['eos'])


def _plain(text: str) -> bool:
  """Return whether a token is a special token or a byte, to which no pair merges."""
  return text in _SPECIALS or (text.startswith('<0x') and text.endswith('>'))


if __name__ == '__main__':
  if len(sys.argv) != 4:
    sys.exit(__doc__)
  try:
    main(*map(Path, sys.argv[1:]))
  except errors.UserError as error:
    sys.exit(f'convert_llama2c: {error}')
