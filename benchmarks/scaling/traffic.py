"""Count what devices send each other, in the text of a compiled program."""

import math
import re
from typing import NamedTuple

# How often a ring of devices sends (nearly) all of what is summed or gathered.
PASSES = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 1}


class Traffic(NamedTuple):
    """What a step exchanges.

    Attributes:
      sent_bytes: that a device sends, by kind of collective, if devices form a ring.
      collectives: how many there are that more than one device takes part in.
    """

    sent_bytes: dict[str, int]
    collectives: int


def of_program(text: str, num_devices: int) -> Traffic:
    """Count the traffic of a compiled program whose loop takes one step at a time.

    Args:
      text: as `compiled.as_text()` gives it.
      num_devices: that take part in a collective which names no groups.
    """
    sent, collectives = dict.fromkeys(PASSES, 0), 0
    pattern = r"= (\(?[^=]*?\)?) (all-reduce|all-gather|reduce-scatter)(?:-start)?\((.*)"
    for shapes, kind, rest in re.findall(pattern, re.sub(r"/\*.*?\*/", "", text)):
        size = sum(
            4 * math.prod(int(n) for n in dims.split(",") if n)
            for dims in re.findall(r"[fsu]32\[([\d,]*)\]", shapes)
        )
        group = re.search(r"replica_groups=(?:\{\{([\d,]*)\}|\[\d+,(\d+)\])", rest)
        count = num_devices
        if group:
            count = int(group[2]) if group[2] else len(group[1].split(","))
        whole = size * count if kind == "reduce-scatter" else size
        sent[kind] += PASSES[kind] * (count - 1) * whole // count
        collectives += count > 1
    return Traffic(sent, collectives)
