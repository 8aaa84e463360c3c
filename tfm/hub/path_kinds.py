"""Kinds of paths that hold no loadable model, each with a detector and an error message."""

from collections.abc import Callable
import difflib
import os
from pathlib import Path
import re
from typing import NamedTuple

from tfm.core import json_text

LFS = b'version https://git-lfs.github.com/spec'
CONFIG = 'config.json'


class Kind(NamedTuple):
  """A kind of file or folder.

  Attributes:
    name: The name of the kind, for tests.
    find: Returns the detail that identifies the kind, or None for other paths.
    sentence: The error message, with `{found}` for the detail and `{folder}` for the parent folder.
  """

  name: str
  find: Callable[[Path], str | None]
  sentence: str


def is_pointer(path: Path) -> bool:
  """Return whether a file is a Git LFS pointer instead of the real file."""
  return path.is_file() and _head(path, len(LFS)) == LFS


def _head(path: Path, size: int) -> bytes:
  try:
    with path.open('rb') as file:
      return file.read(size)
  except OSError:
    return b''


def _holds(*patterns: str) -> Callable[[Path], str | None]:
  """Return a detector of folders with a file that matches a pattern."""

  def find(path: Path) -> str | None:
    names = (str(p.relative_to(path)) for pattern in patterns for p in sorted(path.glob(pattern)))
    return next(names, None) if path.is_dir() else None

  return find


def _ends(*endings: str) -> Callable[[Path], str | None]:
  """Return a detector of files with the given endings."""
  return lambda path: path.suffix if path.is_file() and path.name.endswith(endings) else None


def _part(path: Path) -> str | None:
  """Detect one file of a published folder."""
  known = path.name == CONFIG or path.name.endswith(
    ('.safetensors', '.bin', '.index.json', '.pt', '.pth')
  )
  return path.name if path.is_file() and known and (path.parent / CONFIG).is_file() else None


def _pointer(path: Path) -> str | None:
  files = [path]
  if not path.is_file():
    files = sorted(p for p in path.glob('*') if p.is_file())
  return next((p.name for p in files if is_pointer(p)), None)


def _peft(path: Path) -> str | None:
  """Detect a PEFT folder or a file in it; return the name of the base model."""
  folder = path.parent if path.name.startswith('adapter_') else path
  if not (folder / 'adapter_config.json').is_file():
    return None
  try:
    config = json_text.parse((folder / 'adapter_config.json').read_text('utf-8'))
    base = config.get('base_model_name_or_path')
  except (OSError, ValueError, AttributeError):
    base = None
  return str(base or 'the model that it was trained on')


def _inner(path: Path) -> str | None:
  """Detect a folder with loadable subfolders; return the names of the latest eight."""
  if not path.is_dir():
    return None
  loadable = lambda p: (p / CONFIG).is_file() or (p / 'checkpoints').is_dir()
  inner = [p for p in path.iterdir() if p.is_dir() and loadable(p)]
  return ', '.join(p.name for p in sorted(inner, key=lambda p: p.stat().st_mtime)[-8:]) or None


def _empty(path: Path) -> str | None:
  return '' if path.is_dir() and not any(path.iterdir()) else None


def _workdir(path: Path) -> str | None:
  """Detect the workdir of a run without a checkpoint."""
  checkpoints = path / 'checkpoints'
  if not checkpoints.is_dir() or any(p.name.isdigit() for p in checkpoints.iterdir()):
    return None
  return ''


def _state(path: Path) -> str | None:
  """Detect the array folder inside a checkpoint of tfm."""
  return '' if path.is_dir() and (path.parent / 'about').is_dir() else None


def _repository(path: Path) -> str | None:
  """Detect a Hugging Face Hub id or URL; return the id."""
  text = re.sub(
    r'^(https?:/+(www\.)?(huggingface\.co|hf\.co)/|hf:/+(models/)?)', '', path.as_posix()
  )
  name = re.match(r'^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?=/?$|/(tree|blob|resolve)/)', text)
  return name[0] if name else None


def _cached(path: Path) -> str | None:
  """Detect a Hub id in the local Hugging Face cache; return its cache folder."""
  if (name := _repository(path)) is None:
    return None
  home = Path(os.environ.get('HF_HOME', '~/.cache/huggingface')).expanduser()
  cache = Path(os.environ.get('HF_HUB_CACHE', home / 'hub')) / f'models--{name.replace("/", "--")}'
  return str(cache) if (cache / 'snapshots').is_dir() else None


