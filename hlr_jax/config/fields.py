"""Every field of a run's configuration, with its meaning, default and bounds."""

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from hlr_jax.config.values import Section, require, require_one_of


@dataclasses.dataclass(frozen=True)
class DataConfig(Section):
    """Which interactions, how they are filtered and how they are split.

    `name` is a data set of the registry (`hlr_jax.data.datasets`), or `file` for the
    user's own table at `path`. `predefined` names train/valid/test files; then nothing is
    filtered, and nothing split but `valid_fraction` of train where there is no valid file.
    """

    name: str = "embedded"
    # A folder with train/valid/test files, or the name of one under `splits/` of the data folder.
    predefined: str = ""
    # Only for name="file": the table, its format ("" goes by the file's extension) and its
    # columns (a header's name, or a 0-based position where there is no header).
    path: str = ""
    format: str = ""
    user_column: str = "user"
    item_column: str = "item"
    rating_column: str = ""
    timestamp_column: str = ""
    # Keep interactions rated at least this; None takes the data set's own rule.
    min_rating: float | None = None
    # Keep users and items with at least this many interactions, repeated until all have;
    # None takes the data set's own rule.
    core: int | None = None
    # The same for items alone; None takes that of `core`.
    item_core: int | None = None
    # Features of items, for a model that reads them: own (those that the data set ships: genres,
    # tags), or a .csv or .tsv file with a header, each line of which has an item's id and then
    # numbers. Items without any get zeros; the others' are scaled to a length of 1. "" for none.
    features: str = ""
    # random, per_user, leave_one_out, global_time, per_user_time; or fixed: the split that the
    # data set itself ships. "" takes fixed where there is one, else random.
    split: str = ""
    valid_fraction: float = 0.08
    test_fraction: float = 0.2
    split_seed: int = 2021
    # Validation interactions are training ones too: for a last run whose length is known.
    join_valid: bool = False

    SPLITS: typing.ClassVar = (
        "",
        "random",
        "per_user",
        "leave_one_out",
        "global_time",
        "per_user_time",
        "fixed",
    )
    OWN_FEATURES: typing.ClassVar = "own"
    FORMATS: typing.ClassVar = ("", "csv", "tsv", "dat", "ndjson", "parquet", "adjacency", "lists")

    def check(self) -> None:
        require(bool(self.name), "data.name", self.name, "name a data set, or 'file'")
        require_one_of(self.split, self.SPLITS, "data.split")
        require_one_of(self.format, self.FORMATS, "data.format")
        require(
            self.name != "file" or bool(self.path or self.predefined),
            "data.path",
            self.path,
            "give the table's path (config.data.name is 'file')",
        )
        for field in ("core", "item_core"):
            value = getattr(self, field)
            require(
                value is None or value >= 0, f"data.{field}", value, "use 0 (no filter) or more"
            )
        for field in ("valid_fraction", "test_fraction"):
            value = getattr(self, field)
            require(0 < value < 1, f"data.{field}", value, "use a fraction between 0 and 1")
        require(
            self.valid_fraction + self.test_fraction < 1,
            "data.test_fraction",
            self.test_fraction,
            f"with config.data.valid_fraction={self.valid_fraction} nothing is left to train on",
        )

    @property
    def has_features_file(self) -> bool:
        """Whether features are those of a file, and not the data set's own."""
        return self.features not in ("", self.OWN_FEATURES)


@dataclasses.dataclass(frozen=True)
class ModelConfig(Section):
    """Which model: the embedding tables' width and bound, and the model's own options.

    `options` maps the fields of the model's module to values; fields left out keep
    the module's default.
    """

    name: str = "hlr"
    dim: int = 100
    # Radius of the ball or sphere that user and item rows are projected on after each step.
    clip_norm: float = 1.0
    # ball (CML), or sphere: every row's length is clip_norm (SFCML).
    surface: str = "ball"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def check(self) -> None:
        require(self.dim >= 1, "model.dim", self.dim, "the embedding size must be at least 1")
        require(self.clip_norm > 0, "model.clip_norm", self.clip_norm, "use a radius above 0")
        require_one_of(self.surface, ("ball", "sphere"), "model.surface")


