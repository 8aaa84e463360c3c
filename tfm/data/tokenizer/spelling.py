"""The spellings of special tokens."""

#: The usual spellings of special tokens by name. A new token gets the first one.
NAMES = {
  'eos': ('<|endoftext|>', '</s>', '<|end_of_text|>', '<eos>', '[SEP]'),
  'pad': ('<|pad|>', '<pad>', '[PAD]'),
  'cls': ('<|cls|>', '[CLS]', '<s>', '<cls>', '<bos>'),
  'mask': ('<|mask|>', '<mask>', '[MASK]'),
  'im_start': ('<|im_start|>',),
  'im_end': ('<|im_end|>',),
  'fim_prefix': ('<|fim_prefix|>', '<fim_prefix>', '▁<PRE>', '<｜fim▁begin｜>'),
  'fim_suffix': ('<|fim_suffix|>', '<fim_suffix>', '▁<SUF>', '<｜fim▁hole｜>'),
  'fim_middle': ('<|fim_middle|>', '<fim_middle>', '▁<MID>', '<｜fim▁end｜>'),
  'nlu': ('[NLU]',),
  's2s': ('[S2S]',),
  'nlg': ('[NLG]',),
}


def spellings(name: str) -> tuple[str, ...]:
  """Return the usual spellings of a special token. A sentinel has that of T5."""
  return NAMES.get(name) or (f'<extra_id_{name.removeprefix("sentinel_")}>',)
