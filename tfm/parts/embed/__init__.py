"""Every input layer; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.embed.base import Embed as Embed
from tfm.parts.embed.patches import Patches
from tfm.parts.embed.tokens import Tokens

TABLE = Table('input layer', patches=Patches, tokens=Tokens)