def _on_hub(path: Path) -> str | None:
  """Detect a Hub id whose owner is not the name of a folder here."""
  return None if path.parent.is_dir() else _repository(path)


def _absent(path: Path) -> str:
  """Return near names beside a path, or else how to download a folder of its name."""
  listable = path.parent.is_dir() and os.access(path.parent, os.R_OK | os.X_OK)
  beside = sorted(os.listdir(path.parent)) if listable else []
  near = difflib.get_close_matches(path.name, beside, n=3, cutoff=0.6)
  if near:
    return f'Did you mean {" or ".join(repr(str(path.parent / name)) for name in near)}?'
  if path.parent != Path('.'):
    return ''
  return (
    'tfm does not download. For a model of the Hugging Face Hub, run '
    f'`hf download OWNER/{path} --local-dir {path}` first.'
  )


def _remote(path: Path) -> str | None:
  scheme = re.match(r'^([a-z0-9]+):/', str(path))
  return scheme[1] if scheme else None


_ABSENT = 'holds no checkpoint: there is no such folder.'
_EXPECTED = 'Expected the --workdir of a training run, or a published folder.'
_DOWNLOAD = (
  f'{_EXPECTED} tfm does not download. If {{found}} is a model of the Hugging Face Hub, '
  'run `hf download {found} --local-dir FOLDER`, or in '
  "Python huggingface_hub.snapshot_download('{found}'), which returns the folder."
)
WEIGHTS = (
  'Expected model.safetensors, several files with model.safetensors.index.json, or '
  'pytorch_model.bin.'
)
_FOREIGN = 'Expected safetensors and config.json, as save_pretrained of transformers writes them.'

#: Kinds of paths that do not exist.
MISSING_PATHS = (
  Kind(
    'cached',
    _cached,
    f'{_ABSENT} The Hugging Face cache has a model of this name. Expected that folder: {{found}}',
  ),
  Kind('hub', _on_hub, f'{_ABSENT} {_DOWNLOAD}'),
  Kind('remote', _remote, 'is a remote address ({found}:). Expected a folder on this machine.'),
  Kind('absent', _absent, f'{_ABSENT} {_EXPECTED} {{found}}'),
)

#: Kinds of folders with a config.json and without readable weights.
UNREADABLE_WEIGHTS = (
  Kind(
    'lfs',
    _pointer,
    'holds Git LFS pointers instead of files ({found}). Expected the files: run `git lfs pull`.',
  ),
  Kind(
    'partial',
    _holds(
      '*.incomplete', '.cache/huggingface/download/**/*.incomplete', '*.part', '*.crdownload',
      '*.aria2',
    ),
    'is a partial download ({found}). Expected all files: run the same download command again.',
  ),
  Kind(
    'gguf',
    _holds('*.gguf'),
    'holds a GGUF file and no safetensors. Expected the path of that file: {found}',
  ),
  Kind(
    'peft',
    _peft,
    'holds a PEFT adapter and no model. Expected tfm.load(BASE, adapter=...), where BASE is '
    '{found}.',
  ),
  Kind(
    'diffusers',
    _holds('diffusion_pytorch_model*'),
    'is a diffusers model ({found}), which tfm does not read. Expected a model of transformers.',
  ),
  Kind(
    'consolidated',
    _holds('consolidated*.safetensors', 'consolidated*.pth'),
    "holds weights in the authors' layout ({found}). Expected the Hugging Face layout of the same "
    'model: model.safetensors and config.json.',
  ),
  Kind(
    'tensorflow',
    _holds('tf_model.h5', '*.h5', '*.keras'),
    f'holds TensorFlow weights ({{found}}). {_FOREIGN}',
  ),
  Kind(
    'flax',
    _holds('flax_model*.msgpack', '*.msgpack'),
    f'holds only Flax msgpack weights ({{found}}). {_FOREIGN}',
  ),
  Kind(
    'onnx', _holds('*.onnx', 'onnx/*.onnx'), f'holds only an ONNX graph ({{found}}). {_FOREIGN}'
  ),
  Kind(
    'openvino',
    _holds('openvino_model*.xml'),
    f'holds only an OpenVINO graph ({{found}}). {_FOREIGN}',
  ),
  Kind(
    'ctranslate2',
    _holds('model.bin'),
    'is a converted CTranslate2 model ({found}). Expected the original folder.',
  ),
  Kind(
    'mlx', _holds('weights*.npz'), f'holds MLX weights in the old layout ({{found}}). {_FOREIGN}'
  ),
  Kind('rust', _holds('rust_model.ot'), f'holds only weights for Rust ({{found}}). {_FOREIGN}'),
  Kind(
    'named',
    _holds('*.safetensors', '*model*.bin'),
    f'holds weights with an unexpected file name ({{found}}). {WEIGHTS}',
  ),
)  # fmt: skip