@dataclasses.dataclass(frozen=True)
class SamplingConfig(Section):
    """What is drawn for each positive interaction."""

    # K, negatives per positive.
    negatives: int = 1
    # Whose they are. triplet: every positive draws its own. batch: K are drawn for the positives
    # of a step together; repeats count once, and what a user has seen not at all. catalogue: all
    # items are, whatever K.
    pool: str = "triplet"
    # Negatives are drawn with a probability ~ (training popularity)^skew; 0 draws uniformly.
    skew: float = 0.0
    # P, the most items of a user's history that a relation sees.
    history_length: int = 50
    # How P of a longer history are chosen: uniform, or unpopular (probability ~ 1/popularity).
    history: str = "uniform"

    def check(self) -> None:
        require(self.negatives >= 1, "sampling.negatives", self.negatives, "draw at least 1")
        require(
            self.history_length >= 1,
            "sampling.history_length",
            self.history_length,
            "use 1 or more",
        )
        require_one_of(self.pool, ("triplet", "batch", "catalogue"), "sampling.pool")
        require(0 <= self.skew <= 2, "sampling.skew", self.skew, "use 0 to 2")
        require(
            not (self.skew and self.pool == "catalogue"),
            "sampling.skew",
            self.skew,
            "use 0: with config.sampling.pool='catalogue' nothing is drawn",
        )
        require_one_of(self.history, ("uniform", "unpopular"), "sampling.history")


@dataclasses.dataclass(frozen=True)
class LossConfig(Section):
    """The loss of a positive and its negatives, and what may be added to it."""

    # hinge: of every negative (the papers). closest: of the closest negative alone. semi_hard: of
    # the closest that is farther than the positive. two_sided: |gap - margin| of every one (CPE).
    # squared: (margin - gap)^2, mean over the negatives (SFCML). contrastive: distance of the
    # positive, and the mean of what negatives lack to the margin (SimpleX). softmax: -log p of the
    # positive among all.
    name: str = "hinge"
    # By how much farther a negative should be than the positive; contrastive: the squared distance
    # from the user beyond which a negative is not pushed.
    margin: float = 0.5
    # Of the contrastive: what all negatives of a positive count together, where that counts 1.
    negative_weight: float = 100.0
    # Of the softmax: p ~ exp(-squared distance / temperature).
    temperature: float = 0.5
    # sum over the batch (the published HLR code) or mean.
    reduction: str = "sum"
    # The hinge of the closest negative times WARP's weight log(1 + estimated rank), CML eq. 5;
    # wants several negatives.
    rank_weight: bool = False
    # A positive counts (training interactions of its user)^-balance: 0 counts interactions alike,
    # 1 users.
    balance: float = 0.0
    # Reuse the positive's relation for the negatives instead of one of their own.
    copy_relation: bool = False
    # Weight of a penalty on the covariance of all rows; 0 leaves it out. off_diagonal: what is
    # beside the diagonal (CML, eq. 7); log_det: its divergence from the identity (CPE, eq. 12).
    covariance: float = 0.0
    covariance_form: str = "off_diagonal"

    NAMES: typing.ClassVar = (
        "hinge",
        "closest",
        "semi_hard",
        "two_sided",
        "squared",
        "contrastive",
        "softmax",
    )
    # Those which need no more of the negatives than sums over them, whatever the positive.
    OF_USERS: typing.ClassVar = ("squared", "contrastive", "softmax")

    def check(self) -> None:
        require_one_of(self.name, self.NAMES, "loss.name")
        require(self.margin >= 0, "loss.margin", self.margin, "the margin must not be negative")
        require(
            self.negative_weight >= 0, "loss.negative_weight", self.negative_weight, "use 0 or more"
        )
        require(self.temperature > 0, "loss.temperature", self.temperature, "use more than 0")
        require(0 <= self.balance <= 1, "loss.balance", self.balance, "use 0 to 1")
        require(
            not self.rank_weight or self.name in ("hinge", "closest"),
            "loss.rank_weight",
            self.rank_weight,
            f"it weighs hinges; use False with config.loss.name={self.name!r}",
        )
        require_one_of(self.reduction, ("sum", "mean"), "loss.reduction")
        require(self.covariance >= 0, "loss.covariance", self.covariance, "use 0 or more")
        require_one_of(self.covariance_form, ("off_diagonal", "log_det"), "loss.covariance_form")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Section):
    """An Optax optimizer and its learning-rate schedule."""

    name: str = "adam"
    learning_rate: float = 1e-3
    # constant; exponential (times decay_rate per epoch); cosine (to 0 after schedule_epochs).
    schedule: str = "constant"
    # 0 takes config.training.epochs.
    schedule_epochs: int = 0
    decay_rate: float = 0.98
    # Epochs of linear warm-up from 0 before the schedule begins.
    warmup_epochs: float = 0.0
    # Global gradient norm above which gradients are scaled down; 0 leaves them.
    gradient_clip: float = 0.0
    # Decoupled weight decay, for adamw.
    weight_decay: float = 1e-4
    # Which rows of the tables a step updates: all (as the papers' figures need), or only those
    # touched by the batch, in a time that does not depend on the tables' sizes. With sgd and
    # adagrad that is the same; adam then leaves the moments of other rows as they are, and adamw
    # their weights.
    rows: str = "all"

    def check(self) -> None:
        require_one_of(self.name, ("adam", "adamw", "adagrad", "sgd"), "optimizer.name")
        require_one_of(self.rows, ("all", "touched"), "optimizer.rows")
        require_one_of(self.schedule, ("constant", "exponential", "cosine"), "optimizer.schedule")
        require(
            self.learning_rate > 0,
            "optimizer.learning_rate",
            self.learning_rate,
            "use a rate above 0",
        )
        require(0 < self.decay_rate <= 1, "optimizer.decay_rate", self.decay_rate, "use (0, 1]")
        for field in ("schedule_epochs", "warmup_epochs", "gradient_clip", "weight_decay"):
            value = getattr(self, field)
            require(value >= 0, f"optimizer.{field}", value, "use 0 or more")


