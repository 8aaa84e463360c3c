"""Show a config, the cost of its model, and the available parts and models.

Examples:
  tfm show --config=shakespeare_char --config.model..relative=alibi
  tfm show --config=pretrain:gpt2 --diff=pretrain:llama3-8b
  tfm show --checkpoint=Llama-3.2-1B-Instruct
  tfm show --zoo qwen 7b
  tfm show --parts rope"""

from collections.abc import Iterator, Sequence
import json
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from tfm.cli import flags as command
from tfm.core import config, errors

if TYPE_CHECKING:
  from tfm.cli.sheets import Sheet

FLAGS = command.new('WORD')
FLAGS.group('A config')
CONFIG = command.define_config(FLAGS)
ALL = flags.DEFINE_bool(
  'all', False, 'also every value of the config, and its source', flag_values=FLAGS
)
WHY = flags.DEFINE_string(
  'why', None, 'only the values at this path; .. and * match', flag_values=FLAGS
)
DIFF = command.define_config(FLAGS, 'diff')
JSON = flags.DEFINE_bool('json', False, 'only the config, as JSON', flag_values=FLAGS)
FLAGS.group('A checkpoint')
CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'a --workdir or a published folder; reads no weights', flag_values=FLAGS
)
IGNORED = command.define_ignored(FLAGS)
FLAGS.group('Lists; words filter them')
ZOO = flags.DEFINE_bool('zoo', False, 'the published models', flag_values=FLAGS)
PARTS = flags.DEFINE_bool('parts', False, 'the parts and their fields', flag_values=FLAGS)
REFUSED = flags.DEFINE_bool(
  'refused', False, 'parts that cannot be combined, and why', flag_values=FLAGS
)
FLAGS.group('Format')
CACHE = flags.DEFINE_string(
  'cache', 'dense', 'the kind of cache, for its memory', flag_values=FLAGS
)
MARKDOWN = flags.DEFINE_bool('markdown', False, 'print tables as Markdown', flag_values=FLAGS)


def main() -> int:
  """Print the tables that the flags select; return 2 for a config with mistakes."""
  selected = {
    'checkpoint': CHECKPOINT.value,
    'why': WHY.value,
    'diff': DIFF.file or DIFF.settings,
    'json': JSON.value,
    'zoo': ZOO.value,
    'parts': PARTS.value,
    'refused': REFUSED.value,
  }
  names = [name for name, value in selected.items() if value]
  _check(names)
  from tfm.cli import sheets

  if names and names[0] in ('zoo', 'parts', 'refused'):
    sheets.show(_filtered(names[0], FLAGS.words), MARKDOWN.value)
  elif CHECKPOINT.value:
    from tfm.cli import folder

    sheets.show(folder.sheets(CHECKPOINT.value, _cache(), IGNORED.value), MARKDOWN.value)
  elif JSON.value:
    print(json.dumps(config.to_json(CONFIG.resolve().config), indent=2))
  elif DIFF.file or DIFF.settings:
    lines = config.diff(CONFIG.resolve().config, DIFF.resolve().config)
    print('\n'.join(lines) or 'no difference')
  else:
    return _show_config()
  return 0


def _check(names: Sequence[str]) -> None:
  """Raise a UserError for flags that exclude each other."""
  alone = [name for name in names if name in ('diff', 'json')]
  if len(names) > 1 or (alone and MARKDOWN.value):
    second = [*names, 'markdown'][1]
    raise errors.UserError(f'--{names[0]}: cannot be combined with --{second}. Expected only one.')
  if CHECKPOINT.value and (CONFIG.file or CONFIG.settings):
    raise errors.UserError('--checkpoint: cannot be combined with --config. Expected only one.')
  if FLAGS.words and not {'zoo', 'parts', 'refused'} & set(names):
    raise errors.UserError(
      f'{FLAGS.words[0]}: is not a flag. Expected --name=value, or --zoo, --parts or --refused '
      'before words that filter the list.'
    )


def _show_config() -> int:
  """Print a config and its cost; a config with mistakes as far as they allow, and the mistakes."""
  from tfm.cli import sheets

  resolved = CONFIG.resolve(check=lambda cfg: ())
  mistakes = config.violations(resolved.config)
  values = config.explain(resolved, WHY.value or '')
  if not (ALL.value or WHY.value):
    values = [v for v in values if 'flag ' in v.source and not v.source.startswith('default')]
  rows = tuple((v.path, v.text, v.source) for v in values)
  if WHY.value or any(mistake.startswith(('model', 'precision')) for mistake in mistakes):
    shown = []
  else:
    shown = list(_model(resolved.config, whole=not mistakes))
  if rows or not shown:
    title = 'config' if ALL.value or WHY.value else 'set by flags'
    shown.append(sheets.Sheet(title, ('path', 'value', 'from'), rows))
  sheets.show(shown, MARKDOWN.value)
  if not (ALL.value or WHY.value or MARKDOWN.value):
    print('--all lists every value of the config.')
  if mistakes:
    sys.stdout.flush()
    raise errors.ConfigError('\n'.join(mistakes))
  return 0


def _filtered(name: str, words: Sequence[str]) -> list['Sheet']:
  """Return the sheets of a list, with the rows that contain all words.

  Raises:
    UserError: no row does.
  """
  from tfm.cli import catalog, refusals

  if name == 'zoo':
    sheets = [catalog.zoo()]
  elif name == 'parts':
    sheets = catalog.parts()
  else:
    sheets = [refusals.sheet()]
  for columns in (1, None):  # names before descriptions
    found = [sheet.containing(words, columns) for sheet in sheets]
    found = [sheet for sheet in found if sheet.rows]
    if found:
      break
  else:
    listed = {row[0] for sheet in sheets for row in sheet.rows}
    raise errors.UserError(f'--{name}: {errors.unknown("words", " ".join(words), listed)}')
  return found


def _cache() -> Any:
  from tfm.parts.cache import Cache

  return config.parse(Cache, CACHE.value, '--cache')


def _model(cfg: Any, whole: bool) -> Iterator['Sheet']:
  """Yield the cost and the layers of a config's model; nothing without a model.

  With `whole` also the training state and the kernels, for which the whole config must be valid.
  """
  from tfm.cli import layers
  from tfm.model.spec import Model

  spec = cfg if isinstance(cfg, Model) else getattr(cfg, 'model', None)
  if not isinstance(spec, Model):
    return
  data, precision = getattr(cfg, 'data', None), getattr(cfg, 'precision', None)
  dtype = getattr(precision, 'compute', 'bfloat16')
  yield from layers.sheets(spec, getattr(data, 'length', None), dtype, _cache())
  if whole and hasattr(cfg, 'optim') and hasattr(cfg, 'run'):
    yield from layers.training_state(cfg)
  if whole and hasattr(cfg, 'run'):
    yield from layers.kernels(cfg)
