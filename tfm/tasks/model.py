"""The properties of a model that tasks read."""

from collections.abc import Set
from typing import Protocol


class ClassifierHead(Protocol):
  """The head `classify` of a model.

  Attributes:
    labels: The number of classes.
    pick: Which hidden state is classified; 'each' classifies every token.
  """

  @property
  def labels(self) -> int: ...

  @property
  def pick(self) -> str: ...


class TaskModel(Protocol):
  """A model as tasks check it. `tfm.model.spec.Model` has these properties.

  Attributes:
    embed: The input layer.
    vocab: The number of rows of the token table, 0 without one.
    lm: The language-model head, or None.
    classifier: The head `classify`, or None.
    encoder: The encoder tower, or None.
    mtp: The multi-token-prediction module, or None.
    returns: The names of the outputs of all heads.
    causal: Whether no output depends on later tokens.
    ahead: Whether outputs may depend on later tokens outside a prefix.
    masked: Whether attention masks alone decide which tokens an output depends on.
  """

  @property
  def embed(self) -> object: ...

  @property
  def vocab(self) -> int: ...

  @property
  def lm(self) -> object: ...

  @property
  def classifier(self) -> ClassifierHead | None: ...

  @property
  def encoder(self) -> object: ...

  @property
  def mtp(self) -> object: ...

  @property
  def returns(self) -> Set[str]: ...

  @property
  def causal(self) -> bool: ...

  @property
  def ahead(self) -> bool: ...

  @property
  def masked(self) -> bool: ...
