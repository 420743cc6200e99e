"""A skorch net whose module is an ensemble and whose train step repels its members."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring
from torch import Tensor

from sklearn_fordes.particles import (
    ALONE,
    BuiltRepulsion,
    Communicator,
    Ensemble,
    FunctionOfEnsemble,
    Likelihood,
    LostProcessError,
    accumulate_gradients,
    derived_seed,
    filled_up,
    seeded_generators,
)
from sklearn_fordes.training._averaging import WeightAverage
from sklearn_fordes.training._data import BatchIterator, DeviceDataset
from sklearn_fordes.training._figures import FIGURES, Figures
from sklearn_fordes.training._graphs import CapturedSteps
from sklearn_fordes.training._loss import MixtureLoss
from sklearn_fordes.training._optimizer import (
    expect_one_evaluation,
    group_parameters,
    scaled_rates,
)
from sklearn_fordes.training._processes import expect_callbacks_that_fit
from sklearn_fordes.training._recovery import (
    CAN_T_BE_TRAINED,
    DivergenceError,
    Recovery,
    divergence,
    finite_members,
    is_raised_by_statement,
)
from sklearn_fordes.training._schedule import Schedule, constant
from sklearn_fordes.training._shares import share_of
from sklearn_fordes.training._strength import strength_of_step, with_rows_compared

_OF_MEMBERS = ("training loss", "repulsion")


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
    schedule : callable, default=constant
        Maps the share of a run's steps that are done, and its number of epochs, to a factor of the
        learning rates.
    communicator : Communicator, default=ALONE
        Reaches processes that train with this one. The module has the members of this process.
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
        schedule: Schedule = constant,
        communicator: Communicator = ALONE,
        **kwargs: Any,
    ) -> None:
        self.likelihood = likelihood
        self.repulsion = repulsion
        self.strength = strength
        self.space_is_users = isinstance(repulsion and repulsion.space, FunctionOfEnsemble)
        self.ema_decay = ema_decay
        self.seed = seed
        self.schedule = schedule
        self.communicator = communicator
        self.n_steps = self.n_epochs = 0  # Those completed.
        self.figures = Figures(communicator)
        self.captured = CapturedSteps()
        self.average: WeightAverage | None = None  # It exists while training.
        self.is_stopped = False  # By a callback, in the last run.
        self.rate_factor = 1.0  # Of the learning rates, in this run.
        self.done = 0.0  # Share of this run, in the middle of the next step.
        self._run_of = 0, 1  # Epochs before this run, and in it.
        self.deadline = math.inf  # Of this run, in seconds of `time.monotonic`.
        self.is_out_of_time = self.is_cut = False  # In the last run.
        self.n_resumed = 0  # Epochs of the last run that its checkpoint knew.
        self.checkpoint: Any = None  # Keeps the state of this run between its epochs.
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
        figures = [(name, PassthroughScoring(name, on_train=True)) for name in FIGURES]
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
        expect_callbacks_that_fit(self.callbacks_, self.communicator)
        return self

    def initialize_optimizer(self) -> ParticleNet:
        """Make the optimizer, with groups of parameters that it treats alike."""
        super().initialize_optimizer()
        group_parameters(self.optimizer_)
        if self.communicator.n_processes > 1:
            expect_one_evaluation(self.optimizer_)
        return self

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Drop the weights of the last step, which the average replaces, and evaluate from now."""
        self.captured.clear()
        self.average = None
        self.module_.eval()

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Forget how an earlier run ended, which may have failed."""
        self.on_train_end(net)
        self.is_stopped = self.is_out_of_time = self.is_cut = False
        self.n_resumed, self.rate_factor = 0, 1.0

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call a method of all callbacks, and note whether one of them stops training.

        skorch's way to stop is to raise KeyboardInterrupt, which Ctrl-C does too. A callback that
        stops one process stops all.
        """
        is_told = False
        try:
            super().notify(method_name, **kwargs)
        except KeyboardInterrupt as error:
            is_told = method_name == "on_epoch_end" and is_raised_by_statement(error)
            if not is_told:
                raise
        if method_name == "on_epoch_end":
            self.is_stopped = self.communicator.any(is_told)
            if self.is_stopped:
                raise KeyboardInterrupt

    def run(self, rows: DeviceDataset, deadline: float, checkpoint: Any) -> None:
        """Train for `max_epochs` more, with a deadline and a checkpoint of this run alone.

        Parameters
        ----------
        rows : DeviceDataset
        deadline : float
            When training ends at the latest, after one step at least.
        checkpoint : Checkpoint or None
            Keeps the state between epochs. What it knows is not done again.
        """
        self.deadline, self.checkpoint = deadline, checkpoint
        try:
            self.partial_fit(rows)
        finally:
            self.deadline, self.checkpoint = math.inf, None

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
            n_left = 0 if self.checkpoint.is_finished else n_left - self.n_resumed
        self._run_of = before, n_left + self.n_resumed
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
            ends_late = n_left > 0 and self._is_over(2 * time.monotonic() - began)
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
        n_steps, n_batches = 0, len(iterator)
        began, n_epochs = self._run_of
        self.figures.begin_epoch()
        self.captured.begin_epoch()
        with self.average.training() if self.average else nullcontext():
            for batch in iterator:
                self.is_cut = n_steps > 0 and self._is_over(time.monotonic())
                if self.is_cut:
                    break
                self.notify("on_batch_begin", batch=batch, training=True)
                self.done = (self.n_epochs - began + (n_steps + 0.5) / n_batches) / n_epochs
                step = self.train_step(batch)
                n_steps += 1
                self.history.record_batch("train_batch_size", len(batch[1]))
                self.notify("on_batch_end", batch=batch, training=True, **step)
        # This and the check of the weights are the host–device synchronisations of an epoch.
        of_members = self.figures.of_epoch()
        batches = self.history[-1]["batches"]
        for notes, step, losses in zip(
            batches, of_members.mean(2).tolist(), of_members, strict=True
        ):
            notes.update(zip(FIGURES, step, strict=True))
            notes["train_loss"] = self.n_members * (step[0] + step[1])
            if not math.isfinite(notes["train_loss"]):
                # Through the repulsion one member's loss spoils those of all.
                for what, values in zip(_OF_MEMBERS, losses, strict=False):
                    self.expect_finite(values.isfinite(), what)
        are_finite = finite_members([*self.module_.parameters()])
        self.expect_finite(self.communicator.gather(are_finite), "weight")
        self.history.record("train_batch_count", n_steps)

    def _is_over(self, seconds: float) -> bool:
        """Return whether a time is later than the deadline, for some of the processes."""
        return self.deadline < math.inf and self.communicator.any(seconds > self.deadline)

    @property
    def n_members(self) -> int:
        """Number of members in all processes."""
        return self.communicator.n_members or self.module_.n_members

    @property
    def relative_loss(self) -> Tensor | float:
        """Running mean over steps of the members' relative loss (see `Figures`)."""
        return self.figures.relative_loss

    @relative_loss.setter
    def relative_loss(self, value: Tensor | float) -> None:
        self.figures.relative_loss = value

    def train_step(self, batch: Any) -> Any:
        """Make a step, however often its optimizer evaluates the objective, and count it."""
        strength = strength_of_step(self, batch)
        factor = self.schedule(self.done, self._run_of[1])
        with scaled_rates(self.optimizer_, self.rate_factor * factor):
            step = self.captured(self, super().train_step, batch, strength)
        self.figures.note(torch.stack(step["of_members"]), step["y_pred"].shape[0])
        self.n_steps += 1
        if self.average:
            self.average.update()
        return step

    def train_step_single(self, batch: Any, strength: float | Tensor = 0.0) -> dict[str, Any]:
        """Leave the direction of one particle step in the gradients.

        Returns
        -------
        dict
            ``loss``: the objective, summed over members; ``y_pred``: outputs (B, M, C);
            ``of_members``: driving loss, repulsion and relative loss of each, (M,). In one of
            several processes they are those of its members and rows.

        Raises
        ------
        ValueError
            If the module can't be trained.
        """
        self._set_training(True)
        shared = batch[0].get("shared", True)
        if not shared and len(batch[0]["X"]) != self.n_members:
            raise ValueError(
                f"Got versions of rows for {len(batch[0]['X'])} members from augmentation, but "
                f"expected {self.n_members}."
            )
        inputs, y, n_rows = share_of(batch, self.communicator)
        X, weight = inputs["X"], inputs.get("sample_weight")
        if weight is not None and weight.ndim == 2:
            # Members come first there, in memory too: so each has its sums in one order.
            weight = weight.T.contiguous()
        repulsion = self.repulsion
        is_acting = isinstance(strength, Tensor) or strength
        if repulsion and not (is_acting or repulsion.mixes_driving_force):
            repulsion = None  # Stein's changes the driving force at a strength of zero as well.
        if repulsion and not shared:
            n_compared = repulsion.n_compared(n_rows, self.communicator)
            X = with_rows_compared(X, inputs["rows"], repulsion, n_compared)
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
                    communicator=self.communicator,
                    shared=shared,
                    n_rows=n_rows,
                )
        except RuntimeError as error:
            is_first = len(self.history[-1]["batches"]) == 1
            is_other = isinstance(error, torch.OutOfMemoryError | LostProcessError)
            if self.space_is_users or not is_first or is_other:
                raise
            raise ValueError(CAN_T_BE_TRAINED.format(error)) from error
        relative_loss = self.likelihood.relative_loss(step.driving_loss, step.outputs, y, weight)
        return {
            "loss": step.objective,
            "y_pred": step.outputs.transpose(0, 1),
            "of_members": self.figures.of_step(step, relative_loss, weight),
        }

    def _own_draws(self) -> AbstractContextManager[None]:
        """Give code of the user's that draws from global generators a seed for this step."""
        if not (self.module_.draws_globally or self.space_is_users):
            return nullcontext()
        # Processes draw for other members, or rows.
        where = (self.communicator.members.start or 0, self.communicator.row_share)
        own = where if any(where) else ()
        return seeded_generators(derived_seed(self.seed, self.n_steps, *own), self.device)

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
        raise divergence(self, what, ~are_finite)

    def infer(self, x: Any) -> Tensor:
        """Evaluate all members on a batch's inputs, the same in all processes: outputs (B, M, C).

        Processes that hold the same members share the rows. A module that draws when it is
        evaluated gets a seed of this step.
        """
        X = x["X"]
        is_shared = len(X) >= self.communicator.n_row_shares
        outputs = self.outputs_of_own(X[self.communicator.rows] if is_shared else X)
        outputs = self.communicator.gather(outputs)
        if is_shared:
            outputs = self.communicator.gather_rows(outputs, len(X))
        return torch.transpose(outputs, 0, 1)

    def outputs_of_own(self, X: Tensor) -> Tensor:
        """Evaluate the members of this process, as `infer` does: (m, B, C)."""
        rows = X.to(self.device, self.module_.dtype)
        if self.module_.rows_are_independent:
            rows = filled_up(rows)
        with self._own_draws():
            outputs: Tensor = self.module_(rows)[:, : len(X)]
        return outputs

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
        n_members = None if self.members_differ else self.n_members
        loss: Tensor = self.criterion_(outputs, y_true, weight, n_members)
        loss = self.communicator.broadcast(loss)  # On which training stops, in all of them.
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
