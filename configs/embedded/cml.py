from hlr_jax import config as c


def get_config():
    return c.as_config_dict(
        c.Config(data=c.DataConfig(name="embedded"), model=c.ModelConfig(name="cml"))
    )
