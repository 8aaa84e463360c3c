"""Show a config as it will run, and where each value came from; a model, its parts and its cost.

tfm show --config=shakespeare_char --config.model..relative=alibi
tfm show --config=shakespeare_char --why=model..heads
tfm show --config=pretrain:gpt2 --diff=pretrain:llama3-8b
tfm show --checkpoint=Llama-3.2-1B-Instruct
tfm show --zoo
tfm show --parts --markdown
tfm show --refused
"""

from collections.abc import Iterator
import json
from typing import Any

from absl import flags

from tfm.cli import flags as command
from tfm.core import config, errors

FLAGS = command.new()
CONFIG = command.define_config(FLAGS)
CHECKPOINT = flags.DEFINE_string(
  'checkpoint',
  None,
  'The model of a training run or a published folder. Its weights are not read.',
  flag_values=FLAGS,
)
IGNORED = command.define_ignored(FLAGS)
DIFF = command.define_config(FLAGS, 'diff')
WHY = flags.DEFINE_string(
  'why', None, 'Only the values at this path, which may have .. and *.', flag_values=FLAGS
)
CACHE = flags.DEFINE_string(
  'cache', 'dense', 'How tokens are kept while decoding.', flag_values=FLAGS
)
JSON = flags.DEFINE_bool('json', False, 'Only the resolved config, as JSON.', flag_values=FLAGS)
ZOO = flags.DEFINE_bool('zoo', False, 'The published models.', flag_values=FLAGS)
PARTS = flags.DEFINE_bool(
  'parts', False, 'The parts of every kind, with their fields.', flag_values=FLAGS
)
REFUSED = flags.DEFINE_bool(
  'refused', False, 'Parts that do not go together, and why.', flag_values=FLAGS
)
MARKDOWN = flags.DEFINE_bool('markdown', False, 'Tables as Markdown.', flag_values=FLAGS)


def main() -> None:
  """Print the sheets that the flags ask for."""
  answers = {
    'checkpoint': CHECKPOINT.value, 'why': WHY.value, 'diff': DIFF.file or DIFF.settings,
    'json': JSON.value,
    'zoo': ZOO.value, 'parts': PARTS.value, 'refused': REFUSED.value,
  }  # fmt: skip
  asked = [name for name, value in answers.items() if value]
  plain = [name for name in asked if name in ('diff', 'json')]
  if len(asked) > 1 or (plain and MARKDOWN.value):
    raise errors.UserError(
      f'--{asked[0]} and --{[*asked, "markdown"][1]}: are two answers. Expected one of them.'
    )
  from tfm.cli import catalog, refusals, sheets
  from tfm.parts.cache import Cache

  tables = {
    'zoo': lambda: [catalog.zoo()],
    'parts': catalog.parts,
    'refused': lambda: [refusals.sheet()],
  }
  for name in asked:
    if name in tables:
      sheets.show(tables[name](), MARKDOWN.value)
      return
  if CHECKPOINT.value:
    from tfm.cli import folder

    if CONFIG.file or CONFIG.settings:
      raise errors.UserError('--checkpoint and --config: are two answers. Expected one of them.')
    kind = config.parse(Cache, CACHE.value, '--cache')
    sheets.show(folder.sheets(CHECKPOINT.value, kind, IGNORED.value), MARKDOWN.value)
    return
  resolved = CONFIG.resolve()
  if JSON.value:
    print(json.dumps(config.to_json(resolved.config), indent=2))
  elif 'diff' in asked:
    print('\n'.join(config.diff(resolved.config, DIFF.resolve().config)) or 'no difference')
  else:
    values = tuple((v.path, v.text, v.source) for v in config.explain(resolved, WHY.value or ''))
    about = [] if WHY.value else list(_model(resolved.config))
    sheets.show([sheets.Sheet('config', ('path', 'value', 'from'), values), *about], MARKDOWN.value)


def _model(cfg: Any) -> Iterator[Any]:
  """What the config's model costs, and its layers; nothing if it has none."""
  from tfm.cli import layers
  from tfm.model.spec import Model
  from tfm.parts.cache import Cache

  spec = cfg if isinstance(cfg, Model) else getattr(cfg, 'model', None)
  if isinstance(spec, Model):
    data, precision = getattr(cfg, 'data', None), getattr(cfg, 'precision', None)
    yield from layers.kernels(cfg) if hasattr(cfg, 'run') else ()
    kind = config.parse(Cache, CACHE.value, '--cache')
    yield from layers.sheets(
      spec, getattr(data, 'length', None), getattr(precision, 'compute', 'bfloat16'), kind
    )
