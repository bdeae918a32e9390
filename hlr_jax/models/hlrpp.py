"""HLR++: a second relation from the user's side (Tran et al., RecSys 2021)."""

from jaxtyping import Array, Float

from hlr_jax.functional import References, attend
from hlr_jax.models.base import History, register
from hlr_jax.models.hlr import hlr_relation
from hlr_jax.models.memory import HistoryRelation, history_references, single_reference


def hlrpp_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    history: History,
    references: References,
    key: Float[Array, "d m"],
    memory: Float[Array, "m d"],
    beta: float = 1.0,
) -> Float[Array, "*b d"]:
    """The sum of two relations that share key and memory.

    The first is HLR's without the user as reference: target the item, judge the user. In
    the second the user is the target, the item and the history are the references, and
    the item is the judge.
    """
    of_user = [
        single_reference(user, item, key, memory),
        history_references(user, *history, key, memory),
    ]
    return hlr_relation(user, item, references, beta=beta) + attend(item, of_user, beta)


@register("hlrpp")
class HLRPlusPlus(HistoryRelation):
    """HLR's history relation plus its mirror image (JUPITER in the published code)."""

    def from_references(
        self,
        user: Float[Array, "*#b d"],
        item: Float[Array, "*#b d"],
        history: History,
        references: References,
    ) -> Float[Array, "*b d"]:
        return hlrpp_relation(user, item, history, references, *self.shared, beta=self.beta)
