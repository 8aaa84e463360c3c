"""A loaded model: spec, parameters, tokenizer, and the other files of its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.hub.files import FolderFiles
from tfm.model.spec import Model
from tfm.train.experiment import Experiment

if TYPE_CHECKING:
  from tfm.data.chat import ChatTemplate
  from tfm.data.processors.processor import Processor
  from tfm.generate.prompts import Prompts

#: The default `max_new_tokens` of `Loaded.chat`.
REPLY = 512


class Loaded(NamedTuple):
  """A model with its parameters, its tokenizer and the other files of its folder.

  Attributes:
    spec: The architecture.
    params: The parameters, None from `describe`.
    tokenizer: The tokenizer, None if the folder has none.
    experiment: The experiment of a model that tfm trained, else None.
    step: The number of training steps of a model that tfm trained, else 0.
    files: The config, tokenizer and settings files, which `export_hf` and `save` write back.

  Example:
    m = tfm.load('Qwen2.5-0.5B-Instruct')
    m.apply(input_ids=ids)['logits']
    m.generate(['The capital of France is'])
    m.chat([{'role': 'user', 'content': 'What is the capital of France?'}])
  """

  spec: Model
  params: Any
  tokenizer: Vocabulary | None = None
  experiment: Experiment | None = None
  step: int = 0
  files: FolderFiles = FolderFiles({})

  def __repr__(self) -> str:
    from tfm.model.count import count_params

    tokens = 'none' if self.tokenizer is None else f'{self.tokenizer.size:,} tokens'
    names = ', '.join(self.files) or 'none'
    return f'Loaded(parameters: {count_params(self.spec):,}, tokenizer: {tokens}, files: {names})'

  @property
  def processor(self) -> 'Processor | None':
    """The image or audio processor (see `tfm.data.processors`), None if there is none.

    Raises:
      ConfigError: The folder names an unsupported processor class.
    """
    return self.files.processor()

  @property
  def chat_template(self) -> 'ChatTemplate | None':
    """The chat template (`tfm.data.chat.ChatTemplate`), None if the folder has none."""
    return self.files.chat_template()

  def settings(
    self, *, language: str | None = None, task: str | None = None, ignore: Sequence[str] = ()
  ) -> dict[str, Any]:
    """Return the options of `tfm.generate` that the folder's files set.

    Args:
      language: The language of a multilingual speech model, such as 'en'.
      task: The task of such a model, 'transcribe' or 'translate'.
      ignore: Names of unsupported settings to ignore.

    Returns:
      Keyword arguments of `tfm.generate` (see `tfm.hub.generation`).

    Raises:
      UserError: The files have a setting that tfm does not support.
    """
    from tfm.hub.generation import generation_settings

    return generation_settings(
      self.files, self.spec, self.tokenizer, language=language, task=task, ignore=ignore
    )

  def apply(self, **inputs: Any) -> dict[str, Any]:
    """Return the outputs of the model by name, as `tfm.apply` does.

    Example:
      m.apply(input_ids=ids, attention_mask=mask)['last_hidden_state']
    """
    from tfm.model.transformer import apply

    return apply(self.spec, self.params, **inputs)

  def generate(
    self,
    prompts: 'Prompts',
    *,
    language: str | None = None,
    task: str | None = None,
    ignore: Sequence[str] = (),
    **options: Any,
  ) -> Any:
    """Continue prompts with `tfm.generate`, using the folder's tokenizer and settings.

    Args:
      prompts: Texts, lists of token ids, or encoder inputs by name, such as the output of
        `m.processor`.
      language: The language of a multilingual speech model, such as 'en'.
      task: The task of such a model, 'transcribe' or 'translate'.
      ignore: Names of unsupported settings of the folder to ignore.
      **options: Options of `tfm.generate`. They override the folder's settings.

    Returns:
      The texts, or lists of token ids if the prompts are token ids.

    Raises:
      UserError: A prompt, option or setting is invalid.
    """
    from tfm.generate import generate

    merged = self.options(prompts, options, language=language, task=task, ignore=ignore)
    return generate(self.spec, self.params, prompts, **{'tokenizer': self.tokenizer, **merged})

  def options(
    self,
    prompts: 'Prompts',
    options: Mapping[str, Any],
    *,
    language: str | None = None,
    task: str | None = None,
    ignore: Sequence[str] = (),
  ) -> dict[str, Any]:
    """Return the options that `generate` passes to `tfm.generate`.

    Args:
      prompts: See `generate`. Their lengths limit the default number of new tokens.
      options: The options of the caller. They override the folder's settings.
      language: See `generate`.
      task: See `generate`.
      ignore: See `generate`.

    Returns:
      Keyword arguments of `tfm.generate`.

    Raises:
      UserError: A setting is not supported.
    """
    from tfm.hub.generation import length_limit, merge_options

    settings = self.settings(language=language, task=task, ignore=ignore)
    settings |= length_limit(self.files, self.spec, self.tokenizer, prompts, settings)
    return merge_options(settings, options)

  def chat_prompt(
    self,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    continue_final_message: bool = False,
    variables: Mapping[str, Any] | None = None,
  ) -> list[int]:
    """Return the token ids of a conversation in the folder's chat template.

    Args:
      messages: The conversation, such as `[{'role': 'user', 'content': 'Hello'}]`.
      tools: Functions that the model may call: JSON schemas, or Python functions with type hints
        and a Google docstring.
      continue_final_message: Whether the reply continues the last message. By default it starts a
        new message.
      variables: Further template variables, such as `{'enable_thinking': False}`.

    Returns:
      The token ids of the prompt.

    Raises:
      UserError: The folder has no tokenizer or chat template, or the template rejects the messages.
    """
    from tfm.data.chat import no_template

    template, where = self.chat_template, f'chat: {self.files.folder}'
    if self.tokenizer is None:
      raise errors.UserError(
        f'{where}: has no tokenizer. Expected tokenizer files, such as tokenizer.json.'
      )
    if template is None:
      raise no_template(where)
    text = template.render(
      messages,
      tools=tools,
      add_generation_prompt=not continue_final_message,
      continue_final_message=continue_final_message,
      **(variables or {}),
    )
    return self.tokenizer.prompt(text, framed=False).tolist()

  def chat(
    self,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    continue_final_message: bool = False,
    variables: Mapping[str, Any] | None = None,
    **options: Any,
  ) -> str:
    """Return the model's reply to a conversation.

    Generation stops at an end token of the settings or the tokenizer, or after `max_new_tokens`
    (default 512).

    Args:
      messages: The conversation, such as `[{'role': 'user', 'content': 'Hello'}]`.
      tools: See `chat_prompt`.
      continue_final_message: See `chat_prompt`.
      variables: See `chat_prompt`.
      **options: See `generate`.

    Returns:
      The text of the reply, without the end token.

    Raises:
      UserError: The folder has no tokenizer or chat template, or an option is invalid.
    """
    ids = self.chat_prompt(
      messages, tools=tools, continue_final_message=continue_final_message, variables=variables
    )
    (reply,) = self.generate([ids], **self.chat_options(ids, options))
    assert self.tokenizer is not None  # Checked by chat_prompt.
    ends = self._ends(options)
    new = [token for token in reply if token not in ends]
    if continue_final_message:
      return _continuation(self.tokenizer, ids, new)
    return self.tokenizer.decode(new)

  def chat_options(self, ids: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `generate` for the reply to a conversation.

    The defaults are the end tokens of a turn and 512 new tokens, or fewer if the position table is
    shorter.

    Args:
      ids: The token ids of the conversation.
      options: The options of the caller, which override the defaults.
    """
    limit, room = self.spec.max_positions, REPLY
    if limit is not None and self.spec.encoder is None:
      room = max(1, min(REPLY, limit - len(ids)))
    return {'eos': self._ends(options), 'max_new_tokens': room, **options}

  def _ends(self, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end a reply, from the options or the settings and tokenizer."""
    from tfm.generate.options import several

    if options.get('eos') is not None:
      return several(options['eos'])
    eos = None if self.tokenizer is None else self.tokenizer.eos
    return tuple(dict.fromkeys([*several(self.settings().get('eos')), *several(eos)]))

  def prepared(self, *, int8: bool = False) -> 'Loaded':
    """Return this model with its parameters prepared for decoding (see `tfm.generate.prepare`).

    Args:
      int8: Whether to quantize weights to 8 bits, which is faster and slightly changes the outputs.
    """
    from tfm.generate import prepare

    return self._replace(params=prepare(self.spec, self.params, int8=int8))

  def quantized(self, to: Any = 'int4') -> 'Loaded':
    """Return this model with quantized weights (see `tfm.quantize`).

    Args:
      to: A name in `tfm.parts.quantize`, such as 'int4' or 'int8', or a quantization with fields.
    """
    from tfm.model.quantized import quantize

    return self._replace(params=quantize(self.spec, self.params, to))

  def export_hf(self, path: str | Path, **options: Any) -> str:
    """Write the new folder `path` for Hugging Face transformers, with all files.

    See `tfm.export_hf` for the options, the return value and errors.
    """
    from tfm.hub.export import export_hf

    return export_hf(
      self.spec, self.params, path, tokenizer=self.tokenizer, files=self.files, **options
    )


def _continuation(tokenizer: Vocabulary, before: list[int], new: list[int]) -> str:
  """Return the text of `new` ids that continue `before`.

  Decoding both keeps a leading space, which some tokenizers strip from the start of a text.
  """
  return tokenizer.decode([*before, *new])[len(tokenizer.decode(before)) :]
