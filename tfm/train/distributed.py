"""Join the processes of a distributed run."""

from importlib import util
import os
from pathlib import Path
import urllib.request

import jax

from tfm.core import errors

_NAMES = ('TFM_COORDINATOR', 'TFM_PROCESSES', 'TFM_PROCESS')


def start() -> None:
  """Connect to the other processes of this run, if there are any.

  Call it before any use of `jax.devices`. Set `TFM_COORDINATOR` (host:port of process 0),
  `TFM_PROCESSES` (their number) and `TFM_PROCESS` (the index of this one). Without these
  variables, jax detects SLURM, Open MPI, and TPU slices with several hosts (on GKE by
  `TPU_WORKER_HOSTNAMES`, on TPU VMs by the metadata server).

  Raises:
    UserError: Only some of the variables are set, or a number is not valid.
  """
  if jax.distributed.is_initialized():
    return
  given = {name: os.environ[name] for name in _NAMES if os.environ.get(name)}
  if given:
    count, index = _numbers(given)
    _dispatch_in_order()
    jax.distributed.initialize(given['TFM_COORDINATOR'], num_processes=count, process_id=index)
  elif _launched():
    _dispatch_in_order()
    jax.distributed.initialize()


def _numbers(given: dict[str, str]) -> tuple[int, int]:
  """Return the number of processes and the index of this one, from the variables that are set."""
  if missing := [name for name in _NAMES if name not in given]:
    raise errors.UserError(
      f'environment: {", ".join(given)} is set, but not {", ".join(missing)}. Expected all three '
      'or none.'
    )
  processes, process = given['TFM_PROCESSES'], given['TFM_PROCESS']
  try:
    count, index = int(processes), int(process)
  except ValueError:
    raise errors.UserError(
      f'environment: TFM_PROCESSES={processes}, TFM_PROCESS={process} are not valid. Expected two '
      'whole numbers.'
    ) from None
  if not 0 <= index < count:
    raise errors.UserError(
      f'environment: TFM_PROCESS={index} is out of range. Expected 0 to {count - 1}, because '
      f'TFM_PROCESSES={count}.'
    )
  return count, index


def _dispatch_in_order() -> None:
  # CPU programs that run concurrently may reach their collectives in a different order in each
  # process.
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def _launched() -> bool:
  """Return whether a launcher that jax supports has started several processes."""
  tasks = max(int(os.environ.get(name) or 1) for name in ('SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE'))
  inside = 'SLURM_STEP_ID' in os.environ or 'OMPI_COMM_WORLD_RANK' in os.environ
  if inside and tasks > 1:
    return True
  if int(os.environ.get('MEGASCALE_NUM_SLICES') or 1) > 1:
    return True
  hosts = os.environ.get('TPU_WORKER_HOSTNAMES')
  return ',' in (_tpu_hosts() if hosts is None else hosts)


def _tpu_hosts() -> str:
  """Return the hosts of this TPU VM's slice, separated by commas, '' on other machines."""
  server = os.environ.get('GCE_METADATA_IP')
  if server is None and not _is_tpu_vm():
    return ''
  url = f'http://{server or "metadata.google.internal"}/computeMetadata/v1/instance/attributes/'
  request = urllib.request.Request(
    f'{url}worker-network-endpoints', headers={'Metadata-Flavor': 'Google'}
  )
  try:
    with urllib.request.urlopen(request, timeout=5) as answer:
      return str(answer.read().decode())
  except OSError:  # a virtual machine without a TPU
    return ''


def _is_tpu_vm() -> bool:
  """Return whether this machine belongs to Google's cloud and has libtpu."""
  name = Path('/sys/class/dmi/id/product_name')
  if jax.config.values['jax_platforms'] == 'cpu' or util.find_spec('libtpu') is None:
    return False
  return name.exists() and 'Google' in name.read_text('utf-8')
