"""Every input layer; a new one is a new file and a new row."""

from tfm.core.registry import Table
from tfm.parts.embed.base import Embed as Embed
from tfm.parts.embed.frames import Frames
from tfm.parts.embed.tokens import Tokens
from tfm.parts.embed.waveform import Waveform

TABLE = Table('input layer', frames=Frames, tokens=Tokens, waveform=Waveform)
