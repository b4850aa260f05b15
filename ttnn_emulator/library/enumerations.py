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

MoEActivationFunction = _enum("MoEActivationFunction", "SILU SWIGLU GELU CLAMPED_SILU")
RoutingDirection = _enum("RoutingDirection", "N E S W Z C NONE")
ChunkCompression = _enum("ChunkCompression", "UNROLLED STRIDED_ROWS")
KvChunkTensorType = _enum("KvChunkTensorType", "Kv Snapshot")
ChannelType = _enum("ChannelType", "FULL_SIZE HEADER_ONLY")
KernelBuildOptLevel = _enum("KernelBuildOptLevel", "O1=0 O2=1 O3=2 O0=3 Os=4 Ofast=5 Oz=6")
MorehSoftmaxOp = _enum("MorehSoftmaxOp", "SOFTMAX SOFTMIN LOGSOFTMAX")
MorehSoftmaxBackwardOp = _enum("MorehSoftmaxBackwardOp", "SOFTMAX SOFTMIN LOGSOFTMAX")
_STRATEGIES = "NONE SMALL_W SMALL_H LARGE_W LARGE_H LARGE_C"
MorehSoftmaxOpParallelizationStrategy = _enum("MorehSoftmaxOpParallelizationStrategy", _STRATEGIES)
MorehSoftmaxBackwardOpParallelizationStrategy = _enum("MorehSoftmaxBackwardOpParallelizationStrategy", _STRATEGIES)
CBIndex = _enum("CBIndex", " ".join(f"c_{i}" for i in range(64)))
#: Where those stand that are not at the top of ttnn.
PLACES = {
    "operations.ccl": (MoEActivationFunction,),
    "_ttnn.operations.experimental.ccl_experimental": (MoEActivationFunction,),
    "_ttnn.multi_device.experimental": (RoutingDirection,),
    "_ttnn.operations.experimental.disaggregation": (ChunkCompression, KvChunkTensorType),
    "_ttnn.operations.experimental.fabric_mux": (ChannelType, KernelBuildOptLevel),
    "_experimental.fabric_mux": (ChannelType, KernelBuildOptLevel),
    "experimental.fabric_mux": (ChannelType, KernelBuildOptLevel),
    "_ttnn.operations.moreh": (
        MorehSoftmaxOp, MorehSoftmaxBackwardOp, MorehSoftmaxOpParallelizationStrategy,
        MorehSoftmaxBackwardOpParallelizationStrategy,
    ),
    "_ttnn.program_descriptor": (CBIndex,),
}  # fmt: skip

__all__ = [
    "FabricUDMMode", "FabricManagerMode", "FabricType", "ReduceType", "DistributedLayerNormStage", "CoreType",
    "BcastOpMath", "BcastOpDim", "ShardDistributionStrategy", "ShardShapeAlignment", "NOC", "NOC_MODE",
    "DataMovementProcessor", "DispatchAlgorithm", "WorkerMode", "MMSignalAggregatorMode", "RoutedExpertActivation",
    "SparseKVFormat", "LayerNormType", "LossReductionMode", "TileReshapeMapMode", "UnpackToDestMode", "SocketEndpoint",
    "H2DMode", "D2DStageGateMode", "TransferMode", "McastCoreOrder", "McastDataReady", "McastSenderPlacement",
    "PaddingMode", "RGBRange", "YUVColorSpace", "YUVFormat", "YUVRange", "BinaryOpType",
]  # fmt: skip
