"""The public data sets that `load` knows by name, and where each comes from.

A data set is downloaded only where a checksum of its files is known from public material; the
comment beside each checksum says which. The project ships none of the data.
"""

import dataclasses
import difflib

from hlr_jax.data.readers import Columns
from hlr_jax.errors import InputError

EMBEDDED = "embedded"
OWN_FILE = "file"


@dataclasses.dataclass(frozen=True)
class Download:
    """A file to download: an archive to unpack, or one of the files themselves.

    Attributes:
      url: its https address; the last part is the file's name.
      checksum: `sha256:...`, `md5:...`, or `git:...`, the SHA-1 that git names a file's content by.
    """

    url: str
    checksum: str

    @property
    def file(self) -> str:
        """The name to keep it under; "" for a .zip or .tar archive, which is unpacked."""
        name = self.url.rsplit("/", 1)[-1]
        return "" if name.endswith((".zip", ".tar", ".tar.gz", ".tgz")) else name


@dataclasses.dataclass(frozen=True)
class Titles:
    """A table with readable names of items: its file, separator and columns (0-based).

    The separator "json" means one JSON object per line, whose fields the columns then name.
    """

    file: str
    separator: str
    item: int | str = 0
    title: int | str = 1
    header: bool = False
    encoding: str = "utf-8"


