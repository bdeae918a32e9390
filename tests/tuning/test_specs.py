"""What a sweep varies: specs, their fields and the values that they take."""

import pytest
from sweeps import ITEMS, MARGIN, config_of

from hlr_jax import config as configs
from hlr_jax.errors import InputError
from hlr_jax.tuning import search_space, specs
from hlr_jax.tuning.search_space import Choice, Range


@pytest.mark.parametrize(
    ("spec", "field", "values"),
    [
        (MARGIN, "loss.margin", Range(0.2, 2.0)),
        ("loss.margin=1:2", "loss.margin", Range(1.0, 2.0)),
        ("loss.margin=int:1:3", "loss.margin", Range(1, 3)),
        (
            "optimizer.learning_rate=log:1e-4:3e-3",
            "optimizer.learning_rate",
            Range(1e-4, 3e-3, True),
        ),
        ("sampling.num_negatives=int:1:20", "sampling.num_negatives", Range(1, 20)),
        ("sampling.num_negatives=1:20", "sampling.num_negatives", Range(1, 20)),
        ("model.dim=log:8:512", "model.dim", Range(8, 512, True)),
        ("model.dim=choice:32,64,100", "model.dim", Choice((32, 64, 100))),
        ("loss.copy_relation=choice:true,False", "loss.copy_relation", Choice((True, False))),
        ("loss.name=choice:hinge,softmax", "loss.name", Choice(("hinge", "softmax"))),
        ("loss.temperature=0.1:1", "loss.temperature", Range(0.1, 1.0)),
        ("geometry.radius=1:2", "geometry.radius", Range(1.0, 2.0)),
        ("geometry.curvature=log:0.1:2", "geometry.curvature", Range(0.1, 2.0, True)),
        ("optimizer.name=choice:adam,sgd", "optimizer.name", Choice(("adam", "sgd"))),
        ("data.split=choice:,random", "data.split", Choice(("", "random"))),
        ("data.min_rating=choice:none,4", "data.min_rating", Choice((None, 4.0))),
        ("model.clip_memory=0.1:1", "model.clip_memory", Range(0.1, 1.0)),
        ("model.slots=1:30", "model.slots", Range(1, 30)),
        ("seed=0:99", "seed", Range(0, 99)),
    ],
)
def test_a_spec_is_read(spec, field, values):
    space = specs.parse([spec])
    assert dict(space) == {field: values}
    (found,) = space.values()
    # True == 1 and 1 == 1.0.
    assert list(map(type, found.ends)) == list(map(type, values.ends))
    # As it is printed, it can be given.
    assert dict(specs.parse([f"{field}={found}"])) == {field: values}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("loss.margin", "write field=low:high"),
        ("loss.margin=", "write field=low:high"),
        ("loss.margin=1", "write field=low:high"),
        ("loss.margin=1:2:3", "write field=low:high"),
        ("loss.margin=lgo:1:2", "write field=low:high"),
        ("loss.margn=1:2", "did you mean loss.margin?"),
        ("config.loss.margin=1:2", "did you mean loss.margin?"),
        ("lr=1:2", "there is no field 'lr'"),
        ("model.options=1:2", "there is no field 'model.options'"),
        ("loss.margin=a:2", "'a' is not a number"),
        ("loss.margin=1:inf", "'inf' is not a number"),
        ("loss.margin=nan:1", "'nan' is not a number"),
        ("loss.margin=int:0.5:2", "'0.5' is not a whole number"),
        ("loss.margin=2:1", "the lower end comes first"),
        ("loss.margin=1:1", "the ends differ"),
        ("loss.margin=log:0:1", "begins above 0"),
        ("sampling.num_negatives=0.5:3", "'0.5' is not a whole number"),
        ("model.dim=choice:8,wide", "'wide' is not a whole number"),
        ("model.dim=choice:8", "at least two values"),
        ("model.dim=choice:8,8", "each named once"),
        ("data.core=choice:5,x", "'x' is not a whole number or none"),
        ("loss.copy_relation=choice:yes,no", "'yes' is not true or false"),
        ("loss.copy_relation=0:1", "choice:true,false"),
        ("optimizer.name=1:2", "choice:word,word"),
        ("evaluation.cutoffs=choice:5,10", "is a list"),
        ("training.selection_metric=choice:loss,ndcg@10", "--objective"),
        ("imports=choice:a,b", "is a list"),
        # Renamed fields.
        ("model.clip_norm=1:2", "renamed, use config.geometry.radius"),
        ("sampling.skew=0:1", "renamed, use config.sampling.popularity_exponent"),
        ("sampling.negatives=int:1:20", "renamed, use config.sampling.num_negatives=1"),
        ("loss.rank_weight=choice:true,false", "renamed, use config.loss.name='warp'"),
    ],
)
def test_a_bad_spec_is_refused(spec, said):
    with pytest.raises(InputError) as refusal:
        specs.parse([spec])
    assert f"--vary={spec}: " in str(refusal.value)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_field_and_the_same_twice_are_refused():
    with pytest.raises(InputError, match="--vary: name at least one field"):
        specs.parse([])
    with pytest.raises(InputError, match=r"loss\.margin is varied twice"):
        specs.parse([MARGIN, "loss.margin=1:3"])


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        (["loss.margin=-1.0:1.0"], ["--vary=loss.margin=-1.0:1.0", "must not be negative"]),
        (
            ["sampling.num_negatives=0:3"],
            ["--vary=sampling.num_negatives=int:0:3", "draw at least 1"],
        ),
        (["optimizer.decay_rate=0.5:1.5"], ["config.optimizer.decay_rate=1.5", "use (0, 1]"]),
        (["optimizer.name=choice:adam,adm"], ["config.optimizer.name='adm'", "use one of"]),
        (["model.name=choice:cml,mf", MARGIN], ["--vary=model.name=", "'mf'", "use one of"]),
        (["model.slots=2:9"], ["cml does not use model.slots", "hlr, hlrpp, lrml, multi_head do"]),
        (
            ["loss.temperature=1:2"],
            ["loss hinge does not use", "psl, softmax, softmax_at_k do"],
        ),
        (["loss.name=choice:hinge,closest"], ["config.loss.name='closest'", "loss.name='hardest'"]),
        (["geometry.name=choice:ball,cone"], ["config.geometry.name='cone'", "use one of"]),
        (
            ["loss.name=choice:hinge,softmax", "loss.temperature=-1.0:1.0"],
            ["config.loss.temperature=-1.0", "use more than 0"],
        ),
        (["model.name=choice:cml,lrml", "model.slots=0:9"], ["--vary=model.slots=", "slots=0"]),
        # Both are fine by themselves, but not with the data.
        (["evaluation.history_length=-1:3"], ["evaluation.history_length=-1"]),
        (
            ["model.name=choice:cml,hlr", "sampling.history_length=5:50"],
            ["--vary=sampling.history_length=int:5:50", f"the catalogue has {ITEMS} items"],
        ),
    ],
)
def test_both_ends_are_checked_before_anything_runs(vary, said, scripted, tmp_path):
    config = config_of(sampling=configs.SamplingConfig(history_length=5))
    with pytest.raises(InputError) as refusal:
        scripted(tmp_path / "s", lambda config: pytest.fail("ran"), vary, trials=1, config=config)
    for part in said:
        assert part in str(refusal.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "--trials, --minutes"),
        ({"trials": 0}, "--trials=0"),
        ({"minutes": 0.0}, "--minutes=0.0"),
        ({"trials": 1, "config": config_of(objective="ncdg@10")}, "--objective='ncdg@10'"),
        ({"trials": 1, "config": config_of(objective="ndcg@500")}, "a cutoff of 500"),
        (
            {"trials": 1, "config": config_of(objective="loss")},
            "losses with different loss.margin are not comparable",
        ),
        (
            {
                "trials": 1,
                "config": config_of(objective="loss"),
                "vary": ["sampling.popularity_exponent=0.1:1.0"],
            },
            "losses with different sampling.popularity_exponent are not comparable",
        ),
        (
            {"trials": 1, "vary": ["training.refit=choice:true,false"]},
            "trials are not refitted; give --config.training.refit=True",
        ),
    ],
)
def test_bad_arguments_are_refused(arguments, said, scripted, tmp_path):
    with pytest.raises(InputError) as refusal:
        scripted(tmp_path / "s", lambda config: pytest.fail("ran"), **arguments)
    assert said in str(refusal.value)
    assert not (tmp_path / "s").exists()


def test_every_field_gets_its_value():
    values = {"seed": 7, "model.name": "lrml", "model.slots": 3, "data.core": None}
    values |= {"geometry.name": "lorentz", "geometry.curvature": 0.5, "loss.margin": 0.75}
    config = search_space.with_values(config_of(), values)
    assert (config.seed, config.model.name, config.data.core) == (7, "lrml", None)
    assert (config.model.options["slots"], config.model.dim) == (3, 4)
    assert config.geometry.name == "lorentz"
    assert config.geometry.options == {"curvature": 0.5, "radius": 1.0}
    assert config.loss.options == {"margin": 0.75}
