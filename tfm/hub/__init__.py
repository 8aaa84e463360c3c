"""Load and export published checkpoints.

`load` reads a Hugging Face folder, a GGUF file or a checkpoint of tfm. `export_hf`, `export_peft`
and `save` write folders. The model families are in `tfm.zoo.weights`.
"""

from tfm.hub.export import class_of as class_of
from tfm.hub.export import export_hf as export_hf
from tfm.hub.export_peft import export_peft as export_peft
from tfm.hub.files import FolderFiles as FolderFiles
from tfm.hub.generation import generation_options as generation_options
from tfm.hub.load import describe as describe
from tfm.hub.load import is_published as is_published
from tfm.hub.load import load as load
from tfm.hub.load import read_config as read_config
from tfm.hub.loaded import Loaded as Loaded
from tfm.hub.programs import export_programs as export_programs
from tfm.hub.save import save as save
from tfm.hub.speech import languages as languages
from tfm.hub.warm_start import read_model as read_model
from tfm.hub.warm_start import warm_start as warm_start
