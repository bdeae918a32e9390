"""A configuration on a screen: the Python that makes it, without defaults; and in a notebook."""

import pytest

from hlr_jax import config as configs
from hlr_jax.config import Config, DataConfig, ModelConfig, TrainingConfig, files, shipped
from hlr_jax.config.fields import SECTIONS
from hlr_jax.facts import WIDTH


def made(shown):
    """What the Python that is shown makes."""
    return eval(shown, vars(configs))


def test_defaults_are_left_out_and_names_are_not():
    assert repr(ModelConfig()) == "ModelConfig(name='hlr')"
    assert repr(TrainingConfig()) == "TrainingConfig()"
    assert repr(TrainingConfig(epochs=3, refit=True)) == "TrainingConfig(epochs=3, refit=True)"
    assert repr(Config(seed=3, model=ModelConfig("cml", options={"a": 1}))).splitlines() == [
        "Config(",
        "    data=DataConfig(name='embedded'),",
        "    model=ModelConfig(name='cml', options={'a': 1}),",
        "    geometry=GeometryConfig(name='ball'),",
        "    loss=LossConfig(name='hinge'),",
        "    optimizer=OptimizerConfig(name='adam'),",
        "    seed=3,",
        ")",
    ]


@pytest.mark.parametrize("section", SECTIONS.values())
def test_every_section_is_shown_so(section):
    assert made(repr(section())) == section()
    assert "\n" not in repr(section())


def test_configurations_fit_a_screen_and_make_themselves_again():
    paths = shipped.full_names().values()
    assert len(paths) > 30
    for path in paths:
        config = files.load(path)
        lines = repr(config).splitlines()
        assert max(map(len, lines)) <= WIDTH, path
        assert len(lines) <= 25, path
        assert made(repr(config)) == config, path


def test_texts_are_not_broken():
    path = "/home/some body/" + "a folder with many words/" * 5 + "table.csv"
    config = Config(data=DataConfig("file", path=path))
    assert made(repr(config)) == config
    assert path in repr(config)


def test_a_notebook_gets_a_table_of_text():
    path = "<script>alert(1)</script> & co"
    shown = Config(data=DataConfig("file", path=path), seed=3)._repr_html_()
    assert "<script>" not in shown
    assert "path=&#x27;&lt;script&gt;alert(1)&lt;/script&gt; &amp; co&#x27;" in shown
    assert ">seed</th>" in shown
    assert "\0" not in shown
