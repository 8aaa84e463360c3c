"""A RoBERTa that fairseq has trained, as a published folder: `tfm.load` reads it, and plain
`from_pretrained`.

    .venv/bin/python scripts/convert_fairseq.py checkpoint.pt dict.txt folder

fairseq keeps what it was run with beside the tensors, under names of its own. PyTorch reads the
file, and nothing in it is run. The words of `dict.txt` are written to `vocab.txt`, a line an id.
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
#: fairseq's names, without what stands before them.
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
_BEFORE = ('encoder.', 'decoder.', 'sentence_encoder.')


def main(checkpoint: Path, words: Path, folder: Path) -> None:
  """Writes the folder.

  Raises: UserError for what is no RoBERTa of fairseq's.
  """
  arguments, arrays = read(checkpoint)
  vocabulary = vocabulary_of(words)
  spec = spec_of(Fields(arguments, str(checkpoint)), arrays, len(vocabulary))
  # One type of tokens, which says nothing: transformers knows no RoBERTa without.
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
  """(what fairseq was run with, its tensors by their names in the encoder)."""
  import torch

  with torch.serialization.safe_globals([argparse.Namespace]):
    found = torch.load(path, map_location='cpu', weights_only=True)
  if found.get('args') is None or 'model' not in found:
    raise errors.UserError(
      f'{path}: has no args and model. Expected a checkpoint of fairseq 0.10 or older.'
    )
  return vars(found['args']), {_bare(name): x.float().numpy() for name, x in found['model'].items()}


def _bare(name: str) -> str:
  for prefix in _BEFORE:
    name = name.removeprefix(prefix)
  return name


def vocabulary_of(path: Path) -> list[str]:
  """The words by their ids: fairseq puts four before those of the file, and the mask behind."""
  counted = [line.split()[0] for line in path.read_text('utf-8').splitlines() if line.strip()]
  return ['<s>', '<pad>', '</s>', '<unk>', *counted, '<mask>']


def spec_of(c: Fields, arrays: dict[str, np.ndarray], words: int) -> Model:
  """The spec that fairseq's arguments and the table of positions say."""
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
      f'{c.where}: embed_tokens is {list(table.shape)}, and the words are {words}. Expected the '
      'dict.txt it was made with.'
    )
  return spec


if __name__ == '__main__':
  if len(sys.argv) != 4:
    sys.exit(__doc__)
  try:
    main(*map(Path, sys.argv[1:]))
  except errors.UserError as error:
    sys.exit(f'convert_fairseq: {error}')
