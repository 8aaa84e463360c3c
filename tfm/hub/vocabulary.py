"""The tokenizer of a published folder."""

from tfm.data.tokenizer.published import read_tokenizer as find_vocabulary

__all__ = ['find_vocabulary']
