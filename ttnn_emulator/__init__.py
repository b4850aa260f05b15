"""A Tenstorrent device in PyTorch, behind ttnn's own names.

What passes here is meant to pass on the device: calls are checked as ttnn 0.81.1 checks them, memory is charged as it
allocates it, and numbers come out as the chip computes them. `import ttnn_emulator as ttnn` stands in for the library.
"""

import sys as _sys

from . import numerics
from .chips import Arch
from .config import (
    CONFIG,
    DispatchCoreAxis,
    DispatchCoreConfig,
    DispatchCoreType,
    EmbeddingsType,
    GeluVariant,
    LayerNormDefaultProgramConfig,
    LayerNormShardedMultiCoreProgramConfig,
    MathFidelity,
    MatmulMultiCoreReuseMultiCast1DProgramConfig,
    MatmulMultiCoreReuseMultiCastBatchedDRAMShardedProgramConfig,
    MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig,
    MatmulMultiCoreReuseMultiCastProgramConfig,
    MatmulMultiCoreReuseProgramConfig,
    MinimalMatmulConfig,
    SDPAProgramConfig,
    SigmoidMode,
    SoftmaxDefaultProgramConfig,
    SoftmaxShardedMultiCoreProgramConfig,
    ThrottleLevel,
    UnaryOpType,
    UnaryWithParam,
    WormholeComputeKernelConfig,
    init_device_compute_kernel_config,
)
from .device import FabricNodeId, MeshCoordinate, MeshDevice, MeshShape, QueueId
from .dtypes import (
    ROW_MAJOR_LAYOUT,
    TILE_LAYOUT,
    DataType,
    Layout,
    StorageType,
    bfloat4_b,
    bfloat8_b,
    bfloat16,
    float32,
    fp8_e4m3,
    int8,
    int32,
    uint8,
    uint16,
    uint32,
)
from .errors import DeviceRejects, NotEmulated, Untested
from .fabric import FabricConfig, FabricReliabilityMode, FabricTensixConfig, get_fabric_config, set_fabric_config
from .grid import (
    CoreCoord,
    CoreGrid,
    CoreRange,
    CoreRangeSet,
    corerange_to_cores,
    grid_to_cores,
    num_cores_to_corerangeset,
)
from .machine import (
    GetDefaultDevice,
    GetNumAvailableDevices,
    GetNumPCIeDevices,
    SetDefaultDevice,
    close_device,
    close_mesh_device,
    command_queue,
    create_mesh_device,
    get_arch_name,
    get_device_ids,
    get_memory_view,
    get_num_devices,
    get_num_pcie_devices,
    get_pcie_device_ids,
    manage_device,
    open_device,
    open_mesh_device,
    synchronize_device,
)
from .memory import (
    DRAM_MEMORY_CONFIG,
    L1_BLOCK_SHARDED_MEMORY_CONFIG,
    L1_HEIGHT_SHARDED_MEMORY_CONFIG,
    L1_MEMORY_CONFIG,
    L1_WIDTH_SHARDED_MEMORY_CONFIG,
    BufferType,
    MemoryConfig,
    ShardOrientation,
    ShardSpec,
    ShardStrategy,
    TensorMemoryLayout,
    create_sharded_memory_config,
)
from .mesh import (
    ConcatMesh2dToTensor,
    ConcatMeshToTensor,
    MeshComposerConfig,
    MeshMapperConfig,
    ReplicateTensorToMesh,
    ShardTensor2dMesh,
    ShardTensorToMesh,
    Topology,
    concat_mesh_to_tensor_composer,
    create_mesh_composer,
    create_mesh_mapper,
    replicate_tensor_to_mesh_mapper,
    shard_tensor_to_mesh_mapper,
)
from .oplog import record, spec_only
from .semaphore import (
    create_global_semaphore,
    get_global_semaphore_address,
    reset_global_semaphore_value,
)
from .shape import PublicShape as Shape
from .tensor import PlacementReplicate, PlacementShard, Tensor, TensorSpec, TensorTopology, Tile
from .trace import (
    MeshEvent,
    MeshTraceId,
    begin_trace_capture,
    end_trace_capture,
    event_synchronize,
    execute_trace,
    is_trace_capture_active,
    record_event,
    release_trace,
    wait_for_event,
)

Device = MeshDevice
TILE_SIZE = 32
__version__ = "0.81.1+emulator"

from . import ops as _ops  # noqa: E402  the ops register themselves
from .names import attach as _attach  # noqa: E402
from .names import look_up as _look_up  # noqa: E402
from .ops.core.files import DumpTensorMode  # noqa: E402
from .ops.core.transfer import has_storage_type_of, is_tensor_storage_on_device  # noqa: E402
from .ops.transformer.delta_rule import ChunkGdnWyInverse  # noqa: E402

_attach(_sys.modules[__name__])
from .library.tensor import Tensor  # noqa: E402, F811  the public constructor


def __getattr__(name: str):
    return _look_up("ttnn", name)
