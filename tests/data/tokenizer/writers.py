"""Write small published folders, with tokenizers trained here."""

import json

from tests.data.tokenizer.trained import byte_pairs, sentences, word_pieces


def write(folder, config=None, model_type=None, **files):
  """Write files (a name with `__` for its dot) and the two configs."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, content in files.items():
    path = folder / name.replace('__', '.')
    if isinstance(content, bytes):
      path.write_bytes(content)
    else:
      path.write_text(content if isinstance(content, str) else json.dumps(content), 'utf-8')
  if config is not None:
    (folder / 'tokenizer_config.json').write_text(json.dumps(config))
  if model_type is not None:
    (folder / 'config.json').write_text(json.dumps({'model_type': model_type}))


def pairs_files(vocab, merges, header=True):
  """Return `vocab.json` and `merges.txt`."""
  lines = ['#version: 0.2'] if header else []
  return {
    'vocab__json': vocab,
    'merges__txt': '\n'.join([*lines, *(' '.join(m) for m in merges)]) + '\n',
  }


BART = ('<s>', '<pad>', '</s>', '<unk>', '<mask>')
BERT = ('[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]')
END = '<|endoftext|>'
_UNIGRAM_3 = {'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1}


def special_entry(content, **flags):
  base = {
    'lstrip': False,
    'normalized': False,
    'rstrip': False,
    'single_word': False,
    'special': True,
  }
  return {'content': content, **base, **flags}


def bytes_folder(name, kind, special, config=None, **model):
  def make(folder):
    vocab, merges = byte_pairs(*special)
    write(
      folder,
      {'tokenizer_class': name, **(config or {})},
      kind,
      **pairs_files(vocab, merges),
      **model,
    )

  return make


def words_folder(name, kind, special=BERT, config=None, lower=True):
  def make(folder):
    text = '\n'.join(word_pieces(*special, lower=lower)) + '\n'
    write(
      folder,
      None if name is None else {'tokenizer_class': name, **(config or {})},
      kind,
      vocab__txt=text,
    )

  return make


def spm_folder(name, kind, file, model='unigram', config=None, more=None, **options):
  def make(folder):
    content = {'tokenizer_class': name, **(config or {})}
    write(folder, content, kind, **{file: sentences(model, **options)}, **(more or {}))

  return make
