"""A loaded model with everything that stands beside its weights."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfm.core import errors
from tfm.data.tokenizer import Vocabulary
from tfm.hub.files import FolderFiles
from tfm.model.spec import Model
from tfm.train.experiment import Experiment

#: The default of `max_new_tokens` of a reply.
REPLY = 512


class Loaded(NamedTuple):
  """A model, its parameters, its tokenizer and the files beside its weights.

  Attributes:
    spec: The architecture.
    params: The parameters.
    tokenizer: The tokenizer, None if the folder has none.
    experiment: The experiment of a model that tfm trained.
    step: The number of training steps of such a model.
    files: The files beside the weights, as `export_hf` and `save` write them again.

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
  def processor(self) -> Any:
    """The processor of images or audio (`tfm.data.processors`), None if the folder configures none.

    Raises:
      ConfigError: the folder names a class that tfm lacks.
    """
    return self.files.processor()

  @property
  def chat_template(self) -> Any:
    """The chat template (`tfm.hub.chat.ChatTemplate`), None if the folder has none."""
    from tfm.hub.chat import ChatTemplate

    return ChatTemplate.of_files(self.files)

  def settings(
    self, *, language: str | None = None, task: str | None = None, ignore: Sequence[str] = ()
  ) -> dict[str, Any]:
    """Return the options of `tfm.generate` that the folder's files ask for (see
    `tfm.hub.generation`).

    Args:
      language: The language of a multilingual speech model, such as 'en'.
      task: The task of such a model, 'transcribe' or 'translate'.
      ignore: Names of settings that tfm does not support, to go on without them.

    Raises:
      UserError: the files ask for something that tfm does not support.
    """
    from tfm.hub.generation import generation_settings

    return generation_settings(
      self.files, self.spec, self.tokenizer, language=language, task=task, ignore=ignore
    )

  def apply(self, **inputs: Any) -> dict[str, Any]:
    """Return the outputs of the model: `tfm.apply` of its spec and parameters.

    Example:
      m.apply(input_ids=ids, attention_mask=mask)['last_hidden_state']
    """
    from tfm.model.transformer import apply

    return apply(self.spec, self.params, **inputs)

  def generate(
    self,
    prompts: Any,
    *,
    language: str | None = None,
    task: str | None = None,
    ignore: Sequence[str] = (),
    **options: Any,
  ) -> Any:
    """Continue prompts with the folder's own tokenizer and settings: `tfm.generate`, as the folder
    wants it.

    Args:
      prompts: Texts, lists of token ids, or the inputs of an encoder by name, such as `m.processor`
      returns.
      language: The language of a multilingual speech model, such as 'en'.
      task: The task of such a model, 'transcribe' or 'translate'.
      ignore: Names of settings of the folder that tfm does not support, to go on without them.
      **options: Options of `tfm.generate`. They replace the folder's settings.

    Returns:
      As `tfm.generate`: texts, or lists of token ids where the prompts are token ids.

    Raises:
      UserError: a prompt, option or setting cannot be used.
    """
    from tfm.generate import generate

    given = self.options(prompts, options, language=language, task=task, ignore=ignore)
    return generate(self.spec, self.params, prompts, **{'tokenizer': self.tokenizer, **given})

  def options(
    self,
    prompts: Any,
    options: Mapping[str, Any],
    *,
    language: str | None = None,
    task: str | None = None,
    ignore: Sequence[str] = (),
  ) -> dict[str, Any]:
    """Return the options of `tfm.generate` for some prompts: the folder's settings, replaced by
    `options`.

    Args and Raises: see `generate`.
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
    """Return the token ids of a conversation, with the folder's chat template.

    Args:
      messages: The conversation, such as `[{'role': 'user', 'content': 'Hello'}]`.
      tools: JSON schemas of functions that the model may call.
      continue_final_message: Whether the reply continues the last message. By default it is a
      message of its own.
      variables: Further variables of the template, such as `{'enable_thinking': False}`.

    Raises:
      UserError: there is no tokenizer or template, or the template refuses the messages.
    """
    from tfm.hub.chat import no_template

    template, where = self.chat_template, f'chat: {self.files.folder}'
    if self.tokenizer is None:
      raise errors.UserError(
        f'{where}: has no tokenizer. Expected the files of one, such as a tokenizer.json.'
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
    """Return the reply to a conversation.

    The reply ends with an end token of the folder or of its tokenizer, or after `max_new_tokens`
    (512).

    Args:
      messages: The conversation, such as `[{'role': 'user', 'content': 'Hello'}]`.
      tools: See `chat_prompt`.
      continue_final_message: See `chat_prompt`.
      variables: See `chat_prompt`.
      **options: As for `generate`.

    Raises:
      UserError: there is no tokenizer or template, or a setting or option cannot be used.
    """
    ids = self.chat_prompt(
      messages, tools=tools, continue_final_message=continue_final_message, variables=variables
    )
    (reply,) = self.generate([ids], **self.chat_options(ids, options))
    assert self.tokenizer is not None  # or chat_prompt has raised
    new = [token for token in reply if token not in self._ends(options)]
    return (
      _continuation(self.tokenizer, ids, new)
      if continue_final_message
      else self.tokenizer.decode(new)
    )

  def chat_options(self, ids: Sequence[int], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the reply to a conversation.

    Args:
      ids: The ids of the conversation.
      options: The options of the caller. By default a reply ends with the ends of a turn, or after
        512 tokens or as many as the position table has room for.
    """
    limit = self.spec.max_positions
    room = (
      REPLY
      if limit is None or self.spec.encoder is not None
      else max(1, min(REPLY, limit - len(ids)))
    )
    return {'eos': self._ends(options), 'max_new_tokens': room, **options}

  def _ends(self, options: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the ids that end a reply: those of the folder's settings, and the end token of its
    tokenizer.
    """
    from tfm.generate.options import several

    if options.get('eos') is not None:
      return several(options['eos'])
    own = None if self.tokenizer is None else self.tokenizer.eos
    return tuple(dict.fromkeys([*several(self.settings().get('eos')), *several(own)]))

  def prepared(self, *, int8: bool = False) -> 'Loaded':
    """Return this model with its parameters laid out for decoding (`tfm.generate.prepare`), once
    for many calls.

    Args:
      int8: Whether to store weights in one byte: faster, and not quite the same.
    """
    from tfm.generate import prepare

    return self._replace(params=prepare(self.spec, self.params, int8=int8))

  def export_hf(self, path: Any, **options: Any) -> str:
    """Write the new folder `path` for Hugging Face transformers, with all files (see
    `tfm.export_hf`).
    """
    from tfm.hub.export import export_hf

    return export_hf(
      self.spec, self.params, path, tokenizer=self.tokenizer, files=self.files, **options
    )


def _continuation(tokenizer: Vocabulary, before: list[int], new: list[int]) -> str:
  """Return the text of `new` ids after others: with the space that some tokenizers strip from the
  start of a text.
  """
  return tokenizer.decode([*before, *new])[len(tokenizer.decode(before)) :]