@dataclasses.dataclass(frozen=True)
class Features:
    """A file with features of items.

    Attributes:
      file: its name.
      kind: `flags` (an item per line: its id, and from position `first` on a 0 or 1 for each
        feature), `words` (its id, and at position `first` its features, `|` between them) or
        `lists` (a feature per line: a count, then the items that have it).
      separator: between the fields of a line.
      first: 0-based.
      min_items: features of fewer items of the data set are left out.
      encoding: of the text.
      download: of the file, where it is not among those of the data set.
    """

    file: str
    kind: str
    separator: str = ""
    first: int = 0
    min_items: int = 1
    encoding: str = "utf-8"
    download: Download | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A public data set.

    Attributes:
      name: what `config.data.name` calls it.
      folders: names its folder may have; the first is the one that errors and downloads use.
      files: what must be in the folder; the first holds the interactions.
      kind: `table` (see `columns`), `lists` (a count, then items, per user), `fixed` (train, valid
        and test adjacency lists) or `ncf` (train, test and given negatives).
      homepage: where people get it.
      licence: its terms, in short.
      format: of a `table`, as in `readers.read_table`.
      columns: of a `table`.
      min_rating: the rule of its paper: keep interactions rated at least this.
      core: the rule of its paper: keep users and items with at least this many.
      unrated: an adjacency list, oldest first, that may stand in for the first of `files` where
        every interaction counts whatever its rating.
      titles: tables of item names; the first that is there is used.
      features: of its items.
      downloads: what makes up `files`; empty where people have to get them by hand.
    """

    name: str
    folders: tuple[str, ...]
    files: tuple[str, ...]
    kind: str
    homepage: str
    licence: str
    format: str = ""
    columns: Columns | None = None
    min_rating: float = 0.0
    core: int = 0
    unrated: str = ""
    titles: tuple[Titles, ...] = ()
    features: Features | None = None
    downloads: tuple[Download, ...] = ()

    @property
    def ships_split(self) -> bool:
        """Whether the data set comes divided into train and test."""
        return self.kind in ("fixed", "ncf")


_GROUPLENS = "https://files.grouplens.org/datasets"
_MOVIELENS_LICENCE = "research use, no redistribution without permission"
_UNSTATED = "no licence stated; cite the paper that published it"

# The checksums of the MovieLens archives are those of TensorFlow Datasets
# (tensorflow_datasets/url_checksums/movielens.txt). The MD5 sums that GroupLens publishes beside
# the archives, as other libraries quote them, name the same files.
_MOVIELENS = (
    Source(
        name="ml_100k",
        folders=("ml-100k", "ml_100k"),
        files=("u.data",),
        kind="table",
        homepage="https://grouplens.org/datasets/movielens/100k/",
        licence=_MOVIELENS_LICENCE,
        format="tsv",
        columns=Columns(0, 1, 2, 3),
        min_rating=4.0,
        core=10,
        titles=(Titles("u.item", "|", encoding="latin-1"),),
        features=Features("u.item", "flags", "|", first=5, encoding="latin-1"),
        downloads=(
            Download(
                f"{_GROUPLENS}/movielens/ml-100k.zip",
                "sha256:50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
            ),
        ),
    ),
    Source(
        name="ml_1m",
        folders=("ml-1m", "ml_1m"),
        files=("ratings.dat",),
        kind="table",
        homepage="https://grouplens.org/datasets/movielens/1m/",
        licence=_MOVIELENS_LICENCE,
        format="dat",
        columns=Columns(0, 1, 2, 3),
        min_rating=4.0,
        core=10,
        unrated="sequences.time-order.txt",
        titles=(Titles("movies.dat", "::", encoding="latin-1"),),
        features=Features("movies.dat", "words", "::", first=2, encoding="latin-1"),
        downloads=(
            Download(
                f"{_GROUPLENS}/movielens/ml-1m.zip",
                "sha256:a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
            ),
        ),
    ),
    Source(
        name="ml_20m",
        folders=("ml-20m", "ml_20m"),
        files=("ratings.csv",),
        kind="table",
        homepage="https://grouplens.org/datasets/movielens/20m/",
        licence=_MOVIELENS_LICENCE,
        format="csv",
        columns=Columns("userId", "movieId", "rating", "timestamp"),
        min_rating=4.0,
        core=10,
        titles=(Titles("movies.csv", ",", header=True),),
        downloads=(
            Download(
                f"{_GROUPLENS}/movielens/ml-20m.zip",
                "sha256:96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
            ),
        ),
    ),
    Source(
        name="ml_latest_small",
        folders=("ml-latest-small", "ml_latest_small"),
        files=("ratings.csv",),
        kind="table",
        homepage="https://grouplens.org/datasets/movielens/latest/",
        licence=_MOVIELENS_LICENCE,
        format="csv",
        columns=Columns("userId", "movieId", "rating", "timestamp"),
        min_rating=4.0,
        core=10,
        titles=(Titles("movies.csv", ",", header=True),),
        downloads=(
            Download(
                f"{_GROUPLENS}/movielens/ml-latest-small.zip",
                "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
            ),
        ),
    ),
)

_RAW = "https://raw.githubusercontent.com"
_NCF = f"{_RAW}/hexiangnan/neural_collaborative_filtering"
_NCF += "/4aab159e81c44b062c091bdaed0ab54ac632371f/Data"
_LIGHTGCN_PP = f"{_RAW}/geon0325/LightGCNpp/a394f79a7aceb8f485f6bcb549b4865fe83f1d49/data"

# Addresses on GitHub name a commit. A sha256 here is that of the file in that commit; a git
# checksum is the name that the commit's own tree gives to the file's content.
_OTHERS = (
    Source(
        name="ml_1m_rating3",
        folders=("ml-1m-rating3", "ml_1m_rating3"),
        files=("train.txt", "valid.txt", "test.txt"),
        kind="fixed",
        homepage="https://github.com/geon0325/LightGCNpp",
        licence=_MOVIELENS_LICENCE,
        downloads=(
            Download(
                f"{_LIGHTGCN_PP}/ml-1m/train.txt",
                "sha256:dfa3a7a866feade29ca5722ac0423c1b0317ac1f6ad38a55fc1a7ceeb9cee3bb",
            ),
            Download(
                f"{_LIGHTGCN_PP}/ml-1m/valid.txt",
                "sha256:429fe0d750b304677898d7eeb1080764bbf06550b94c9508b8cc8cd0573e3dfc",
            ),
            Download(
                f"{_LIGHTGCN_PP}/ml-1m/test.txt",
                "sha256:0d58f78bbf606f401aec2efe3f519b945c458c8398955f986e03b880fbbd16a6",
            ),
        ),
    ),
    Source(
        name="gowalla",
        folders=("gowalla",),
        files=("train.txt", "test.txt"),
        kind="fixed",
        homepage="https://github.com/kuandeng/LightGCN",
        licence=_UNSTATED,
        # LightGCN's test file byte for byte; its train file divided into train and valid.
        downloads=(
            Download(
                f"{_LIGHTGCN_PP}/gowalla/train.txt",
                "sha256:d47e01d060624f389956c0b2f89a1ed8c453ea158631cd2b5320c241f3e1a073",
            ),
            Download(
                f"{_LIGHTGCN_PP}/gowalla/valid.txt",
                "sha256:ddc22c1cd9a7d14fd5cd0c98b1473b614f4323038fef74ae0d28cc9c92a08ba2",
            ),
            Download(
                f"{_LIGHTGCN_PP}/gowalla/test.txt",
                "sha256:099a2a73924e4b754dc6efd730d764f492321b53c38eb93298850c83acf57be3",
            ),
        ),
    ),
    Source(
        name="ncf_ml_1m",
        folders=("ncf-ml-1m", "ncf_ml_1m"),
        files=("ml-1m.train.rating", "ml-1m.test.rating", "ml-1m.test.negative"),
        kind="ncf",
        homepage="https://github.com/hexiangnan/neural_collaborative_filtering",
        licence=_MOVIELENS_LICENCE,
        unrated="ml-1m.train.lists.txt",
        downloads=(
            Download(
                f"{_NCF}/ml-1m.train.rating",
                "git:31ba384fd58dac8fbd09d2dfc6616431f3563ab5",
            ),
            Download(
                f"{_NCF}/ml-1m.test.rating",
                "sha256:231ae11eb060b643a8c58c063cd17ffc743b54f569afb073d1abb6cf126b88b5",
            ),
            Download(
                f"{_NCF}/ml-1m.test.negative",
                "sha256:127853228a76b7d21c0481e8ef8d00dd009cd5c88670dbdd9e9debfdb9f93de4",
            ),
        ),
    ),
    Source(
        name="pinterest",
        folders=("pinterest", "pinterest-20"),
        files=(
            "pinterest-20.train.rating",
            "pinterest-20.test.rating",
            "pinterest-20.test.negative",
        ),
        kind="ncf",
        homepage="https://github.com/hexiangnan/neural_collaborative_filtering",
        licence=_UNSTATED,
        downloads=(
            Download(
                f"{_NCF}/pinterest-20.train.rating",
                "git:99813f8ed7486c36fa0f405e3f400db5d6fed0be",
            ),
            Download(
                f"{_NCF}/pinterest-20.test.rating",
                "sha256:3a8a8f7eb8e21cc5928b8259dd2c265269ecfa219d92ba829249956aa293d732",
            ),
            Download(
                f"{_NCF}/pinterest-20.test.negative",
                "git:b752ccdc14df423b9484771440ff4a73e4a4a304",
            ),
        ),
    ),
    Source(
        name="citeulike_a",
        folders=("citeulike-a", "citeulike_a"),
        files=("users.dat",),
        kind="lists",
        homepage="https://github.com/js05212/citeulike-a",
        licence=_UNSTATED,
        core=5,
        downloads=(
            Download(
                f"{_RAW}/js05212/citeulike-a/91b603922d7f2d3db18071d4798bf78c9c5d1680/users.dat",
                "sha256:53211d82c14ff261e595634d285ed9fbf8049cf81dcb751d924d695b9612a02c",
            ),
        ),
    ),
    Source(
        name="citeulike_t",
        folders=("citeulike-t", "citeulike_t"),
        files=("users.dat",),
        kind="lists",
        homepage="https://github.com/js05212/citeulike-t",
        licence=_UNSTATED,
        core=5,
        # Tags of five articles or more, as in CML's paper.
        features=Features(
            "tag-item.dat",
            "lists",
            min_items=5,
            download=Download(
                f"{_RAW}/js05212/citeulike-t/4f103c6ea0fe407b23be230837b65517e613c34a/tag-item.dat",
                "git:017f7e39c6d48a231a9a71c2e55c91624e6ec624",
            ),
        ),
        downloads=(
            Download(
                f"{_RAW}/js05212/citeulike-t/4f103c6ea0fe407b23be230837b65517e613c34a/users.dat",
                "sha256:02d5d429b2c0362e0ed79f6ef204666b4092563d21493abf4dfb521e8a7078bf",
            ),
        ),
    ),
    Source(
        name="lastfm_2k",
        folders=("hetrec-lastfm-2k", "hetrec2011-lastfm-2k", "lastfm_2k"),
        files=("user_artists.dat",),
        kind="table",
        homepage="https://grouplens.org/datasets/hetrec-2011/",
        licence="non-commercial use, no redistribution",
        format="tsv",
        columns=Columns("userID", "artistID", "weight"),
        core=10,
        titles=(
            Titles("artists.dat", "\t", header=True),
            Titles("artists.csv", ",", header=True),
        ),
        downloads=(
            # As in the loaders of the OmniRec library.
            Download(
                f"{_GROUPLENS}/hetrec2011/hetrec2011-lastfm-2k.zip",
                "sha256:6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c",
            ),
        ),
    ),
    Source(
        name="amazon_hin",
        folders=("amazon-hin", "amazon_hin"),
        files=("user_item.dat",),
        kind="table",
        homepage="https://github.com/librahu/HIN-Datasets-for-Recommendation-and-Network-Embedding",
        licence=_UNSTATED,
        format="tsv",
        columns=Columns(0, 1, 2, 3),
        min_rating=4.0,
        core=10,
        downloads=(
            Download(
                f"{_RAW}/librahu/HIN-Datasets-for-Recommendation-and-Network-Embedding"
                "/cc05c484b628b08237f0a876fcebf99d736ccbea/Amazon/user_item.dat",
                "sha256:d14fcc5b04f0d701d326149bc4f18d471156f189ff1f4d0fefa14511c4cb42c8",
            ),
        ),
    ),
    Source(
        name="amazon_books",
        folders=("amazon-books", "amazon_books"),
        files=("ratings_Books.csv",),
        kind="table",
        homepage="https://jmcauley.ucsd.edu/data/amazon/",
        licence=_UNSTATED,
        format="csv",
        columns=Columns(0, 1, 2, 3),
        min_rating=4.0,
        core=10,
        downloads=(
            # As in the loaders of the OmniRec library.
            Download(
                "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/ratings_Books.csv",
                "sha256:87d923ddac2aacf40c1d0e0e056dbf4bf69c9c7d41852c6b434e781e759c0707",
            ),
        ),
    ),
    # No checksum of this archive is known, and it is not served over https.
    Source(
        name="echonest",
        folders=("echonest",),
        files=("train_triplets.txt",),
        kind="table",
        homepage="http://millionsongdataset.com/tasteprofile/",
        licence="research use",
        format="tsv",
        columns=Columns(0, 1, 2),
        min_rating=6.0,
        core=10,
    ),
    # Its terms have to be accepted, and the file changes from year to year.
    Source(
        name="yelp",
        folders=("yelp",),
        files=("yelp_academic_dataset_review.json",),
        kind="table",
        homepage="https://www.yelp.com/dataset",
        licence="Yelp's data set terms, to be accepted on its page",
        format="ndjson",
        columns=Columns("user_id", "business_id", "stars"),
        min_rating=4.0,
        core=5,
        titles=(
            Titles("yelp_academic_dataset_business.json", "json", item="business_id", title="name"),
        ),
    ),
)

SOURCES = {source.name: source for source in _MOVIELENS + _OTHERS}


def find_source(name: str) -> Source:
    """The public data set called `name`.

    Raises:
      InputError: there is none; the message suggests the nearest names.
    """
    if name in SOURCES:
        return SOURCES[name]
    known = [EMBEDDED, OWN_FILE, *SOURCES]
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=3)
    raise InputError(
        f"config.data.name={name!r}: no such data set; "
        + (f"did you mean {' or '.join(close)}?" if close else f"use one of {', '.join(known)}")
    )
