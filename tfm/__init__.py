"""A functional transformer zoo in JAX."""

from tfm.version import __version__ as __version__
