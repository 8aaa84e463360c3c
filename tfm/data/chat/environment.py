"""Sandboxed Jinja environment for chat templates, with the filters and tags they use."""

from datetime import datetime
import json
from typing import Any, NoReturn

#: Characters around a generated part: noncharacters of Unicode, which no text should have.
START, END = '\ufdd0', '\ufdd1'


def compile_template(template: str, marks: bool = False) -> Any:
  """Compile a chat template.

  Args:
    template: The Jinja template.
    marks: Whether `{% generation %}` writes `START` and `END` around its body.

  Raises:
    jinja2.TemplateSyntaxError: The text is not a valid template.
  """
  import jinja2
  from jinja2 import ext, nodes, sandbox, utils

  class Generation(ext.Extension):
    """The tag `{% generation %}` around the model's turns, which renders its body."""

    tags = {'generation'}

    def parse(self, parser: Any) -> Any:
      line = next(parser.stream).lineno
      body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
      return nodes.CallBlock(self.call_method('_body'), [], [], body).set_lineno(line)

    def _body(self, caller: Any) -> str:
      return f'{START}{caller()}{END}' if marks else caller()

  class Namespace(utils.Namespace):
    """A namespace that rejects attributes with a leading underscore, for the sandbox."""

    def __init__(*args: Any, **values: Any):
      self, args = args[0], args[1:]
      found = dict(*args, **values)
      for name in found:
        _refuse_hidden(name)
      utils.Namespace.__init__(self, found)

    def __setitem__(self, name: str, value: Any) -> None:
      _refuse_hidden(name)
      super().__setitem__(name, value)

  def _refuse_hidden(name: Any) -> None:
    if isinstance(name, str) and name.startswith('_'):
      raise jinja2.exceptions.SecurityError(f'a namespace may not have the attribute {name!r}.')

  def raise_exception(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)

  environment = sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols]
  )
  environment.filters['tojson'] = _to_json
  environment.globals |= {
    'raise_exception': raise_exception,
    'strftime_now': lambda form: datetime.now().strftime(form),
    'dict': _Dict(),
    'namespace': Namespace,
  }
  return environment.from_string(template)


class _Dict:
  """A callable like `dict` that does not expose the class."""

  def __call__(self, *args: Any, **values: Any) -> dict[Any, Any]:
    return dict(*args, **values)

  def fromkeys(self, *args: Any) -> dict[Any, Any]:
    return dict.fromkeys(*args)


def _to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: Any = None,
  separators: Any = None,
  sort_keys: bool = False,
) -> str:
  """Return a value as JSON. Unlike Jinja's built-in filter it does not escape HTML."""
  return json.dumps(
    value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
  )