@dataclasses.dataclass(frozen=True)
class TrainingConfig(Section):
    """How long, in what batches, and which epoch is kept."""

    epochs: int = 100
    batch_size: int = 1000
    # What a step has batch_size of: interactions; or users, some tens of them, each with all of its
    # interactions, whose distances to the catalogue are computed once. Users need
    # config.sampling.pool="catalogue", and the softmax, contrastive or squared loss.
    batch_of: str = "interactions"
    # Stop after this many epochs without a better selection value; 0 never stops early.
    patience: int = 10
    # What selects the best epoch: loss (validation, per term) or a metric, as in ndcg@10.
    select: str = "loss"
    # After the best epoch is known, train anew for as many on training and validation together:
    # that model is measured on test and recommends.
    refit: bool = False
    # Tables to start from: another run's folder, or an .npz file with arrays "user" [U, d]
    # and/or "item" [I, d].
    pretrained: str = ""
    # Tables that stay as they start.
    freeze_user: bool = False
    freeze_item: bool = False
    # Save within an epoch when this many minutes have passed since the last save.
    checkpoint_minutes: float = 10.0
    tensorboard: bool = False

    def check(self) -> None:
        for field in ("epochs", "batch_size"):
            value = getattr(self, field)
            require(value >= 1, f"training.{field}", value, "use 1 or more")
        require_one_of(self.batch_of, ("interactions", "users"), "training.batch_of")
        require(self.patience >= 0, "training.patience", self.patience, "use 0 or more")
        require(
            self.checkpoint_minutes > 0,
            "training.checkpoint_minutes",
            self.checkpoint_minutes,
            "use a time above 0",
        )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Section):
    """How a trained model is measured."""

    cutoffs: Sequence[int] = (10,)
    # full: the whole catalogue without seen items; sampled: the data set's given negatives.
    protocol: str = "full"
    # History items a relation sees when ranking; 0 takes config.sampling.history_length.
    history_length: int = 0
    # Also report mean and standard deviation over this many disjoint random groups of users
    # (the HLR paper: 5 cohorts of 10,000); 0 leaves them out.
    cohorts: int = 0
    cohort_size: int = 10_000
    # Resamples of the bootstrap 95 % interval; 0 leaves it out.
    bootstrap: int = 1000
    # Also report every user's own values, in the order of the data set's ids: to compare two
    # models user by user.
    per_user: bool = False
    # Users ranked at once.
    batch_size: int = 8192

    def check(self) -> None:
        require(bool(self.cutoffs), "evaluation.cutoffs", self.cutoffs, "give at least one cutoff")
        require(
            all(k >= 1 for k in self.cutoffs), "evaluation.cutoffs", self.cutoffs, "use 1 or more"
        )
        require_one_of(self.protocol, ("full", "sampled"), "evaluation.protocol")
        for field in ("history_length", "cohorts", "bootstrap"):
            value = getattr(self, field)
            require(value >= 0, f"evaluation.{field}", value, "use 0 or more")
        for field in ("cohort_size", "batch_size"):
            value = getattr(self, field)
            require(value >= 1, f"evaluation.{field}", value, "use 1 or more")


