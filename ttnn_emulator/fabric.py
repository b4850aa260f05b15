"""How the chips of a mesh talk to one another."""

from __future__ import annotations

from .enums import Named


class FabricConfig(Named):
    """How chips talk to each other; collectives need one other than DISABLED."""

    (
        DISABLED, FABRIC_1D_NEIGHBOR_EXCHANGE, FABRIC_1D, FABRIC_1D_RING, FABRIC_2D, FABRIC_2D_TORUS_X,
        FABRIC_2D_TORUS_Y, FABRIC_2D_TORUS_XY, CUSTOM,
    ) = range(9)  # fmt: skip


class FabricReliabilityMode(Named):
    STRICT_INIT, RELAXED_INIT, DYNAMIC_RECONFIG = range(3)


class FabricTensixConfig(Named):
    DISABLED = 0
    MUX = 1


_fabric = FabricConfig.DISABLED


def set_fabric_config(
    config: FabricConfig, reliability_mode: FabricReliabilityMode = FabricReliabilityMode.STRICT_INIT,
    num_planes: int | None = None, fabric_tensix_config: FabricTensixConfig = FabricTensixConfig.DISABLED, *args,
    **kwargs,
) -> None:  # fmt: skip
    """Chooses how chips talk; before a mesh is opened, and DISABLED after it is closed.

    Differs   all configs but DISABLED carry every collective here; how it is routed changes nothing
    """
    global _fabric
    if not isinstance(config, FabricConfig):
        raise TypeError(
            f"set_fabric_config(): incompatible function arguments: want a ttnn.FabricConfig, got {config!r}"
        )
    _fabric = config


def get_fabric_config() -> FabricConfig:
    return _fabric
