"""Resolve a data configuration: which files are read, in which form, and which filters apply.

`resolve` is the one way from `DataConfig` to files. It looks up the data set in the catalogue
(`registry`), finds or downloads its files (`locate`), and takes the filters and the split that the
configuration leaves open from the data set's description. Then `raw` reads the files.
"""

import dataclasses
import pathlib

from hlr_jax.config import DataConfig
from hlr_jax.data import locate, registry
from hlr_jax.data.registry import DatasetSpec, FeatureFile, TitleFile
from hlr_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ResolvedData:
    """What to read from where, and the rules that make a data set of it.

    Attributes:
      name: of the data set.
      kind: of what is read: `embedded` (generated, no files), `own` (a file of the user's),
        `predefined` (a folder with train, valid and test), or the `kind` of a `DatasetSpec`.
      files: what is read; for a split that comes as files, all of these.
      min_rating: interactions rated lower are dropped.
      core: users with fewer interactions are dropped.
      item_core: items with fewer interactions are dropped.
      split: a rule of `splits`, or `fixed` for the split that the files give.
      spec: of a public data set whose own files are read.
      unrated: whether the first file is `spec.unrated_file`.
      titles: the file with titles of items, and its form.
      features: the file with features of items, and its form, which is None for a table of the
        user's.
    """

    name: str
    kind: str
    files: tuple[pathlib.Path, ...] = ()
    min_rating: float = 0.0
    core: int = 0
    item_core: int = 0
    split: str = "random"
    spec: DatasetSpec | None = None
    unrated: bool = False
    titles: tuple[pathlib.Path, TitleFile] | None = None
    features: tuple[pathlib.Path, FeatureFile | None] | None = None


def resolve(config: DataConfig, progress: bool = True) -> ResolvedData:
    """Find the files and the rules that a configuration stands for; missing files are downloaded.

    Args:
      config: names the data set, and the rules that differ from the data set's own.
      progress: show a bar on standard error for downloads.

    Raises:
      InputError: there is no such data set, file or folder, or the rules do not suit it.
    """
    is_public = config.name not in (registry.EMBEDDED, registry.OWN_FILE)
    spec = registry.get_spec(config.name) if is_public else None
    if config.predefined:
        resolved = _resolve_predefined(config, spec)
    elif spec is not None:
        resolved = _resolve_public(config, spec, progress)
    else:
        resolved = _resolve_other(config)
    _check_valid_split(config, resolved)
    return dataclasses.replace(resolved, features=_find_features(config, spec, progress))


def _check_valid_split(config: DataConfig, resolved: ResolvedData) -> None:
    """Raise InputError where validation cannot be drawn by itself."""
    field = f"config.data.valid_split={config.valid_split!r}"
    if config.valid_split and resolved.split != "fixed":
        raise InputError(
            f"{field}: config.data.split={resolved.split!r} draws validation and test together; "
            "leave it out"
        )
    if config.valid_split == "per_user_last" and resolved.kind == "ncf":
        raise InputError(
            f"{field}: validation of {resolved.name!r} is each user's last training interaction "
            "already; leave it out"
        )


def _resolve_predefined(config: DataConfig, spec: DatasetSpec | None) -> ResolvedData:
    """Resolve a folder with a split; the data set named beside it only gives titles."""
    folder = locate.find_predefined(config.predefined)
    return ResolvedData(
        name=folder.resolve().name,
        kind="predefined",
        files=locate.split_files(folder),
        split="fixed",
        titles=None if spec is None else locate.find_titles(spec),
    )


def _resolve_public(config: DataConfig, spec: DatasetSpec, progress: bool) -> ResolvedData:
    """Resolve a data set of the catalogue."""
    min_rating = spec.min_rating if config.min_rating is None else config.min_rating
    core = spec.core if config.core is None else config.core
    item_core = core if config.item_core is None else config.item_core
    split = config.split or ("fixed" if spec.ships_split else "random")
    if split == "fixed":
        if not spec.ships_split:
            raise InputError(
                f"config.data.split='fixed': data set {spec.name!r} ships no split; use "
                f"{', '.join(name for name in config.SPLITS if name not in ('', 'fixed'))}"
            )
        filters = {"min_rating": min_rating, "core": core, "item_core": item_core}
        for field, value in filters.items():
            if value:
                raise InputError(
                    f"config.data.{field}={value}: the split that {spec.name!r} ships cannot be "
                    "filtered; leave it out, or choose another config.data.split"
                )
    found = locate.find_dataset(spec, needs_ratings=min_rating > 0, progress=progress)
    files = found.files
    if spec.kind == "fixed":
        # Validation is not required, and is used if it is there.
        files = locate.split_files(files[0].parent)
    return ResolvedData(
        name=spec.name,
        kind=spec.kind,
        files=files,
        min_rating=float(min_rating),
        core=core,
        item_core=item_core,
        split=split,
        spec=spec,
        unrated=found.unrated,
        titles=locate.find_titles(spec),
    )


def _resolve_other(config: DataConfig) -> ResolvedData:
    """Resolve the generated data set, or a file of the user's."""
    if config.split == "fixed":
        raise InputError(
            f"config.data.split='fixed': data set {config.name!r} ships no split; use another "
            "config.data.split, or name a folder with train and test in config.data.predefined"
        )
    core = config.core or 0
    resolved = ResolvedData(
        name=config.name,
        kind="embedded",
        min_rating=float(config.min_rating or 0),
        core=core,
        item_core=core if config.item_core is None else config.item_core,
        split=config.split or "random",
    )
    if config.name == registry.EMBEDDED:
        return resolved
    path = pathlib.Path(config.path).expanduser()
    if not path.is_file():
        raise InputError(f"config.data.path={config.path!r}: there is no such file")
    return dataclasses.replace(resolved, name=path.name, kind="own", files=(path,))


def _find_features(
    config: DataConfig, spec: DatasetSpec | None, progress: bool
) -> tuple[pathlib.Path, FeatureFile | None] | None:
    if not config.features:
        return None
    field = f"config.data.features={config.features!r}"
    if config.has_features_file:
        path = pathlib.Path(config.features).expanduser()
        if not path.is_file():
            raise InputError(
                f"{field}: there is no such file; give a path, or {config.OWN_FEATURES}"
            )
        return path, None
    if spec is None or spec.features is None:
        known = ", ".join(name for name, spec in registry.specs().items() if spec.features)
        raise InputError(
            f"{field}: data set {config.name!r} has no features of its own ({known} have); give "
            "the path of a table"
        )
    return locate.find_features(spec, spec.features, progress), spec.features
