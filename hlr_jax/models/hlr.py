"""HLR: relations in two levels (Tran et al., RecSys 2021)."""

from jaxtyping import Array, Float

from hlr_jax.functional import References, attend
from hlr_jax.models.base import History, register
from hlr_jax.models.memory import HistoryRelation, single_reference


def hlr_relation(
    user: Float[Array, "*#b d"],
    item: Float[Array, "*#b d"],
    references: References,
    user_key: Float[Array, "d m"] | None = None,
    user_memory: Float[Array, "m d"] | None = None,
    beta: float = 1.0,
) -> Float[Array, "*b d"]:
    """The item's relations to each reference, weighed by the user.

    `r_k = softmax((item * p_k) @ key) @ memory` for each history row, with attention
    `w_k = user . r_k` (Tran et al. 2021, sections 3.2 and 3.3). With `user_key` and
    `user_memory` the user itself is a reference too, read through these.
    """
    groups = [references]
    if user_key is not None and user_memory is not None:
        groups.insert(0, single_reference(user, item, user_key, user_memory))
    return attend(user, groups, beta)


@register("hlr")
class HLR(HistoryRelation):
    """Item-item relations over the history, and the user-item relation, judged by the user.

    Attributes:
      include_user: the user vector is a reference too (the published code).
      separate_user_memory: that reference reads a key and memory of its own.
    """

    include_user: bool = True
    separate_user_memory: bool = False

    def setup(self) -> None:
        super().setup()
        self.own = self.matrices("user_") if self.separate_user_memory else self.shared

    def from_references(
        self,
        user: Float[Array, "*#b d"],
        item: Float[Array, "*#b d"],
        history: History,
        references: References,
    ) -> Float[Array, "*b d"]:
        user_key, user_memory = self.own if self.include_user else (None, None)
        return hlr_relation(user, item, references, user_key, user_memory, self.beta)
