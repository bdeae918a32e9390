"""Orbax checkpoints of a run: its latest state, to resume from, and its best parameters."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

from hlr_jax import devices
from hlr_jax.errors import InputError
from hlr_jax.fitting import Progress
from hlr_jax.objective import Params
from hlr_jax.training import TrainState


class Checkpoints:
    """The folders `latest` and `best` under a run's `checkpoints` folder.

    Each holds one checkpoint, replaced only once its successor is complete.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder.absolute()

    def save(self, state: TrainState, progress: Progress) -> None:
        """Store the whole state as `latest`."""
        self._save("latest", vars(state), progress)

    def save_best(self, state: TrainState, progress: Progress) -> None:
        """Store the parameters as `best`."""
        self._save("best", state.params, progress)

    def restore(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The latest state, or None if there is no checkpoint.

        Args:
          like: a state of the same shapes.

        Raises:
          InputError: the checkpoint has other shapes.
        """
        restored = self._restore("latest", vars(like))
        return restored and (TrainState(**restored[0]), restored[1])

    def restore_best(self, like: Params) -> Params:
        """The best epoch's parameters.

        Raises:
          InputError: there are none, or they have other shapes.
        """
        restored = self._restore("best", like)
        if restored is None:
            raise InputError(f"{self.folder / 'best'}: there is no checkpoint; train first")
        return restored[0]

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
                    # On one device, so that it can be restored on any number of them.
                    state=ocp.args.StandardSave(devices.on_one(tree)),
                    progress=ocp.args.JsonSave(progress._asdict()),
                ),
            )

    def _restore(self, kind: str, like: dict[str, Any]) -> tuple[dict[str, Any], Progress] | None:
        if not (self.folder / kind).is_dir():
            return None
        with self._manager(kind) as manager:
            number = manager.latest_step()
            if number is None:
                return None
            try:
                stored = manager.item_metadata(number)["state"].tree
                is_state = kind == "latest"
                self._check_shapes(
                    kind,
                    stored["params"] if is_state else stored,
                    like["params"] if is_state else like,
                )
                restored = manager.restore(
                    number,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(devices.shapes_on_one(like)),
                        progress=ocp.args.JsonRestore(),
                    ),
                )
                return restored["state"], Progress(**restored["progress"])
            except InputError:
                raise
            except Exception as error:
                # Orbax, TensorStore and JSON each have errors of their own for a damaged file.
                raise InputError(
                    f"{self.folder / kind / str(number)}: the checkpoint is damaged "
                    f"({type(error).__name__}); delete it, or use another --workdir"
                ) from error

    def _check_shapes(self, kind: str, stored: Params, wanted: Params) -> None:
        """Orbax alone would fill up or cut arrays of another shape."""
        found, expected = _shapes(stored), _shapes(wanted)
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


def _shapes(params: Params) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}
