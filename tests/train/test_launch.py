"""Launch scripts, and the detection of launchers."""

import http.server
import json
import os
from pathlib import Path
import shlex
import subprocess
import threading

import pytest
import yaml

from tfm.train import distributed

ROOT = Path(__file__).parents[2]
COMMAND = ('tfm', 'train', '--config=quickstart', '--workdir=/runs/a b')


def dry(script, *args, **env):
  """Return the lines that a launch script prints with DRY=1."""
  done = subprocess.run(
    ['bash', f'scripts/launch/{script}', *args],
    env=os.environ | {'DRY': '1'} | env,
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.splitlines()


@pytest.mark.parametrize('script', ['jobset.sh', 'local.sh', 'slurm.sh', 'tpu_vm.sh'])
def test_launch_script_is_valid_bash(script):
  subprocess.run(['bash', '-n', ROOT / 'scripts' / 'launch' / script], check=True)


def test_local_launch_starts_every_process():
  lines = [shlex.split(line) for line in dry('local.sh', '4', *COMMAND)]
  assert [words[2] for words in lines] == [f'TFM_PROCESS={n}' for n in range(4)]
  assert {words[1] for words in lines} == {'TFM_PROCESSES=4'}
  assert len({words[0] for words in lines}) == 1
  assert lines[0][0].startswith('TFM_COORDINATOR=127.0.0.1:')
  assert [tuple(words[3:]) for words in lines] == [COMMAND] * 4


def test_slurm_launch_submits_itself_and_runs_one_task_per_node():
  submit, run = map(shlex.split, dry('slurm.sh', *COMMAND[2:], SBATCH_OPTIONS='-p gpu -N 4'))
  assert submit == ['sbatch', '-p', 'gpu', '-N', '4', 'scripts/launch/slurm.sh', *COMMAND[2:]]
  assert run == ['srun', '--kill-on-bad-exit=1', '.venv/bin/tfm', 'train', *COMMAND[2:]]
  text = (ROOT / 'scripts' / 'launch' / 'slurm.sh').read_text()
  assert '#SBATCH --ntasks-per-node=1\n' in text


def test_tpu_vm_launch_runs_the_command_on_every_worker():
  (line,) = dry('tpu_vm.sh', *COMMAND, TPU='my-slice', ZONE='us-west4-a')
  *words, remote = shlex.split(line)
  assert words == [
    'gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'my-slice', '--zone=us-west4-a', '--worker=all',
  ]  # fmt: skip
  start, _, command = remote.rpartition('&& ')
  assert start == '--command=cd ~/tfm && source .venv/bin/activate '
  assert tuple(shlex.split(command)) == COMMAND


def test_jobset_manifest_has_one_pod_for_each_host():
  text = '\n'.join(dry('jobset.sh', *COMMAND, IMAGE='repo/tfm:1', HOSTS='4', TOPOLOGY='4x4'))
  manifest = yaml.safe_load(text)
  assert (manifest['kind'], manifest['metadata']['name']) == ('JobSet', 'tfm')
  job = manifest['spec']['replicatedJobs'][0]['template']['spec']
  assert (job['parallelism'], job['completions']) == (4, 4)
  rule = job['podFailurePolicy']['rules'][0]
  assert rule['onExitCodes'] == {'containerName': 'tfm', 'operator': 'In', 'values': [1, 2, 130]}
  pod = job['template']['spec']
  assert pod['nodeSelector']['cloud.google.com/gke-tpu-topology'] == '4x4'
  (container,) = pod['containers']
  assert (container['image'], tuple(container['command'])) == ('repo/tfm:1', COMMAND)
  assert container['resources']['limits'] == {'google.com/tpu': 4}
  assert manifest['spec']['failurePolicy']['maxRestarts'] == 10


def test_launch_script_needs_its_variables():
  done = subprocess.run(
    ['bash', ROOT / 'scripts' / 'launch' / 'jobset.sh', 'tfm'], capture_output=True, text=True
  )
  assert done.returncode != 0
  assert 'set IMAGE to an image' in done.stderr


@pytest.fixture
def environment(monkeypatch):
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'OMPI_', 'TPU_', 'MEGASCALE_', 'TFM_', 'GCE_')):
      monkeypatch.delenv(name)
  return monkeypatch


@pytest.mark.parametrize(
  ('variables', 'launched'),
  [
    ({}, False),
    ({'SLURM_STEP_ID': '0', 'SLURM_NTASKS': '2'}, True),
    ({'SLURM_STEP_ID': '0', 'SLURM_NTASKS': '1'}, False),
    ({'SLURM_NTASKS': '2'}, False),
    ({'OMPI_COMM_WORLD_RANK': '0', 'OMPI_COMM_WORLD_SIZE': '4'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, True),
    ({'TPU_WORKER_HOSTNAMES': 'a'}, False),
    ({'MEGASCALE_NUM_SLICES': '2', 'TPU_WORKER_HOSTNAMES': 'a'}, True),
  ],
  ids=lambda value: json.dumps(value),
)
def test_launchers_are_detected_by_their_variables(environment, variables, launched):
  for name, value in variables.items():
    environment.setenv(name, value)
  assert distributed._launched() is launched


@pytest.mark.parametrize(
  ('hosts', 'launched'), [('0:a:b,1:c:d', True), ('0:a:b', False), (None, False)]
)
def test_tpu_vms_are_detected_by_the_metadata_server(environment, hosts, launched):
  class Metadata(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      known = self.path == '/computeMetadata/v1/instance/attributes/worker-network-endpoints'
      found = hosts is not None and known and self.headers['Metadata-Flavor'] == 'Google'
      self.send_response(200 if found else 404)
      self.end_headers()
      self.wfile.write((hosts or '').encode())

    def log_message(self, *args):
      pass

  with http.server.HTTPServer(('127.0.0.1', 0), Metadata) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment.setenv('GCE_METADATA_IP', f'127.0.0.1:{server.server_port}')
    assert distributed._launched() is launched
    server.shutdown()
    thread.join()
