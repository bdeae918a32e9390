"""Read files of interactions into polars frames; errors name the file and the line.

Text files are read in blocks of whole lines. Each block is checked (UTF-8, number of fields, ids,
numbers) before the next one is read. So an error can name the line, no line is dropped silently,
and besides the columns only one block is in memory, however large the file is.
"""

from hlr_jax.data.readers.dialects import Dialect
from hlr_jax.data.readers.lists import read_adjacency, read_user_lists
from hlr_jax.data.readers.ncf import GivenNegatives, read_ncf
from hlr_jax.data.readers.tables import Columns, read_item_numbers, read_table

__all__ = [
    "Columns",
    "Dialect",
    "GivenNegatives",
    "read_adjacency",
    "read_item_numbers",
    "read_ncf",
    "read_table",
    "read_user_lists",
]
