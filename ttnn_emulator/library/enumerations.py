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

DispatchAlgorithm = _enum(
    "DispatchAlgorithm", "BROADCAST SPARSE_UNICAST SPARSE_MCAST_LINEAR SPARSE_MCAST_SHORTEST_PATH SPARSE_MCAST_SPLIT_BW"
)
WorkerMode = _enum("WorkerMode", "DIRECT MUX_TOKEN_SPLIT MUX_PAYLOAD_SPLIT")
MMSignalAggregatorMode = _enum("MMSignalAggregatorMode", "Auto On Off")
RoutedExpertActivation = _enum("RoutedExpertActivation", "Silu SwiGluOai SituGlu ClampedSiluGlu")
SparseKVFormat = _enum("SparseKVFormat", "BF16 FP8_E4M3 SCALED_FP8")
LayerNormType = _enum("LayerNormType", "LAYERNORM RMSNORM")
LossReductionMode = _enum("LossReductionMode", "NONE MEAN SUM")
TileReshapeMapMode = _enum("TileReshapeMapMode", "CACHE RECREATE")
UnpackToDestMode = _enum("UnpackToDestMode", "UnpackToDestFp32 Default")
SocketEndpoint = _enum("SocketEndpoint", "SENDER RECEIVER")
H2DMode = _enum("H2DMode", "HOST_PUSH DEVICE_PULL")
D2DStageGateMode = _enum("D2DStageGateMode", "KeepOpen CloseOnTransit")
TransferMode = _enum("TransferMode", "Multicast ChainUnicast")
McastCoreOrder = _enum("McastCoreOrder", "RowMajor ColumnMajor")
McastDataReady = _enum("McastDataReady", "Flag Counter")
McastSenderPlacement = _enum("McastSenderPlacement", "Uniform Staggered")
PaddingMode = _enum("PaddingMode", "Zeros Replicate")
RGBRange = _enum("RGBRange", "MinusOneToOne ZeroToOne")
YUVColorSpace = _enum("YUVColorSpace", "BT601 BT709 BT2020")
YUVFormat = _enum("YUVFormat", "YUV420Planar")
YUVRange = _enum("YUVRange", "Full Limited")
BinaryOpType = _enum(
    "BinaryOpType",
    "ADD SUB MUL GT LT LE GE EQ NE SQUARED_DIFFERENCE BIAS_GELU LOGADDEXP LOGICAL_AND LOGICAL_OR LOGICAL_XOR LDEXP "
    "LOGADDEXP2 DIV DIV_FLOOR DIV_TRUNC REMAINDER FMOD RSUB POWER BITWISE_XOR BITWISE_AND BITWISE_OR LEFT_SHIFT "
    "RIGHT_SHIFT LOGICAL_RIGHT_SHIFT QUANT REQUANT DEQUANT MAXIMUM MINIMUM GCD LCM ADDALPHA SUBALPHA XLOGY HYPOT ATAN2 "
    "NEXTAFTER WHERE_TST WHERE_TTS ISCLOSE SITU_GLU",
)

__all__ = [
    "FabricUDMMode", "FabricManagerMode", "FabricType", "ReduceType", "DistributedLayerNormStage", "CoreType",
    "BcastOpMath", "BcastOpDim", "ShardDistributionStrategy", "ShardShapeAlignment", "NOC", "NOC_MODE",
    "DataMovementProcessor", "DispatchAlgorithm", "WorkerMode", "MMSignalAggregatorMode", "RoutedExpertActivation",
    "SparseKVFormat", "LayerNormType", "LossReductionMode", "TileReshapeMapMode", "UnpackToDestMode", "SocketEndpoint",
    "H2DMode", "D2DStageGateMode", "TransferMode", "McastCoreOrder", "McastDataReady", "McastSenderPlacement",
    "PaddingMode", "RGBRange", "YUVColorSpace", "YUVFormat", "YUVRange", "BinaryOpType",
]  # fmt: skip
