"""Save and restore checkpoints: the latest states of a run, and its best parameters.

Orbax writes the arrays; a manifest that is written after them makes a folder a checkpoint. A state
names the best parameters it counts on, so that neither is used without the other.
"""

import contextlib
import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array

from hlr_jax import config as configs
from hlr_jax.errors import InputError
from hlr_jax.parallel import processes
from hlr_jax.runs import manifests
from hlr_jax.runs.identity import OF_ANY, Identity, check_same_model, check_same_run
from hlr_jax.runs.manifests import DamagedError, Manifest
from hlr_jax.runs.orbax_errors import reading, saving
from hlr_jax.training.state import TrainState
from hlr_jax.training.store import Progress
from hlr_jax.types import Params

LATEST, BEST = "latest", "best"
# What to do where nothing is left.
_AGAIN = "the same training command trains again"


class _Choice(NamedTuple):
    """The state to use, the newest that is whole and whose best parameters are.

    Attributes:
      number: of its folder; 0 if there is none.
      manifest: of it; of nothing if there is none.
      skipped: newer ones, each with what is wrong with it.
    """

    number: int = 0
    manifest: Manifest = Manifest(Progress(), {}, {}, "")
    skipped: tuple[str, ...] = ()


class _Best(NamedTuple):
    """The best parameters so far, for the next state to name."""

    number: int = 0
    checksum: int = 0
    epoch: int = 0