#: Kinds of files and folders without a config.json.
PATH_KINDS = (
  Kind('part', _part, 'is one file of a published folder. Expected the folder: {folder}'),
  Kind('state', _state, 'is part of a tfm checkpoint. Expected the checkpoint: {folder}'),
  Kind(
    'peft',
    _peft,
    'is a PEFT adapter without its base model. Expected tfm.load(BASE, adapter=FOLDER), where BASE '
    'is {found}.',
  ),
  UNREADABLE_WEIGHTS[0],
  UNREADABLE_WEIGHTS[1],
  Kind(
    'safetensors',
    _ends('.safetensors'),
    'is a weight file in a folder without config.json. Expected both files: config.json describes '
    'the model.',
  ),
  Kind(
    'pickle',
    _ends('.bin', '.pt', '.pth', '.ckpt', '.pkl'),
    'is a pickle ({found}) in a folder without config.json. Expected a published folder, as '
    'save_pretrained of transformers writes it.',
  ),
  Kind(
    'foreign file',
    _ends('.h5', '.keras', '.msgpack', '.onnx', '.tflite', '.mlmodel', '.npz', '.pb', '.ot'),
    f'is a file of another framework ({{found}}). {_FOREIGN}',
  ),
  Kind(
    'archive',
    _ends('.zip', '.tar', '.gz', '.tgz', '.7z', '.nemo'),
    'is an archive ({found}). Expected the folder inside: unpack the archive first.',
  ),
  Kind(
    'file',
    lambda path: '' if path.is_file() else None,
    'is a file in an unknown format. Expected a tfm checkpoint, a published folder or a .gguf '
    'file.',
  ),
  Kind(
    'diffusers',
    _holds('model_index.json'),
    'is a diffusers pipeline ({found}), which tfm does not read. Expected a model of transformers.',
  ),
  Kind(
    'sentence-transformers',
    _holds('modules.json'),
    'is a sentence-transformers folder. Expected the subfolder of its transformer, with '
    'config.json.',
  ),
  Kind(
    'cache',
    _holds('models--*'),
    'is a Hugging Face cache. Expected the folder of one model in it, such as {found}.',
  ),
  Kind(
    'workdir',
    _workdir,
    'is the workdir of a run without a saved checkpoint. Expected a checkpoint in checkpoints/.',
  ),
  Kind('inner', _inner, 'holds no model itself. Expected a subfolder: {found}.'),
  Kind(
    'saved model',
    _holds('saved_model.pb', 'saved_model.pbtxt'),
    f'is a TensorFlow SavedModel ({{found}}). {_FOREIGN}',
  ),
  Kind(
    'orbax',
    _holds(
      '_METADATA', '_CHECKPOINT_METADATA', 'ocdbt*', '*/_METADATA', '*/manifest.ocdbt', '*.ocdbt'
    ),
    'is an Orbax checkpoint of another program ({found}), without a description of its model. '
    'Expected a published folder, or arrays that you restore with Orbax yourself.',
  ),
  Kind(
    'distributed',
    _holds(
      '*.distcp', 'zero_to_fp32.py', '*_optim_states.pt', 'latest_checkpointed_iteration.txt'
    ),
    'is a sharded training state of PyTorch, DeepSpeed or Megatron ({found}). Expected a published '
    'folder with its gathered weights.',
  ),
  *UNREADABLE_WEIGHTS[2:-1],
  Kind(
    'safetensors folder',
    _holds('*.safetensors', 'pytorch_model*.bin', '*.pth', '*.pt', '*.bin', '*.ckpt'),
    'holds weights ({found}) and no config.json. Expected both: config.json describes the model.',
  ),
  Kind(
    'tokenizer',
    _holds('tokenizer*', 'vocab.*', '*.spm'),
    'holds a tokenizer ({found}) and no model. Expected a folder with config.json and weights.',
  ),
  Kind(
    'empty',
    _empty,
    'is an empty folder and holds no checkpoint. Expected a tfm checkpoint or a published folder.',
  ),
)  # fmt: skip
