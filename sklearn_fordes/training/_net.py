"""A skorch net whose module is an ensemble and whose train step repels its members."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from skorch import NeuralNet, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EpochTimer, PassthroughScoring
from skorch.dataset import unpack_data
from skorch.utils import to_tensor
from torch import Tensor

from sklearn_fordes.particles import (
    CATEGORICAL,
    GAUSSIAN,
    Ensemble,
    Likelihood,
    Repulsion,
    accumulate_gradients,
    compile_step,
)
from sklearn_fordes.training._averaging import WeightAverage
from sklearn_fordes.training._data import Batches, Rows
from sklearn_fordes.training._outputs import (
    EnsembleGaussianLoss,
    EnsembleLogLoss,
    batch_first,
    mean_prediction,
    mean_probability,
)
from sklearn_fordes.training._schedule import Points, Schedule

_NO_SCHEDULE = Schedule()
_TRAINING_RECORDS = ("train_loss", "driving_loss", "repulsion", "unexplained")
# Of the running mean over steps of what members still get wrong.
_UNEXPLAINED_DECAY = 0.95


class ParticleNet(NeuralNet):
    """Trains the members of an ensemble together as particles.

    Works on `Rows` in `Batches`; what leaves `infer` is batch first, ``(B, M, C)``.

    Parameters
    ----------
    module : type or callable, default=Ensemble
    likelihood : Likelihood, default=CATEGORICAL
        What the outputs mean.
    repulsion : Repulsion, optional
        None trains a deep ensemble.
    schedule : Schedule, default=Schedule()
        When the repulsion acts, and how strongly.
    ema_decay : float, default=0.0
        Of the moving average of the weights, which the module holds outside of training epochs: in
        validation and afterwards. It begins anew with each run. 0 averages nothing.
    points : callable, optional
        Maps a batch's inputs and a number to so many points at which members are compared beside
        the batch's rows. Held for the time of a training run.
    compiles_step : bool, default=False
        Whether `torch.compile` makes machine code of the train step.
    **kwargs
        As in `skorch.NeuralNet`.
    """

    outputs_are = "one set for each row"  # said where a module's are of another shape

    def __init__(
        self,
        module: Any = Ensemble,
        *args: Any,
        likelihood: Likelihood = CATEGORICAL,
        repulsion: Repulsion | None = None,
        schedule: Schedule = _NO_SCHEDULE,
        ema_decay: float = 0.0,
        points: Points | None = None,
        compiles_step: bool = False,
        criterion: Any = EnsembleLogLoss,
        dataset: Any = Rows,
        iterator_train: Any = Batches,
        iterator_valid: Any = Batches,
        train_split: Any = None,
        predict_nonlinearity: Any = mean_probability,
        verbose: int = 0,
        **kwargs: Any,
    ) -> None:
        self.likelihood = likelihood
        self.repulsion = repulsion
        self.schedule = schedule
        self.ema_decay = ema_decay
        self.points = points
        self.compiles_step = compiles_step
        self.compiled_step: Any = None
        self.n_steps = 0
        self.unexplained = 1.0  # running mean of the share that members still get wrong
        self.average: WeightAverage | None = None  # while training
        super().__init__(
            module,
            *args,
            criterion=criterion,
            dataset=dataset,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            train_split=train_split,
            predict_nonlinearity=predict_nonlinearity,
            verbose=verbose,
            **kwargs,
        )

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        # skorch's own would predict the whole validation set once more each epoch, and print.
        return [
            ("epoch_timer", EpochTimer()),
            *(
                (name, PassthroughScoring(name, on_train=name != "valid_loss"))
                for name in (*_TRAINING_RECORDS, "valid_loss")
            ),
        ]

    def initialize_optimizer(self, triggered_directly: Any = None) -> ParticleNet:
        """Make the optimizer, with weight decay on weights only: not on biases and norms."""
        super().initialize_optimizer()
        for group in list(self.optimizer_.param_groups):
            # A member's vector is a matrix in the stack.
            vectors = [p for p in group["params"] if p.ndim <= 2]
            matrices = [p for p in group["params"] if p.ndim > 2]
            if "weight_decay" not in group or not vectors:
                continue
            if matrices:
                group["params"] = matrices
                self.optimizer_.add_param_group({**group, "params": vectors, "weight_decay": 0.0})
            else:
                group["weight_decay"] = 0.0
        return self

    def on_train_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Forget the average of an earlier run that failed."""
        super().on_train_begin(net, *args, **kwargs)
        self.average = None

    def on_train_end(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Drop what the average stood in for."""
        super().on_train_end(net, *args, **kwargs)
        self.average = None

    def run_single_epoch(self, iterator: Any, training: bool, *args: Any, **kwargs: Any) -> None:
        """Run an epoch: of training on the weights that are trained, of validation on the rest."""
        if training and self.ema_decay and self.average is None:
            # Not before: callbacks may set the weights when a run begins.
            self.average = WeightAverage(self.module_.parameters(), self.ema_decay)
        average = self.average if training else None
        with nullcontext() if average is None else average.training():
            super().run_single_epoch(iterator, training, *args, **kwargs)

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Make a step, however often its optimizer evaluates the objective, and count it."""
        step = super().train_step(batch, **fit_params)
        unexplained = self.history[-1, "batches", -1, "unexplained"]
        mean = _UNEXPLAINED_DECAY * self.unexplained + (1 - _UNEXPLAINED_DECAY) * unexplained
        self.unexplained = min(1.0, mean)
        self.n_steps += 1
        if self.average is not None:
            self.average.update()
        return step

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Tensor]:
        """Leave the direction of one particle step in the gradients.

        Returns
        -------
        dict
            ``loss``: what is descended, summed over members; ``y_pred``: outputs (B, M, C).

        Raises
        ------
        ValueError
            If the loss is not finite.
        """
        self._set_training(True)
        inputs, y = unpack_data(batch)
        repulsion = self._repulsion_now(len(inputs["X"]))
        points = None
        if repulsion is not None and self.points is not None and not repulsion.is_idle:
            points = self.points(inputs["X"], repulsion.n_rows(len(inputs["X"])))
        step = accumulate_gradients(
            self.module_,
            inputs["X"],
            y,
            inputs.get("sample_weight"),
            repulsion,
            likelihood=self.likelihood,
            points=points,
            compiled=self._compiled(),
        )
        unexplained = self.likelihood.unexplained(
            step.driving_loss, step.outputs, y, inputs.get("sample_weight")
        )
        means = torch.stack([step.driving_loss, step.repulsion, unexplained]).mean(1)
        driving_loss, repulsion, unexplained = means.tolist()  # the one wait for a GPU
        loss = self.module_.n_members * (driving_loss + repulsion)
        if not math.isfinite(loss):
            raise ValueError(self.divergence_message("training loss"))
        for name, value in zip(
            _TRAINING_RECORDS[1:], (driving_loss, repulsion, unexplained), strict=True
        ):
            self.history.record_batch(name, value)
        return {"loss": torch.tensor(loss), "y_pred": batch_first(step.outputs)}

    def _compiled(self) -> Any:
        if self.compiles_step and self.compiled_step is None:
            self.compiled_step = compile_step()
        return self.compiled_step

    def _repulsion_now(self, n_rows: int) -> Repulsion | None:
        """Return the repulsion of the step that begins, as strong as it is then."""
        if self.repulsion is None:
            return None
        epoch = len(self.history) - 1
        factor = self.schedule.factor(epoch, self.n_steps, n_rows, self.unexplained)
        return replace(self.repulsion, strength=factor * self.repulsion.strength)

    def __getstate__(self) -> dict[str, Any]:
        # An average belongs to the very tensors that it swaps, compiled code to the process.
        return {**super().__getstate__(), "average": None, "compiled_step": None}

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Mark the epoch as whole: an interrupted one is not."""
        super().on_epoch_end(net, **kwargs)
        self.history.record("completed", True)

    @property
    def n_epochs(self) -> int:
        """Number of epochs completed."""
        return sum("completed" in epoch for epoch in self.history)

    def divergence_message(self, what: str) -> str:
        """Say when `what` stopped being finite and what to lower."""
        rate = self.optimizer_.param_groups[0]["lr"]
        repels = self.repulsion is not None and self.repulsion.strength
        repelled = " or repulsion_strength" if repels else ""
        return (
            f"Got a {what} that is not finite (NaN or infinite) in epoch "
            f"{len(self.history)}, but expected finite numbers. Lower lr (now {rate:g}){repelled}, "
            "or scale the input to unit variance."
        )

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        """Evaluate the members on a batch's inputs: outputs (B, M, C)."""
        X = x["X"] if isinstance(x, dict) else x
        return batch_first(self.module_(to_tensor(X, device=self.device)))

    def get_loss(
        self, y_pred: Tensor, y_true: Tensor, X: Any = None, training: bool = False
    ) -> Tensor:
        """Return the ensemble's loss on a batch, with its rows' weights if it has any.

        Raises
        ------
        ValueError
            If it is not finite.
        """
        weight = X.get("sample_weight") if isinstance(X, dict) else None
        loss: Tensor = self.criterion_(y_pred, y_true, weight)
        if not math.isfinite(loss.item()):
            raise ValueError(self.divergence_message("validation loss"))
        return loss


class ParticleClassifierNet(ParticleNet, NeuralNetClassifier):
    """A `ParticleNet` whose `predict_proba` is the ensemble's mean probability.

    So skorch's callbacks that score predictions do what they say.
    """

    outputs_are = "with a logit for each class"


class ParticleRegressorNet(ParticleNet, NeuralNetRegressor):
    """A `ParticleNet` whose `predict` is the mean of the members' means."""

    outputs_are = "with a mean and what softplus turns into a variance"

    def __init__(
        self,
        *args: Any,
        likelihood: Likelihood = GAUSSIAN,
        criterion: Any = EnsembleGaussianLoss,
        predict_nonlinearity: Any = mean_prediction,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            likelihood=likelihood,
            criterion=criterion,
            predict_nonlinearity=predict_nonlinearity,
            **kwargs,
        )


def can_compile(net: ParticleNet) -> bool:
    """Whether a net's train step can be compiled: nothing in it needs autograd."""
    return getattr(net.module_, "compiles", False) and (
        net.repulsion is None or net.repulsion.space.compiles
    )
