"""The public names of `sklearn_fordes.training`."""

from sklearn_fordes.training._augmentation import Augmentation, CellCorruption, CorruptedVersions
from sklearn_fordes.training._averaging import WeightAverage
from sklearn_fordes.training._callbacks import (
    BestEpoch,
    ClipMemberGradients,
    EpochProgress,
    EpochTasks,
    StopWhenTold,
    copy_callback,
)
from sklearn_fordes.training._data import Batches, BatchIterator, DeviceDataset
from sklearn_fordes.training._graphs import CudaGraphs, Recorder, cuda_graphs, recording_with
from sklearn_fordes.training._loop import keep_freed_memory, train
from sklearn_fordes.training._loss import MixtureLoss
from sklearn_fordes.training._net import ParticleNet
from sklearn_fordes.training._optimizer import AdamW
from sklearn_fordes.training._processes import communicator_for
from sklearn_fordes.training._schedule import constant, schedule_of
from sklearn_fordes.training._state import TrainingState
from sklearn_fordes.training._stream import EncodedRows, StreamDataset, StreamPosition
from sklearn_fordes.training._strength import unit_of_strength
