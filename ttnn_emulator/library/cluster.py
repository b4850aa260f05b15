"""ttnn.cluster: which machine this is."""

from ..chips import machine
from ..enums import Named

#: Source    ttnn 0.81.1, members as the library counts them
ClusterType = Named(
    "ClusterType",
    dict(
        INVALID=0, N150=1, N300=2, T3K=3, GALAXY=4, TG=5, P100=6, P150=7, P150_X2=8, P150_X4=9, P150_X8=13,
        SIMULATOR_WORMHOLE_B0=10, SIMULATOR_BLACKHOLE=11, N300_2x2=12, P300=14, SIMULATOR_QUASAR=15,
        BLACKHOLE_GALAXY=16, P300_X2=17, CUSTOM=18,
    ),
)  # fmt: skip


def get_cluster_type():
    """The machine's ClusterType."""
    return ClusterType[machine().cluster]


__all__ = ["ClusterType", "get_cluster_type"]