@dataclasses.dataclass(frozen=True)
class ShardingConfig(Section):
    """What devices share out, besides every batch. It changes no number of a run."""

    # replicated: every device has all tables and interactions. sharded: users are cut into
    # blocks, and a device has a block's rows, optimizer state and interactions.
    tables: str = "replicated"
    # Blocks that item rows are cut into, with their optimizer state; needs tables="sharded".
    # 1 leaves them on every device. It must divide the number of devices of a process.
    item_blocks: int = 1
    # Every batch takes its share from each of this many parts of the users. Devices take whole
    # parts, so with the same number any devices see the same batches, of about (not exactly) the
    # batch size if the parts are uneven. 0: 1 if replicated, else a multiple of 64.
    user_parts: int = 0

    def check(self) -> None:
        require_one_of(self.tables, ("replicated", "sharded"), "sharding.tables")
        require(self.user_parts >= 0, "sharding.user_parts", self.user_parts, "use 0 or more")
        require(self.item_blocks >= 1, "sharding.item_blocks", self.item_blocks, "use 1 or more")
        require(
            self.item_blocks == 1 or self.is_sharded,
            "sharding.item_blocks",
            self.item_blocks,
            "set config.sharding.tables='sharded' too",
        )

    @property
    def is_sharded(self) -> bool:
        return self.tables == "sharded"


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that decides a run's numbers."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    sharding: ShardingConfig = dataclasses.field(default_factory=ShardingConfig)
    seed: int = 2021

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "use 0 to 2^32 - 1")
        require(
            self.optimizer.rows == "all" or not self.loss.covariance,
            "optimizer.rows",
            self.optimizer.rows,
            "use all, because config.loss.covariance moves every row",
        )
        self._check_batches()
        require(
            not (self.training.refit and self.data.join_valid),
            "training.refit",
            self.training.refit,
            "with config.data.join_valid=True there is nothing to add",
        )
        require(
            not (self.sharding.is_sharded and self.loss.covariance),
            "loss.covariance",
            self.loss.covariance,
            "it needs all rows on a device; set config.sharding.tables='replicated'",
        )

    def _check_batches(self) -> None:
        """Raises InputError where users cannot be taken with all of their interactions."""
        if self.training.batch_of != "users":
            return
        field = "training.batch_of"
        require(
            self.sampling.pool == "catalogue",
            field,
            "users",
            "a user's negatives are all others; set config.sampling.pool='catalogue' (models that "
            "read histories take interactions)",
        )
        require(
            self.loss.name in self.loss.OF_USERS,
            field,
            "users",
            f"set config.loss.name to one of {', '.join(self.loss.OF_USERS)}",
        )
        require(
            not self.loss.copy_relation,
            field,
            "users",
            "a user's positives share its negatives; set config.loss.copy_relation=False",
        )
