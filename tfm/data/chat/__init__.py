"""Chat templates: conversations as text, in the format of a model's training data."""

from tfm.data.chat.template import CHATML, ChatTemplate, Message, no_template

__all__ = ['CHATML', 'ChatTemplate', 'Message', 'no_template']
