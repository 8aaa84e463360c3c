"""Convert a RoBERTa checkpoint of fairseq to a folder in the format of transformers.

    .venv/bin/python scripts/convert_fairseq.py checkpoint.pt dict.txt folder

`tfm.load` and `from_pretrained` open the folder. The checkpoint contains the arguments of fairseq
next to the tensors. PyTorch loads it without running code from it. `vocab.txt` gets the words of
`dict.txt`, one per id.
"""

import argparse
from pathlib import Path
import sys
from typing import Any

import numpy as np

from tfm import hub
from tfm.core import errors
from tfm.hub.check_tensors import check_tensors
from tfm.hub.fill_params import fill_params
from tfm.hub.tensors import Tensors
from tfm.model.spec import Model
from tfm.parts.norm.layer import LayerNorm
from tfm.zoo import roberta
from tfm.zoo.fields import Fields
from tfm.zoo.weights import Published
from tfm.zoo.weights.family import Family, Names
from tfm.zoo.weights.rules import Whole

_LAYER = 'layers.*'
#: Module of tfm -> its name in fairseq, without the prefix of the encoder.
NAMES: Names = {
  'embed/table': Whole('embed_tokens.weight'),
  'embed/types': Whole('types'),
  'embed/norm': 'emb_layer_norm',
  'absolute': 'embed_positions',
  **{f'*/mixer/{n}': f'{_LAYER}.self_attn.{n}_proj' for n in 'qkv'},
  '*/mixer/o': f'{_LAYER}.self_attn.out_proj',
  '*/mixer_norm': f'{_LAYER}.self_attn_layer_norm',
  '*/ffn/up': f'{_LAYER}.fc1',
  '*/ffn/down': f'{_LAYER}.fc2',
  '*/ffn_norm': f'{_LAYER}.final_layer_norm',
  'head/transform': 'lm_head.dense',
  'head/norm': 'lm_head.layer_norm',
  'head/bias': Whole('lm_head.bias'),
}
_PREFIXES = ('encoder.', 'decoder.', 'sentence_encoder.')


def main(checkpoint: Path, words: Path, folder: Path) -> None:
  """Write the folder.

  Args:
    checkpoint: file of fairseq 0.10 or older.
    words: the `dict.txt` of the checkpoint.
    folder: folder to write.

  Raises:
    UserError: if the file is not a RoBERTa checkpoint of fairseq.
  """
  arguments, arrays = read(checkpoint)
  vocabulary = vocabulary_of(words)
  spec = spec_of(Fields(arguments, str(checkpoint)), arrays, len(vocabulary))
  # RoBERTa in transformers has one token type; zeros leave the outputs unchanged.
  arrays['types'] = np.zeros((1, spec.d_model), np.float32)
  family = Family(
    'Roberta',
    roberta.read,
    roberta.write,
    NAMES,
    '',
    'ForMaskedLM',
    tied=('lm_head.weight',),
    ignored=('^version$',),
  )
  tensors = Tensors(arrays)
  tensor_map = check_tensors(str(checkpoint), Published(family, 'ForMaskedLM', spec), tensors)
  hub.export_hf(
    spec,
    fill_params(spec, tensor_map, tensors, None, None),
    folder,
    architecture='RobertaForMaskedLM',
  )
  (folder / 'vocab.txt').write_text('\n'.join(vocabulary) + '\n', 'utf-8')


def read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Return the arguments of fairseq, and its tensors by their names in the encoder."""
  import torch

  with torch.serialization.safe_globals([argparse.Namespace]):
    found = torch.load(path, map_location='cpu', weights_only=True)
  if found.get('args') is None or 'model' not in found:
    raise errors.UserError(
      f'{path}: args or model is missing. Expected a checkpoint of fairseq 0.10 or older.'
    )
  return vars(found['args']), {
    _without_prefix(name): x.float().numpy() for name, x in found['model'].items()
  }


def _without_prefix(name: str) -> str:
  for prefix in _PREFIXES:
    name = name.removeprefix(prefix)
  return name


def vocabulary_of(path: Path) -> list[str]:
  """Return the words in the order of their ids.

  fairseq puts four special tokens before the words of the file and the mask token after them.
  """
  counted = [line.split()[0] for line in path.read_text('utf-8').splitlines() if line.strip()]
  return ['<s>', '<pad>', '</s>', '<unk>', *counted, '<mask>']


def spec_of(c: Fields, arrays: dict[str, np.ndarray], words: int) -> Model:
  """Return the spec of a checkpoint.

  Args:
    c: arguments of fairseq.
    arrays: tensors of the checkpoint.
    words: number of words.

  Returns:
    The spec of the model.
  """
  d, heads = c['encoder_embed_dim'], c['encoder_attention_heads']
  fields = {
    'vocab_size': words, 'hidden_size': d, 'num_hidden_layers': c['encoder_layers'],
    'num_attention_heads': heads,
    'intermediate_size': c['encoder_ffn_embed_dim'],
    'max_position_embeddings': len(arrays['embed_positions.weight']),
    'type_vocab_size': 1, 'layer_norm_eps': LayerNorm().eps,
    'hidden_act': c.get('activation_fn', 'gelu'),
    'hidden_dropout_prob': c.get('dropout', 0.1),
    'attention_probs_dropout_prob': c.get('attention_dropout', 0.1),
  }  # fmt: skip
  spec = roberta.read(Fields(fields, c.where))
  table = arrays['embed_tokens.weight']
  if table.shape != (words, d):
    raise errors.UserError(
      f'{c.where}: embed_tokens is {list(table.shape)}, and there are {words} words. '
      'Expected the dict.txt of this checkpoint.'
    )
  return spec


if __name__ == '__main__':
  if len(sys.argv) != 4:
    sys.exit(__doc__)
  try:
    main(*map(Path, sys.argv[1:]))
  except errors.UserError as error:
    sys.exit(f'convert_fairseq: {error}')
