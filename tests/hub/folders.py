"""Published folders and tokenizers for tests."""

import dataclasses
import json

import jax
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tfm import hub, zoo
from tfm.model.transformer import init

CHAT = (
  '{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}'
  '{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}'
)


def byte_level(
  words=('the cat sat on the mat',),
  specials=('<|endoftext|>', '<|im_start|>', '<|im_end|>'),
  vocab=290,
):
  """Return a small byte-level BPE tokenizer.

  Args:
    words: The training texts.
    specials: The special tokens.
    vocab: The size of the vocabulary without special tokens.

  Returns:
    The tokenizer.
  """
  inner = Tokenizer(models.BPE())
  inner.pre_tokenizer, inner.decoder = (
    pre_tokenizers.ByteLevel(add_prefix_space=False),
    decoders.ByteLevel(),
  )
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  inner.train_from_iterator(words, trainers.BpeTrainer(vocab_size=vocab, initial_alphabet=alphabet))
  inner.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
  return inner


def with_vocab(spec, vocab):
  """Return a spec with a vocabulary of another size."""
  return dataclasses.replace(spec, embed=dataclasses.replace(spec.embed, vocab=vocab))


def chat_folder(folder):
  """Write a published folder of a tiny Qwen2 with all files that inference needs."""
  inner = byte_level()
  spec = with_vocab(zoo.tiny(zoo.get('qwen2.5-1.5b')), inner.get_vocab_size())
  hub.export_hf(spec, init(spec, jax.random.key(0)), folder)
  inner.save(str(folder / 'tokenizer.json'))
  config = json.loads((folder / 'config.json').read_text())
  config |= {'max_position_embeddings': 4096, 'eos_token_id': inner.token_to_id('<|im_end|>')}
  files = {
    'config.json': config,
    'tokenizer_config.json': {
      'tokenizer_class': 'Qwen2Tokenizer', 'eos_token': '<|im_end|>', 'pad_token': '<|endoftext|>',
      'chat_template': CHAT, 'model_max_length': 4096,
    },
    'generation_config.json': {
      'eos_token_id': [inner.token_to_id('<|im_end|>')], 'do_sample': True, 'temperature': 0.7,
      'top_p': 0.8,
    },
    'modules.json': [{'idx': 0, 'path': '1_Pooling'}],
    '1_Pooling/config.json': {'pooling_mode_mean_tokens': True},
  }  # fmt: skip
  for name, content in files.items():
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content, indent=3))
  (folder / 'chat_template.jinja').write_text(CHAT)
  (folder / 'additional_chat_templates').mkdir()
  (folder / 'additional_chat_templates' / 'rag.jinja').write_bytes(b'{{ 1 }}\r\n')
  (folder / 'README.md').write_text('# A model card\n')
  (folder / 'notes.py').write_text('print()')
  return folder
