"""Model specs that earlier versions stored as JSON in checkpoints."""

from typing import Any

#: Fields of an earlier `Encoder` that are fields of a tower.
_ENCODER = ('segments', 'absolute', 'norm', 'shared_relative', 'residual', 'd_model')


def model(stored: dict[str, Any]) -> dict[str, Any]:
  """Return the stored fields of a model under the names of this version.

  In earlier versions `vocab`, `head`, `classifier` and `encoder` were fields of the model, and
  `embed` had no kinds. Fields of this version are returned unchanged.
  """
  if 'vocab' not in stored:
    return stored
  new = dict(stored)
  embed = _tokens(new.pop('embed', {}), new.pop('vocab'))
  head = new.pop('head', {})
  classifier = new.pop('classifier', None)
  encoder = new.pop('encoder', None)
  heads: dict[str, Any] = {}
  if head is not None:
    heads['lm'] = {'part': 'lm', **head}
  if classifier is not None:
    heads['classify'] = {'part': 'classify', **classifier}
  towers = {} if encoder is None else {'encoder': _encoder(encoder, embed)}
  return new | {'embed': embed, 'heads': heads, 'towers': towers}


def _tokens(embed: dict[str, Any], vocab: int | None) -> dict[str, Any]:
  return {'part': 'tokens', **embed, 'vocab': vocab}


def _encoder(encoder: dict[str, Any], embed: dict[str, Any]) -> dict[str, Any]:
  own, vocab = encoder.get('embed'), encoder.get('vocab')
  tower = {name: encoder[name] for name in _ENCODER if name in encoder}
  if own is not None:
    return tower | {'embed': _tokens(own, vocab)}
  return tower | {'embed': None if vocab is None else {**embed, 'vocab': vocab}}
