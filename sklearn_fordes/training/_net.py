"""A skorch net whose module is an ensemble and whose train step repels its members."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from opcode import opmap
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from torch import Tensor

from sklearn_fordes.particles import (
    BuiltRepulsion,
    Ensemble,
    FunctionOfEnsemble,
    Likelihood,
    accumulate_gradients,
    derived_seed,
    seeded_generators,
)
from sklearn_fordes.training._averaging import WeightAverage
from sklearn_fordes.training._data import BatchIterator, DeviceDataset
from sklearn_fordes.training._loss import MixtureLoss
from sklearn_fordes.training._recovery import (
    DivergenceError,
    Recovery,
    finite_members,
    names_of_members,
)
from sklearn_fordes.training._strength import unit_of_strength

_FIGURES = ("driving_loss", "repulsion", "relative_loss")
# Decay of the running mean over steps of the members' relative loss.
_RELATIVE_LOSS_DECAY = 0.95
# Numbers of single precision that a CPU's fused optimizer updates at a time.
_FUSED_AT_A_TIME = 16


class ParticleNet(NeuralNet):
    """Train the members of an ensemble together as particles.

    It works on a `DeviceDataset` in batches of a `BatchIterator`. `infer` returns tensors of shape
    (B, M, C), since skorch concatenates and counts along the first axis.

    Parameters
    ----------
    module : Ensemble
        Trained in place.
    likelihood : Likelihood
        What the outputs mean.
    repulsion : BuiltRepulsion, optional
        None trains a deep ensemble.
    strength : float, default=0.0
        Strength of the repulsion.
    ema_decay : float, default=0.0
        Decay of the moving average of the weights, which the module holds outside of training
        epochs: in validation and afterwards. It begins anew with each run. 0 averages nothing.
    seed : int, default=0
        Determines the draws of modules and functions that use torch's global generator, and those
        of batches, unless ``iterator_train__rng`` does.
    deadline : float, default=inf
        When its first run ends at the latest, after one step at least, in seconds of
        `time.monotonic`.
    checkpoint : Checkpoint, optional
        Keeps the state of its first run between epochs. What it knows is not done again.
    **kwargs
        As in `skorch.NeuralNet`.
    """

    def __init__(
        self,
        module: Ensemble,
        *,
        likelihood: Likelihood,
        repulsion: BuiltRepulsion | None = None,
        strength: float = 0.0,
        ema_decay: float = 0.0,
        seed: int = 0,
        deadline: float = math.inf,
        checkpoint: Any = None,
        **kwargs: Any,
    ) -> None:
        self.likelihood = likelihood
        self.repulsion = repulsion
        self.strength = strength
        space = repulsion and repulsion.space
        self.space_is_users = isinstance(space, FunctionOfEnsemble)
        self.ema_decay = ema_decay
        self.seed = seed
        self.n_steps = self.n_epochs = 0  # Those completed.
        self.relative_loss: Tensor | float = 1.0
        self.average: WeightAverage | None = None  # It exists while training.
        self.is_stopped = False  # By a callback, in the last run.
        self.deadline = deadline
        self.is_out_of_time = self.is_cut = self.has_gone_back = False  # In the last run.
        self.n_resumed = 0  # Epochs of the last run that its checkpoint knew.
        self.checkpoint = checkpoint
        self.members_differ = False  # In the versions of rows on which they train.
        defaults = {
            "criterion": MixtureLoss,
            "criterion__likelihood": likelihood,
            "dataset": DeviceDataset,
            "iterator_train": BatchIterator,
            "iterator_train__rng": np.random.default_rng(seed),
            "iterator_valid": BatchIterator,
            "train_split": DeviceDataset.split,
            "verbose": 0,
        }
        super().__init__(module, **{**defaults, **kwargs})

    @property
    def _default_callbacks(self) -> list[Any]:
        # skorch's own, but for the last, which prints.
        figures = [(name, PassthroughScoring(name, on_train=True)) for name in _FIGURES]
        return [*super()._default_callbacks[:-1], *figures]

    def initialize_callbacks(self) -> ParticleNet:
        """Make the callbacks, and check the names in parameters such as ``callbacks__…``.

        Raises
        ------
        ValueError
            If there is no callback of a name.
        """
        super().initialize_callbacks()
        names = [name for name, _ in self.callbacks_]
        for parameter, value in self.get_params_for("callbacks").items():
            name = parameter.partition("__")[0]
            if name not in names and value is not None:
                raise ValueError(
                    f"Got callbacks__{parameter}, but there is no callback {name!r}; expected one "
                    f"of {names}."
                )
        return self

    def initialize_optimizer(self) -> ParticleNet:
        """Make the optimizer, with groups of parameters that it treats alike.

        Weights decay, biases and norms do not. The fused kernels of a CPU round the last numbers of
        a tensor in another way than the others; parameters of a size for which this would depend on
        the number of members take other kernels.
        """
        super().initialize_optimizer()
        groups = self.optimizer_.param_groups
        parts: dict[Any, Any] = {}
        for group in groups:
            for parameter in group["params"]:
                changed: dict[str, float] = {}
                # A member's vector is a matrix in the stack.
                if "weight_decay" in group and parameter.ndim <= 2:
                    changed["weight_decay"] = 0.0
                on_cpu = parameter.device.type == "cpu"
                if group.get("fused") and on_cpu and parameter[0].numel() % _FUSED_AT_A_TIME:
                    changed["fused"] = False
                part = {**group, **changed, "params": []}
                parts.setdefault((id(group), *changed), part)["params"].append(parameter)
        groups.clear()
        for part in parts.values():
            self.optimizer_.add_param_group(part)
        return self

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Drop what belongs to a run, and evaluate from now.

        The average replaces the weights of the last step.
        """
        self.average = self.checkpoint = None
        self.deadline = math.inf
        self.module_.eval()

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Forget how an earlier run ended, which may have failed."""
        self.average = None
        self.is_stopped = self.is_out_of_time = self.is_cut = self.has_gone_back = False
        self.n_resumed = 0

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call a method of all callbacks, and note whether one of them stops training.

        skorch's way to stop is to raise KeyboardInterrupt, which Ctrl-C does too.
        """
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as error:
            self.is_stopped = method_name == "on_epoch_end" and _is_raised_by_statement(error)
            raise

    def fit_loop(self, X: Any, y: Any = None, epochs: Any = None, **fit_params: Any) -> ParticleNet:
        """Run epochs until there are so many more, or the time is over.

        A checkpoint may know some of them. An epoch that diverges is begun again, once in a run,
        with a lower learning rate (see `Recovery`).

        Raises
        ------
        ValueError
            If a loss or a weight is not finite once more.
        """
        n_left, before = self.max_epochs if epochs is None else epochs, self.n_epochs
        if self.checkpoint is not None:
            self.checkpoint.resume(self)
            self.n_resumed = self.n_epochs - before
        n_left -= self.n_resumed
        recovery = Recovery(self)
        while n_left > 0 and not self.is_out_of_time:
            began = time.monotonic()
            try:
                super().fit_loop(X, y, epochs=1, **fit_params)
            except DivergenceError as error:
                recovery.go_back(self, error)
                continue
            recovery.keep(self)
            n_left -= 1
            # The next epoch would take as long as this one did.
            ends_late = n_left > 0 and 2 * time.monotonic() - began > self.deadline
            self.is_out_of_time = self.is_cut or ends_late
            if self.checkpoint is not None and not self.is_cut:
                self.checkpoint.write(self, at_once=self.is_out_of_time)
        return self

    def run_single_epoch(self, iterator: Any, training: bool, **kwargs: Any) -> None:
        """Run an epoch: train the weights of the last step, and validate their average.

        The figures of training steps stay on the device until the epoch ends. An epoch in which the
        time runs out ends after that step.

        Raises
        ------
        ValueError
            If a training loss, or a weight that training leaves, is not finite.
        """
        if not training:
            super().run_single_epoch(iterator, training, **kwargs)
            return
        if self.ema_decay and self.average is None:
            # Not before: callbacks may set the weights when a run begins.
            self.average = WeightAverage(self.module_.parameters(), self.ema_decay)
        rows = getattr(iterator, "dataset", None)
        self.members_differ = getattr(rows, "augmentation", None) is not None
        figures, losses, n_batches = [], [], len(iterator)
        with self.average.training() if self.average else nullcontext():
            for batch in iterator:
                self.notify("on_batch_begin", batch=batch, training=True)
                step = self.train_step(batch)
                figures.append(step["figures"])
                losses.append(step["member_losses"])
                self.history.record_batch("train_batch_size", len(batch[1]))
                self.notify("on_batch_end", batch=batch, training=True, **step)
                # After its last batch the epoch is whole, however late it is.
                self.is_cut = len(figures) < n_batches and time.monotonic() > self.deadline
                if self.is_cut:
                    break
        # The only host–device synchronisation of an epoch.
        values = torch.stack(figures).tolist()
        batches = self.history[-1]["batches"]
        for notes, step, member_losses in zip(batches, values, losses, strict=True):
            notes.update(zip(_FIGURES, step, strict=True))
            notes["train_loss"] = self.module_.n_members * (step[0] + step[1])
            if not math.isfinite(notes["train_loss"]):
                # Through the repulsion one member's loss spoils the gradients of all.
                self.expect_finite(member_losses.isfinite(), "training loss")
                self.expect_finite(torch.zeros_like(member_losses, dtype=torch.bool), "repulsion")
        self.expect_finite(finite_members([*self.module_.parameters()]), "weight")
        self.history.record("train_batch_count", len(figures))

    def train_step(self, batch: Any) -> Any:
        """Make a step, however often its optimizer evaluates the objective, and count it."""
        step = super().train_step(batch)
        latest = step["figures"][-1]
        latest = latest if latest.device.type == "mps" else latest.double()
        mean = _RELATIVE_LOSS_DECAY * self.relative_loss + (1 - _RELATIVE_LOSS_DECAY) * latest
        self.relative_loss = mean.clamp(max=1.0)
        self.n_steps += 1
        if self.average:
            self.average.update()
        return step

    def train_step_single(self, batch: Any) -> dict[str, Tensor]:
        """Leave the direction of one particle step in the gradients.

        Returns
        -------
        dict
            ``loss``: the objective, summed over members; ``y_pred``: outputs (B, M, C);
            ``figures``: driving loss, repulsion and relative loss, means over members;
            ``member_losses``: the driving loss of each member, (M,).

        Raises
        ------
        ValueError
            If the module can't be trained.
        """
        self._set_training(True)
        inputs, y = batch
        X, weight = inputs["X"], inputs.get("sample_weight")
        shared = inputs.get("shared", True)
        if not shared and len(X) != self.module_.n_members:
            raise ValueError(
                f"Got versions of rows for {len(X)} members from augmentation, but expected "
                f"{self.module_.n_members}."
            )
        if weight is not None:
            weight = weight.T if weight.ndim == 2 else weight  # Members come first there.
        repulsion = self.repulsion
        strength: float | Tensor = 0.0
        if repulsion and self.strength and not self.n_steps % repulsion.period:
            epoch = len(self.history) - 1
            strength = self.strength * unit_of_strength(
                repulsion, epoch, len(y), self.relative_loss
            )
        elif repulsion and not repulsion.mixes_driving_force:
            repulsion = None  # Stein's changes the driving force at a strength of zero as well.
        if repulsion and not shared:
            X = _with_rows_compared(X, inputs["rows"], repulsion)
        try:
            with self._own_draws():
                step = accumulate_gradients(
                    self.module_,
                    X,
                    y,
                    weight,
                    repulsion=repulsion,
                    strength=strength,
                    likelihood=self.likelihood,
                    extra_inputs=inputs.get("extra_inputs"),
                    shared=shared,
                )
        except RuntimeError as error:
            is_first = len(self.history[-1]["batches"]) == 1
            if self.space_is_users or not is_first or isinstance(error, torch.OutOfMemoryError):
                raise
            raise ValueError(
                f"Got a module that can't be trained ({error}), but expected one that "
                "torch.func.vmap can batch over members, and whose output can be differentiated "
                "twice, by its input and its weights. repulsion='none', 'weight' or 'function' "
                "need the weights only."
            ) from error
        relative_loss = self.likelihood.relative_loss(step.driving_loss, step.outputs, y, weight)
        figures = torch.stack([step.driving_loss, step.repulsion, relative_loss]).mean(1)
        loss = self.module_.n_members * (figures[0] + figures[1])
        return {
            "loss": loss,
            "y_pred": step.outputs.transpose(0, 1),
            "figures": figures,
            "member_losses": step.driving_loss,
        }

    def _own_draws(self) -> AbstractContextManager[None]:
        """Give code of the user's that draws from global generators a seed for this step."""
        if not (self.module_.draws_globally or self.space_is_users):
            return nullcontext()
        return seeded_generators(derived_seed(self.seed, self.n_steps), self.device)

    def check_module(self, X: Tensor) -> None:
        """Evaluate the module on two rows, so that one of another shape fails before training.

        Parameters
        ----------
        X : Tensor of shape (n_rows, ...)

        Raises
        ------
        ValueError
            If the module can't be evaluated, or its outputs have another shape.
        """
        rows = X[:2]
        try:
            with self._own_draws(), torch.no_grad():
                shape = tuple(self.module_.eval()(rows).shape[1:])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise ValueError(
                f"Got a module that can't be evaluated on rows of shape {tuple(X.shape[1:])} "
                f"({error}), but expected one that maps them to outputs, and that torch.func.vmap "
                "can batch over members."
            ) from error
        expected = (len(rows), self.likelihood.n_outputs)
        if shape != expected:
            raise ValueError(
                f"Got output of shape {shape} from the module for {len(rows)} rows, but expected "
                f"{expected}: (n_rows, n_outputs), {self.likelihood.outputs_are}."
            )

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Count the epoch as whole (an interrupted one is not), and note its learning rates.

        The callbacks come later, a scheduler among them.
        """
        self.n_epochs = len(self.history)
        for group in self.optimizer_.param_groups:
            group["lr_of_epoch"] = group["lr"]

    def expect_finite(self, are_finite: Tensor, what: str) -> None:
        """Raise an error that says of which members `what` is not finite, and what to lower.

        Parameters
        ----------
        are_finite : Tensor of bool of shape (M,)
        what : str

        Raises
        ------
        ValueError
            If one is not.
        """
        if are_finite.all():
            return
        rate = float(self.optimizer_.param_groups[0]["lr"])
        repelled = " or repulsion_strength" if self.repulsion and self.strength else ""
        raise DivergenceError(
            f"Got a {what} that is not finite (NaN or infinite) in epoch {len(self.history)}, of "
            f"{names_of_members(~are_finite)}, but expected finite numbers. Lower lr (now "
            f"{rate:g}){repelled}, or scale the input to unit variance."
        )

    def infer(self, x: Any) -> Tensor:
        """Evaluate the members on a batch's inputs: outputs (B, M, C).

        A module that draws when it is evaluated gets a seed of this step.
        """
        with self._own_draws():
            outputs = self.module_(x["X"].to(self.device, self.module_.dtype))
        return torch.transpose(outputs, 0, 1)

    def get_loss(self, y_pred: Tensor, y_true: Tensor, X: Any, **kwargs: Any) -> Tensor:
        """Return the ensemble's loss on a batch, with its rows' weights if it has any.

        Where some of the members validate a row, the loss of all is estimated (see
        `Likelihood.losses_of_more`), if all train on the same versions of the rows. A single
        member's own loss says nothing of a mixture, and is returned as it is.

        Raises
        ------
        ValueError
            If it is not finite.
        """
        weight, validators = X.get("sample_weight"), X.get("validators")
        outputs = y_pred
        if validators is not None:
            outputs = torch.take_along_dim(y_pred, validators.unsqueeze(-1), dim=1)
        # A few members of two kinds say nothing of how members of one kind differ.
        n_members = None if self.members_differ else self.module_.n_members
        loss: Tensor = self.criterion_(outputs, y_true, weight, n_members)
        if not loss.isfinite():
            are_finite = finite_members([y_pred.transpose(0, 1)])
            # The loss of finite outputs may be infinite too.
            are_blameless = are_finite if not are_finite.all() else ~are_finite
            self.expect_finite(are_blameless, "validation loss")
        return loss

    def _get_predict_nonlinearity(self) -> Any:
        return lambda outputs: self.likelihood.predict(outputs.transpose(0, 1))

    def predict(self, X: Any) -> Any:
        """Predict classes, from 0 to C − 1, or means, so that callbacks can score them."""
        predicted = self.predict_proba(X)
        return predicted.argmax(1) if self.likelihood.kind == "classifier" else predicted

    @property
    def classes_(self) -> Any:
        """The classes, for scorers of scikit-learn's."""
        return np.arange(self.likelihood.n_outputs)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.estimator_type = self.likelihood.kind
        return tags

    def __getstate__(self) -> dict[str, Any]:
        # An average belongs to the very tensors that it swaps, and a checkpoint to a run.
        return {**super().__getstate__(), "average": None, "checkpoint": None}


def _is_raised_by_statement(error: BaseException) -> bool:
    """Return whether a `raise` statement has raised an exception, and not a signal in between."""
    traceback = error.__traceback__
    while traceback and traceback.tb_next:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    code, at = traceback.tb_frame.f_code.co_code, traceback.tb_lasti
    return code[at : at + 1] == bytes([opmap["RAISE_VARARGS"]])


def _with_rows_compared(versions: Tensor, rows: Tensor, repulsion: BuiltRepulsion) -> Tensor:
    """Return versions (M, B, ...) of rows, whose first ones are as they are where it matters.

    Members that see other versions of a row differ there, however alike they are.
    """
    if not repulsion.space.depends_on_inputs:
        return versions
    same = rows[: repulsion.n_compared(len(rows))]
    return torch.cat([same.expand(len(versions), *same.shape), versions[:, len(same) :]], dim=1)