class Checkpoints:
    """Keeps checkpoints in the folders `latest` and `best` of a run.

    Those are the newest two states, the newest that counts on other best parameters than the newest
    does, and the best parameters that they name: if any file is damaged, the run goes on from a
    state before it. All processes of a run save and restore together, each the arrays of its
    devices. The files are on a file system that they share; the first process reads and checks
    those of all.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        rows: Mapping[str, int] | None = None,
        identity: Identity = OF_ANY,
        is_trained: bool = False,
    ) -> None:
        """Keep checkpoints in a folder.

        Args:
          rows: how many rows of each table stand for a user or an item, if not all. Where tables
            are sharded, unused rows fill the shards up; a restored table has as many of them as
            the new placement needs, so that it may be another one than that which saved.
          identity: what the run is of.
          is_trained: whether nothing but the best parameters is used.
        """
        self.folder = folder.absolute()
        self.rows = rows
        self.identity = identity
        self.is_trained = is_trained
        self._choice: _Choice | None = None
        self._best = _Best()
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())

    def save(self, state: TrainState, progress: Progress) -> None:
        """Save the state as `latest`; it counts on the best parameters that were saved last.

        Raises:
          InputError: the system does not allow it.
        """
        # A state that the best parameters are ahead of does not count on them.
        best = self._best_of(progress)
        manifest = self._write(LATEST, vars(state), progress, best)
        self._choice = _Choice(*manifest)
        with saving(self.folder, self._sweep):
            self._sweep()

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Save the parameters of a state as `best`; used once a state that follows names them.

        Raises:
          InputError: the system does not allow it.
        """
        number, manifest = self._write(BEST, state.params, progress, _Best())
        self._best = _Best(number, manifest.checksum, progress.best_epoch)

    def restore(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Restore the latest state; None if there is no checkpoint that can be used.

        Args:
          like: a state, or its shapes and shardings, which the restored one gets.

        Raises:
          InputError: the checkpoint has other shapes, or is of another run.
        """
        choice = self._chosen()
        if not choice.number:
            return None
        state = self._restore(LATEST, choice.number, choice.manifest, vars(like))
        return TrainState(**state), choice.manifest.progress

    def restore_best(self, like: Params) -> Params:
        """Restore the parameters that are the best by the latest state.

        Args:
          like: parameters, or their shapes and shardings, which the restored ones get.

        Raises:
          InputError: there are none, they have other shapes, or are of another run.
        """
        choice = self._chosen()
        if not choice.manifest.best:
            lost = f"{self.folder / LATEST}: no checkpoint names the best epoch"
            why = [*choice.skipped, lost][0]
            raise InputError(f"{why}; nothing else is left: {_AGAIN}")
        number = choice.manifest.best
        manifest = manifests.whole(self.folder / BEST / str(number))
        return self._restore(BEST, number, manifest, like)

    def progress(self) -> Progress:
        """Read how far the latest state has come; not at all if there is none that can be used.

        Raises:
          InputError: it is of another run.
        """
        return self._chosen().manifest.progress

    # ---------------------------------------------------------------------------------------------
    # Which checkpoint is used.

    def _chosen(self) -> _Choice:
        """Choose a state once; the first process does, and says what it passes over."""
        if self._choice is None:
            choice = self._newest_whole() if processes.is_first() else _Choice()
            number = int(processes.largest(choice.number)[0])
            if number and not choice.number:
                choice = _Choice(number, manifests.whole(self.folder / LATEST / str(number)))
            self._check_identity(choice)
            self._choice = choice
            manifest = choice.manifest
            self._best = _Best(manifest.best, manifest.best_checksum, manifest.progress.best_epoch)
        return self._choice

    @property
    def is_empty(self) -> bool:
        """Whether there is no state at all, whole or not."""
        return not self._numbers(LATEST)

    def _newest_whole(self) -> _Choice:
        skipped: list[str] = []
        choice, numbers = _Choice(), self._numbers(LATEST)
        for number in reversed(numbers):
            try:
                choice = _Choice(number, self._verified(number), tuple(skipped))
                break
            except DamagedError as error:
                skipped.append(str(error))
        if self.is_trained and not choice.number and numbers != self._numbers(LATEST):
            return self._newest_whole()  # A run has written others meanwhile, and removed these.
        epoch = choice.manifest.progress.epochs
        instead = f"epoch {epoch} is used" if self.is_trained else f"going on from epoch {epoch}"
        if not choice.number:
            choice = _Choice(skipped=tuple(skipped))
            instead = "nothing else is left: training starts again"
        # Who only reads and has nothing left gets an error instead.
        for reason in skipped if choice.number or not self.is_trained else ():
            logging.warning("%s; %s", reason, instead)
        return choice

    def _verified(self, number: int) -> Manifest:
        """Read the manifest of a state, and check all files of it and of its best parameters.

        Raises:
          DamagedError: one of them is not as it was written.
          InputError: they are of another version of the library, or may not be read.
        """
        folder = self.folder / LATEST / str(number)
        if (folder / "progress").exists():
            raise InputError(
                f"{folder}: the checkpoint is of an earlier version of the library, without "
                "checksums; train in another folder"
            )
        manifest = manifests.read(folder)
        manifests.verify(folder, manifest)
        if manifest.best:
            best_folder = self.folder / BEST / str(manifest.best)
            best = manifests.read(best_folder)
            if best.checksum != manifest.best_checksum:
                raise DamagedError(f"{best_folder}: is not what {folder} counts on")
            manifests.verify(best_folder, best)
        return manifest

    def _check_identity(self, choice: _Choice) -> None:
        """Raise InputError if a state is of another run."""
        stored, own, workdir = choice.manifest, self.identity, self.folder.parent
        if not choice.number:
            return
        if own.data and stored.data != own.data:
            raise InputError(
                f"--workdir={workdir} holds a run on other data; restore the data, or train in "
                "another folder"
            )
        if not own.config or own.config == stored.config:
            return
        config, before = (configs.from_config_dict(x) for x in (own.config, stored.config))
        if self.is_trained:
            check_same_model(workdir, config, before)
        else:
            check_same_run(workdir, config, before)

    # ---------------------------------------------------------------------------------------------
    # Files.

    def _numbers(self, kind: str) -> list[int]:
        """List the numbers of checkpoints, finished or not, in the order they were written in."""
        folder = self.folder / kind
        if not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())

    def _best_of(self, progress: Progress) -> _Best:
        self._chosen()
        return self._best if self._best.epoch == progress.best_epoch else _Best()

    def _write(
        self, kind: str, tree: dict[str, Any], progress: Progress, best: _Best
    ) -> tuple[int, Manifest]:
        """Write a checkpoint, and return its number and its manifest."""
        self._chosen()
        path = self.folder / kind
        with saving(path, self._sweep):
            if processes.is_first():
                self._sweep()
                path.mkdir(parents=True, exist_ok=True)
            # Numbered by saves, not by training steps: what a resumed run does again gets a
            # name of its own.
            newest = max(self._numbers(kind), default=0) if processes.is_first() else 0
            number = 1 + int(processes.largest(newest)[0])
            folder = path / str(number)
            self._orbax.save(folder, args=ocp.args.StandardSave(_without_empty(tree)))
            rows = self._rows_of(_params(kind, tree))
            manifest = Manifest(
                progress, rows, *self.identity, best=best.number, best_checksum=best.checksum
            )
            if processes.is_first():
                manifest = manifests.write(folder, manifest)
        return number, manifest

    def tidy(self) -> None:
        """Delete what was not finished."""
        for kind in (LATEST, BEST):
            for path in (self.folder / kind).glob("*.orbax-checkpoint-tmp*"):
                manifests.remove(path)

    def _sweep(self) -> None:
        """Delete what no run goes back to, and what was not finished."""
        if not processes.is_first():
            return
        self.tidy()
        for kind, numbers in self._kept().items():
            for number in set(self._numbers(kind)) - numbers:
                manifests.remove(self.folder / kind / str(number))

    def _kept(self) -> dict[str, set[int]]:
        """List the numbers of what is kept: see the class."""
        usable: list[tuple[int, int]] = []  # Numbers of a state and of the best it names.
        newest = self._chosen().number
        for number in reversed(self._numbers(LATEST)):
            # Newer ones than that which was chosen are damaged.
            if number <= newest:
                with contextlib.suppress(DamagedError):
                    best = manifests.read(self.folder / LATEST / str(number)).best
                    usable.append((number, best))
        earlier = [pair for pair in usable if pair[1] != usable[0][1]]
        kept = usable[:2] + earlier[:1]
        bests = {best for _, best in kept} | {self._best.number}
        return {LATEST: {number for number, _ in kept}, BEST: bests}

    def _restore(
        self, kind: str, number: int, manifest: Manifest, like: dict[str, Any]
    ) -> dict[str, Any]:
        folder = self.folder / kind / str(number)
        with reading(folder):
            stored = self._orbax.metadata(folder).item_metadata.tree
            self._check_shapes(kind, manifest.rows, _params(kind, stored), _params(kind, like))
            # Not strict: unused rows are added or left out.
            targets = _targets(like)
            wanted = ocp.args.StandardRestore(_without_empty(targets), strict=False)
            return _with_empty(self._orbax.restore(folder, args=wanted), targets)

    # ---------------------------------------------------------------------------------------------
    # Arrays.

    def _check_shapes(
        self, kind: str, rows: Mapping[str, int], stored: Params, wanted: Params
    ) -> None:
        """Raise InputError for arrays of another shape, which Orbax would fill up or shorten."""
        found = _shapes(stored, rows)
        expected = _shapes(_without_empty(wanted), self._rows_of(wanted))
        differing = [
            f"{name} is {found.get(name)} and not {expected.get(name)}"
            for name in sorted(found.keys() | expected.keys())
            if found.get(name) != expected.get(name)
        ]
        if differing:
            raise InputError(
                f"{self.folder / kind}: the checkpoint does not fit the data and the model "
                f"({'; '.join(differing[:3])}); use another --workdir"
            )

    def _rows_of(self, params: Params) -> dict[str, int]:
        rows = self.rows or {}
        return {name: rows.get(name, params[name].shape[0]) for name in ("user", "item")}


def _params(kind: str, tree: dict[str, Any]) -> Params:
    """Take the parameters out of what is stored as `latest` or `best`."""
    return tree["params"] if kind == LATEST else tree


def _shapes(params: Params, rows: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """List shapes by name; tables without their unused rows."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    shapes = {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
    tables = {f"['{name}']": n for name, n in rows.items()}
    used = {name: (tables[name], *shape[1:]) for name, shape in shapes.items() if name in tables}
    return shapes | used


def _without_empty(tree: Any) -> Any:
    """Leave out arrays without a number, as a table of users without rows: Orbax takes none."""
    return jax.tree.map(lambda x: x if math.prod(x.shape) else None, tree)


def _with_empty(tree: Any, targets: Any) -> Any:
    """Put arrays without a number back to where `_without_empty` left them out."""

    def filled(target: jax.ShapeDtypeStruct, x: Array | None) -> Array:
        if x is None:
            return jnp.zeros(target.shape, target.dtype, device=target.sharding)
        return x

    return jax.tree.map(filled, targets, tree)


def _targets(like: dict[str, Any]) -> dict[str, Any]:
    """Describe to Orbax what to restore, on the first device where `like` has no sharding."""
    first = SingleDeviceSharding(jax.local_devices()[0])

    def target(x: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(x, "sharding", None) or first
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(target, like)
