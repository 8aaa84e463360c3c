"""Many processes as one run: who starts, who writes, who reads what."""

import os

import jax

from tfm.core import errors

_NAMES = ('TFM_COORDINATOR', 'TFM_PROCESSES', 'TFM_PROCESS')


def start() -> None:
  """Joins the other processes of this run, if the environment says that there are any.

  `TFM_COORDINATOR` (host:port of process 0), `TFM_PROCESSES` and `TFM_PROCESS` (its number) say so
  themselves; where SLURM or Open MPI started more than one process, or a TPU pod has more than one
  host, jax finds out by itself. Call it before anything asks jax for its devices.

  Raises: UserError if the three variables are not all there or are no numbers.
  """
  if jax.distributed.is_initialized():
    return
  given = {name: os.environ[name] for name in _NAMES if os.environ.get(name)}
  if given:
    if missing := [name for name in _NAMES if name not in given]:
      raise errors.UserError(
        f'{", ".join(given)} is set, but not {", ".join(missing)}. Expected all three or none.'
      )
    try:
      count, mine = int(given['TFM_PROCESSES']), int(given['TFM_PROCESS'])
    except ValueError:
      raise errors.UserError(
        f'TFM_PROCESSES={given["TFM_PROCESSES"]}, TFM_PROCESS={given["TFM_PROCESS"]}: wanted two '
        f'whole numbers.'
      ) from None
    if not 0 <= mine < count:
      raise errors.UserError(
        f'TFM_PROCESS={mine}: wanted 0 to {count - 1}, as TFM_PROCESSES={count}.'
      )
    _in_order()
    jax.distributed.initialize(given['TFM_COORDINATOR'], num_processes=count, process_id=mine)
  elif _launched():
    _in_order()
    jax.distributed.initialize()


def _in_order() -> None:
  # Programs of a CPU that are under way at once may reach their collectives in another order in
  # each process.
  jax.config.update('jax_cpu_enable_async_dispatch', False)


def _launched() -> bool:
  """Whether a launcher that jax knows has started several processes."""
  tasks = max(int(os.environ.get(name) or 1) for name in ('SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE'))
  inside = 'SLURM_STEP_ID' in os.environ or 'OMPI_COMM_WORLD_RANK' in os.environ
  return (inside and tasks > 1) or ',' in os.environ.get('TPU_WORKER_HOSTNAMES', '')
