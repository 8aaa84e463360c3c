"""Specs that earlier versions stored as JSON in checkpoints, in the fields of this one."""

from typing import Any

#: Fields of an earlier `Encoder` that are fields of a tower.
_ENCODER = ('segments', 'absolute', 'norm', 'shared_relative', 'residual', 'd_model')


def model(stored: dict[str, Any]) -> dict[str, Any]:
  """Return the stored fields of a model as this version names them; unchanged if it was this
  version.

  Before, `vocab`, `head`, `classifier` and `encoder` were fields of the model, and `embed` had no
  kinds."""
  if 'vocab' not in stored:
    return stored
  new = dict(stored)
  embed = _tokens(new.pop('embed', {}), new.pop('vocab'))
  head, classifier, encoder = (
    new.pop('head', {}),
    new.pop('classifier', None),
    new.pop('encoder', None),
  )
  heads = {'lm': None if head is None else {'part': 'lm', **head}}
  heads |= {'classify': None if classifier is None else {'part': 'classify', **classifier}}
  new |= {'embed': embed, 'heads': {name: h for name, h in heads.items() if h is not None}}
  return new | {'towers': {} if encoder is None else {'encoder': _encoder(encoder, embed)}}


def _tokens(embed: dict[str, Any], vocab: int | None) -> dict[str, Any]:
  return {'part': 'tokens', **embed, 'vocab': vocab}


def _encoder(encoder: dict[str, Any], embed: dict[str, Any]) -> dict[str, Any]:
  own, vocab = encoder.get('embed'), encoder.get('vocab')
  tower = {name: encoder[name] for name in _ENCODER if name in encoder}
  if own is not None:
    return tower | {'embed': _tokens(own, vocab)}
  return tower | {'embed': None if vocab is None else {**embed, 'vocab': vocab}}
