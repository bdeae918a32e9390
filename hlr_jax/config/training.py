"""The fields of `config.optimizer`, `config.training` and `config.sharding`."""

import dataclasses

from hlr_jax.config.values import Section, require, require_one_of


@dataclasses.dataclass(frozen=True, repr=False)
class OptimizerConfig(Section):
    """An Optax optimizer and its learning-rate schedule."""

    # adam, adamw, adagrad or sgd.
    name: str = "adam"
    # The highest: after warm-up, and before a schedule lowers it.
    learning_rate: float = 1e-3
    # constant; exponential (times decay_rate per epoch); cosine (down to 0 in schedule_epochs).
    schedule: str = "constant"
    # Epochs until a cosine has come down to 0; 0 takes config.training.epochs.
    schedule_epochs: int = 0
    # Factor of the learning rate after each epoch of the exponential schedule.
    decay_rate: float = 0.98
    # Epochs of linear warm-up from 0 before the schedule begins.
    warmup_epochs: float = 0.0
    # Global norm that longer gradients are scaled down to; 0 leaves them.
    gradient_clip: float = 0.0
    # Decoupled weight decay, for adamw.
    weight_decay: float = 1e-4
    # The row of a user or item with n training interactions decays by weight_decay times
    # (n / mean n)^weight_decay_exponent; 0 decays all rows equally.
    weight_decay_exponent: float = 0.0
    # Which rows of the tables a step updates. dense: all of them, as for the papers' figures.
    # sparse: only those of the batch, in a time that does not depend on the tables' sizes. With
    # sgd and adagrad both give the same numbers; with sparse updates adam leaves the moments of
    # other rows as they are, and adamw their weights.
    updates: str = "dense"

    def check(self) -> None:
        require_one_of(self.name, ("adam", "adamw", "adagrad", "sgd"), "optimizer.name")
        require_one_of(self.updates, ("dense", "sparse"), "optimizer.updates")
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
        exponent = self.weight_decay_exponent
        require(-1 <= exponent <= 1, "optimizer.weight_decay_exponent", exponent, "use -1 to 1")
        require(
            self.name == "adamw" or not exponent,
            "optimizer.weight_decay_exponent",
            exponent,
            f"{self.name} has no weight decay; set config.optimizer.name='adamw'",
        )


@dataclasses.dataclass(frozen=True, repr=False)
class TrainingConfig(Section):
    """How long to train, in which batches, and which epoch to keep."""

    # Passes over the training interactions, at most.
    epochs: int = 100
    # Interactions of a step on all devices together, or users: what `batch_of` says.
    batch_size: int = 1000
    # What batch_size counts. interactions; or users, some tens of them, each with all of its
    # interactions, so that its distances to all items are computed once. Users need
    # config.sampling.negatives="full_catalog", or "shared": then a step takes those positives
    # that are among its `num_negatives` items.
    batch_of: str = "interactions"
    # Stop after this many epochs without a better selection value; 0 never stops early.
    patience: int = 10
    # What selects the best epoch on validation: loss, or a metric and its cutoff, as in ndcg@10.
    selection_metric: str = "loss"
    # After the best epoch is known, train again for as many epochs on training and validation
    # interactions together: that model is measured on the test split and recommends.
    refit: bool = False
    # Tables to start from: another run's folder, or an .npz file with arrays "user" [U, d]
    # and/or "item" [I, d].
    pretrained: str = ""
    # Leave the table of users as it is.
    freeze_user: bool = False
    # Leave the table of items as it is.
    freeze_item: bool = False
    # Of matrix products in a step, on accelerators: default is JAX's (TF32 on NVIDIA GPUs), float32
    # is full precision, bfloat16 rounds factors to bfloat16. Sums are float32 always, and so are
    # distances between rows.
    matmul_precision: str = "default"
    # Save within an epoch when this many minutes have passed since the last save; with
    # on_nonfinite="rollback" runs save between epochs alone.
    checkpoint_minutes: float = 10.0
    # When loss or parameters are no longer finite. stop: with an error, and the last checkpoint
    # kept. rollback: go back to the start of the epoch, halve the learning rate from there on, and
    # train again; devices keep one more state, and an interrupted epoch begins anew.
    on_nonfinite: str = "stop"
    # Rollbacks of a run, at most; the next time it stops.
    rollbacks: int = 3
    # Same configuration, same hardware, same bits, on GPUs too, where it costs time; CPUs do so
    # anyway.
    deterministic: bool = False

    def check(self) -> None:
        for field in ("epochs", "batch_size"):
            value = getattr(self, field)
            require(value >= 1, f"training.{field}", value, "use 1 or more")
        require_one_of(self.batch_of, ("interactions", "users"), "training.batch_of")
        require_one_of(
            self.matmul_precision,
            ("default", "float32", "bfloat16"),
            "training.matmul_precision",
        )
        require(self.patience >= 0, "training.patience", self.patience, "use 0 or more")
        require_one_of(self.on_nonfinite, ("stop", "rollback"), "training.on_nonfinite")
        require(self.rollbacks >= 1, "training.rollbacks", self.rollbacks, "use 1 or more")
        require(
            self.checkpoint_minutes > 0,
            "training.checkpoint_minutes",
            self.checkpoint_minutes,
            "use a time above 0",
        )


@dataclasses.dataclass(frozen=True, repr=False)
class ShardingConfig(Section):
    """What is divided among devices besides each batch. It changes no number of a run."""

    # replicated: every device has all tables and interactions. sharded: each device has a shard of
    # the users, with their rows, optimizer state and interactions.
    tables: str = "replicated"
    # Shards of the item rows and their optimizer state; needs tables="sharded". 1 keeps all item
    # rows on every device. It must divide the number of devices of a process.
    item_shards: int = 1
    # Each batch takes an equal share from each of this many parts of the users. A device takes
    # whole parts, so that batches are the same on any number of devices; if the parts are uneven,
    # a batch has about (not exactly) the batch size. 0: 1 if replicated, else a multiple of 64.
    user_parts: int = 0

    def check(self) -> None:
        require_one_of(self.tables, ("replicated", "sharded"), "sharding.tables")
        require(self.user_parts >= 0, "sharding.user_parts", self.user_parts, "use 0 or more")
        require(self.item_shards >= 1, "sharding.item_shards", self.item_shards, "use 1 or more")
        require(
            self.item_shards == 1 or self.is_sharded,
            "sharding.item_shards",
            self.item_shards,
            "set config.sharding.tables='sharded' too",
        )

    @property
    def is_sharded(self) -> bool:
        return self.tables == "sharded"
