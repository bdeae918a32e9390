"""Interaction files in, polars frames out; bad input raises one line that names the place.

Text files are read in blocks of whole lines. Each block is checked (UTF-8, number of
fields, ids, numbers) before the next is read, so a fault is named by its line number, no
line is ever dropped, and memory holds the columns plus one block whatever the file's size.
"""

from hlr_jax.data.readers.lists import read_adjacency, read_user_lists
from hlr_jax.data.readers.ncf import GivenNegatives, read_ncf
from hlr_jax.data.readers.tables import Columns, read_item_numbers, read_table

__all__ = [
    "Columns",
    "GivenNegatives",
    "read_adjacency",
    "read_item_numbers",
    "read_ncf",
    "read_table",
    "read_user_lists",
]
