"""The public names of `sklearn_fordes.persistence`."""

from sklearn_fordes.persistence._checkpoint import (
    Checkpoint,
    naming_checkpoint_dir,
    seed_in,
)
from sklearn_fordes.persistence._checks import check_training_state, limited_size
from sklearn_fordes.persistence._file import read, refusing, write
from sklearn_fordes.persistence._identity import Describer, digest
from sklearn_fordes.persistence._members import members_from
from sklearn_fordes.persistence._values import UsersModule, can_pack, pack, unpack
from sklearn_fordes.persistence.onnx._file import write_onnx
