"""What a source of text is, and how it becomes a corpus."""

from collections.abc import Iterable, Iterator, Sequence
import dataclasses
from pathlib import Path
from typing import Any

from tfm.core.errors import UserError
from tfm.core.registry import Part
from tfm.data.corpus import Corpus
from tfm.data.store import default_cache, open_store, write_store
from tfm.data.tokenizer import Bpe, Tokenizer


@dataclasses.dataclass(frozen=True)
class Data(Part):
  """Text, how it is cut into tokens, and the size of a batch: `length` tokens a row, `batch` rows over all devices.

  With `isolate` the documents of a row cannot see each other; without, rows are windows of all the text end to end.
  The tokens are kept in the folder `cache` (default: `$TFM_CACHE`, `$XDG_CACHE_HOME/tfm` or `~/.cache/tfm`).
  """

  tokenizer: Tokenizer = dataclasses.field(default_factory=Bpe)
  length: int = 256
  batch: int = 16
  isolate: bool = False
  cache: str = ''

  def documents(self, split: str) -> Iterator[str]:
    """The documents of 'train' or 'val', in an order that never changes."""
    raise NotImplementedError

  def streams(self, split: str) -> Iterator[Iterable[str]]:
    """The documents of a split, each in parts of its text, in order; for sources whose documents can be very large."""
    return ([text] for text in self.documents(split))

  def identity(self) -> dict[str, Any]:
    """JSON that changes whenever `documents` would."""
    raise NotImplementedError

  def separated(self) -> bool:
    """Whether there is more than one document, so that an end-of-text token must part them."""
    return True

  def total_bytes(self) -> int | None:
    """About how many bytes of text there are, if that is cheap to know."""
    return None

  def open(self, window: int, overlap: int = 0, specials: Sequence[str] = ()) -> Corpus:
    """The corpus in rows of `window` tokens, its vocabulary with the `specials` a task asked for.

    *Cost:* reads and tokenises all of the text the first time; later it maps files into memory. The memory this takes
    does not grow with the size of a document.
    """

    def write(folder: Path) -> None:
      vocabulary = self.tokenizer.learn(self.streams, self.total_bytes())
      write_store(folder, vocabulary, self.streams, self.separated(), self.total_bytes())

    identity = {'source': self.identity(), 'tokenizer': self.tokenizer.identity(), 'separated': self.separated()}
    store = open_store(Path(self.cache).expanduser() if self.cache else default_cache(), identity, write)
    if 'train' not in store.splits:
      raise UserError(f'data: {type(self).__name__.lower()} gave no text to train on.')
    vocabulary = store.vocabulary.with_specials(specials)
    return Corpus(store, vocabulary, window, overlap, batch=self.batch, isolate=self.isolate)

  def check(self) -> Iterator[str]:
    for name in ('length', 'batch'):
      if (value := getattr(self, name)) < 1:
        yield f'{name}: is {value}. At least 1 was wanted.'
