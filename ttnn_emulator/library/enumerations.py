"""Enums of the library that no op of the emulator reads.

Source    ttnn 0.81.1, members and values asked one by one
"""

from ..enums import Named


def _enum(name: str, members: str):
    """An enum of `MEMBER`s counted from 0, or of `MEMBER=value`."""
    pairs = (m.split("=") if "=" in m else (m, i) for i, m in enumerate(members.split()))
    return Named(name, [(member, int(value)) for member, value in pairs])


FabricUDMMode = _enum("FabricUDMMode", "DISABLED ENABLED")
FabricManagerMode = _enum("FabricManagerMode", "DEFAULT=3 ENABLED=0 INIT_FABRIC=1 TERMINATE_FABRIC=2")
FabricType = _enum("FabricType", "MESH=1 TORUS_X=2 TORUS_Y=4 TORUS_XY=6")
ReduceType = _enum("ReduceType", "Sum Mean Max Min Std Var Prod")
DistributedLayerNormStage = _enum("DistributedLayerNormStage", "NOT_DISTRIBUTED PRE_ALL_GATHER POST_ALL_GATHER")
CoreType = _enum(
    "CoreType",
    "ARC DRAM ACTIVE_ETH IDLE_ETH PCIE TENSIX ROUTER_ONLY SECURITY L2CPU DISPATCH HARVESTED ETH WORKER COUNT "
    "UNSPECIFIED",
)
BcastOpMath = _enum("BcastOpMath", "ADD SUB MUL")
BcastOpDim = _enum("BcastOpDim", "H W HW")
ShardDistributionStrategy = _enum("ShardDistributionStrategy", "ROUND_ROBIN_1D GRID_2D CONTIGUOUS_1D")
ShardShapeAlignment = _enum("ShardShapeAlignment", "NONE REQUIRED RECOMMENDED")
NOC = _enum("NOC", "RISCV_0_default=0 RISCV_1_default=1 NOC_0=0 NOC_1=1")
NOC_MODE = _enum("NOC_MODE", "DM_DEDICATED_NOC DM_DYNAMIC_NOC")
DataMovementProcessor = _enum("DataMovementProcessor", " ".join(f"RISCV_{i}" for i in range(8)))

__all__ = [
    "FabricUDMMode", "FabricManagerMode", "FabricType", "ReduceType", "DistributedLayerNormStage", "CoreType",
    "BcastOpMath", "BcastOpDim", "ShardDistributionStrategy", "ShardShapeAlignment", "NOC", "NOC_MODE",
    "DataMovementProcessor",
]  # fmt: skip
