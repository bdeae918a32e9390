"""Save and restore Orbax checkpoints: the latest state of a run, and its best parameters."""

import contextlib
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding
from jaxtyping import Array

from hlr_jax.errors import InputError
from hlr_jax.training.state import TrainState
from hlr_jax.training.store import Progress
from hlr_jax.types import Params


class Checkpoints:
    """Keeps one checkpoint in each of the folders `latest` and `best` of a run.

    A checkpoint is replaced only once its successor is complete. All processes of a run save and
    restore together, each the arrays of its devices.
    """

    def __init__(self, folder: pathlib.Path, rows: Mapping[str, int] | None = None) -> None:
        """Keep checkpoints in a folder.

        Args:
          rows: how many rows of each table stand for a user or an item, if not all. Where tables
            are sharded, unused rows fill the shards up; a restored table has as many of them as
            the new placement needs, so that it may be another one than that which saved.
        """
        self.folder = folder.absolute()
        self.rows = rows

    def save(self, state: TrainState, progress: Progress) -> None:
        """Save the state as `latest`."""
        self._save("latest", vars(state), progress)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Save the parameters of a state as `best`."""
        self._save("best", state.params, progress)

    def restore(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """Restore the latest state; None if there is no checkpoint.

        Args:
          like: a state, or its shapes and shardings, which the restored one gets.

        Raises:
          InputError: the checkpoint has other shapes.
        """
        restored = self._restore("latest", vars(like))
        return restored and (TrainState(**restored[0]), restored[1])

    def restore_best(self, like: Params) -> Params:
        """Restore the best epoch's parameters.

        Args:
          like: parameters, or their shapes and shardings, which the restored ones get.

        Raises:
          InputError: there are none, or they have other shapes.
        """
        restored = self._restore("best", like)
        if restored is None:
            raise InputError(f"{self.folder / 'best'}: there is no checkpoint; train first")
        return restored[0]

    def progress(self) -> Progress:
        """Read how far the latest state has come; not at all if there is no checkpoint.

        Raises:
          InputError: it is damaged.
        """
        with self._newest("latest") as newest:
            if newest is None:
                return Progress()
            stored = _stored_progress(*newest)
            return Progress(**{name: stored[name] for name in Progress._fields if name in stored})

    def _manager(self, kind: str) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, create=True, enable_async_checkpointing=False
        )
        handlers = {
            "state": ocp.StandardCheckpointHandler(),
            "progress": ocp.JsonCheckpointHandler(),
        }
        return ocp.CheckpointManager(self.folder / kind, options=options, item_handlers=handlers)

    def _save(self, kind: str, tree: dict[str, Any], progress: Progress) -> None:
        with self._manager(kind) as manager:
            # Numbered by saves, not by training steps: what a resumed run does again gets a
            # name of its own, and the older checkpoint goes only when the newer is complete.
            manager.save(
                1 + (-1 if manager.latest_step() is None else manager.latest_step()),
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_without_empty(tree)),
                    progress=ocp.args.JsonSave(
                        {**progress._asdict(), "rows": self._rows_of(_params(kind, tree))}
                    ),
                ),
            )

    @contextlib.contextmanager
    def _newest(self, kind: str) -> Iterator[tuple[ocp.CheckpointManager, int] | None]:
        """Open the newest checkpoint, if there is one; if it cannot be read, it is damaged."""
        if not (self.folder / kind).is_dir():
            yield None
            return
        with self._manager(kind) as manager:
            number = manager.latest_step()
            try:
                yield None if number is None else (manager, number)
            except InputError:
                raise
            except Exception as error:
                # Orbax, TensorStore and JSON each have errors of their own for a damaged file.
                raise InputError(
                    f"{self.folder / kind / str(number)}: the checkpoint is damaged "
                    f"({type(error).__name__}); delete it, or use another --workdir"
                ) from error

    def _restore(self, kind: str, like: dict[str, Any]) -> tuple[dict[str, Any], Progress] | None:
        with self._newest(kind) as newest:
            if newest is None:
                return None
            manager, number = newest
            progress = _stored_progress(manager, number)
            stored = manager.item_metadata(number)["state"].tree
            self._check_shapes(
                kind, progress.pop("rows", {}), _params(kind, stored), _params(kind, like)
            )
            # Not strict: unused rows are added or left out.
            targets = _targets(like)
            wanted = ocp.args.StandardRestore(_without_empty(targets), strict=False)
            restored = manager.restore(number, args=ocp.args.Composite(state=wanted))["state"]
            return _with_empty(restored, targets), Progress(**progress)

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


def _stored_progress(manager: ocp.CheckpointManager, number: int) -> dict[str, Any]:
    wanted = ocp.args.Composite(progress=ocp.args.JsonRestore())
    return dict(manager.restore(number, args=wanted)["progress"])


def _params(kind: str, tree: dict[str, Any]) -> Params:
    """Take the parameters out of what is stored as `latest` or `best`."""
    return tree["params"] if kind == "latest" else tree


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
