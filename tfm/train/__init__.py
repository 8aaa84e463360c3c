"""Training. `loop.train(experiment, workdir)` is the entry point."""

from tfm.train.experiment import Experiment, Record, Sample
from tfm.train.mesh import Mesh

__all__ = ['Experiment', 'Mesh', 'Record', 'Sample']
