"""Fields that do not go together are refused, and each of them alone is not."""

import pytest

from hlr_jax import config as configs
from hlr_jax.errors import InputError
from hlr_jax.runs import compatibility

OF_USERS = {
    "sampling": {"negatives": "full_catalog"},
    "loss": {"name": "softmax"},
    "training": {"batch_of": "users"},
}


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (
            {"optimizer": {"updates": "sparse"}, "loss": {"covariance": 0.1}},
            "config.optimizer.updates='sparse': use dense, because config.loss.covariance moves",
        ),
        (
            {"optimizer": {"updates": "sparse"}, "loss": {"uniformity": 0.1}},
            "config.optimizer.updates='sparse': use dense, because config.loss.uniformity moves",
        ),
        (
            {"sharding": {"tables": "sharded"}, "loss": {"uniformity": 0.1}},
            "config.loss.uniformity=0.1: it needs all rows on a device; set config.sharding.tables",
        ),
        (
            {"sharding": {"tables": "sharded"}, "loss": {"covariance": 0.1}},
            "config.loss.covariance=0.1: it needs all rows on a device; set config.sharding.tables",
        ),
        (
            {"training": {"refit": True}, "data": {"join_valid": True}},
            "config.training.refit=True: with config.data.join_valid=True there is nothing to add",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(values, fault):
    with pytest.raises(InputError) as caught:
        compatibility.check_config(configs.from_config_dict(values))
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)
    for section, fields in values.items():  # each alone is fine
        compatibility.check_config(configs.from_config_dict({section: fields}))


@pytest.mark.parametrize(
    ("section", "changes", "remedy"),
    [
        (
            "sampling",
            {"negatives": "per_example"},
            "set config.sampling.negatives to one of full_catalog, shared",
        ),
        ("loss", {"copy_relation": True}, "set config.loss.copy_relation=False"),
    ],
)
def test_batches_of_users_need_targets_that_they_share(section, changes, remedy):
    compatibility.check_config(configs.from_config_dict(OF_USERS))
    values = OF_USERS | {section: OF_USERS[section] | changes}
    with pytest.raises(InputError) as caught:
        compatibility.check_config(configs.from_config_dict(values))
    assert str(caught.value).startswith("config.training.batch_of='users': ")
    assert remedy in str(caught.value)


@pytest.mark.parametrize("model", ["hlr", "transcf", "dpcml"])
@pytest.mark.parametrize("negatives", ["full_catalog", "shared"])
@pytest.mark.parametrize("loss", ["softmax", "hinge", "warp"])
def test_batches_of_users_take_any_model_and_loss(model, negatives, loss):
    values = {"model": {"name": model}, "sampling": {"negatives": negatives}}
    compatibility.check_config(
        configs.from_config_dict(OF_USERS | values | {"loss": {"name": loss}})
    )
