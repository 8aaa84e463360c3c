"""Compare the tokenizer of a folder with `transformers`."""

import warnings

from tests.data.tokenizer.strings import STRINGS
from tfm.data.tokenizer.published import read_tokenizer

_NAMES = ('bos', 'eos', 'unk', 'sep', 'pad', 'cls', 'mask')


def theirs(folder, **settings):
  """Return the tokenizer that `transformers` reads in a folder."""
  import transformers

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    return transformers.AutoTokenizer.from_pretrained(
      str(folder), local_files_only=True, **settings
    )


def assert_equal(folder):
  """Compare ids with and without the frame, their text, and special tokens.

  Returns:
    The tokenizer of `transformers`.
  """
  expected, ours = theirs(folder), read_tokenizer(folder)
  for text in STRINGS:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      framed, bare = (
        expected(text)['input_ids'],
        expected(text, add_special_tokens=False)['input_ids'],
      )
    assert ours.prompt(text).tolist() == framed, text
    assert ours.prompt(text, framed=False).tolist() == bare, text
    assert ours.decode(framed) == expected.decode(framed, skip_special_tokens=True), text
  numbers = {name: getattr(expected, f'{name}_token_id') for name in _NAMES}
  assert {n: i for n, i in numbers.items() if i is not None}.items() <= ours.specials.items()
  assert ours.size >= len(expected)
  return expected
