"""Compute-kernel and program configs: what a call may say about how an op runs."""

from __future__ import annotations

import pathlib

from .enums import Named
from .numerics import ComputeConfig


class MathFidelity(Named):
    LoFi, HiFi2, HiFi3, HiFi4, Invalid = 0, 2, 3, 4, 255


class ThrottleLevel(Named):
    NO_THROTTLE, LEVEL_1, LEVEL_2, LEVEL_3, LEVEL_4, LEVEL_5 = range(6)


class _Config:
    """Keyword arguments with defaults, kept as attributes; unknown names are a TypeError."""

    FIELDS: dict = {}
    REQUIRED = object()

    def __init__(self, **kwargs):
        unknown = kwargs.keys() - self.FIELDS.keys()
        missing = [k for k, v in self.FIELDS.items() if v is _Config.REQUIRED and k not in kwargs]
        if unknown or missing:
            raise TypeError(
                "__init__(): incompatible function arguments. The following argument types are supported:\n"
                f"  {type(self).__name__}({', '.join(self.FIELDS)})"
                + (f"\n  unknown: {', '.join(sorted(unknown))}" if unknown else "")
                + (f"\n  missing: {', '.join(missing)}" if missing else "")
            )
        for name, default in self.FIELDS.items():
            setattr(self, name, kwargs.get(name, default))

    def __eq__(self, other) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        """Of the values as they are now: plans are kept by the configs they were made for."""
        try:
            return hash(tuple(vars(self).values()))
        except TypeError:  # a list among them
            return hash(repr(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v}' for k, v in vars(self).items())})"


class WormholeComputeKernelConfig(_Config):
    """How the compute kernel of an op works (ttnn 0.81.1; NUMERICS: what each choice does to the result)."""

    FIELDS = dict(
        math_fidelity=MathFidelity.Invalid, math_approx_mode=True, fp32_dest_acc_en=False, packer_l1_acc=False,
        dst_full_sync_en=False, throttle_level=ThrottleLevel.NO_THROTTLE,
    )  # fmt: skip

    def resolve(self, default: ComputeConfig) -> ComputeConfig:
        """What the numerics need to know; an unset fidelity is the op's default one."""
        fidelity = default.math_fidelity if self.math_fidelity is MathFidelity.Invalid else self.math_fidelity.name
        return ComputeConfig(fidelity, self.math_approx_mode, self.fp32_dest_acc_en, self.packer_l1_acc)


def resolve(config: WormholeComputeKernelConfig | None, default: ComputeConfig) -> ComputeConfig:
    return default if config is None else config.resolve(default)


def init_device_compute_kernel_config(arch, device_kernel_config=None, **kwargs) -> WormholeComputeKernelConfig:
    """A config from keywords (fidelity LoFi unless said), or the one given."""
    kwargs.setdefault("math_fidelity", MathFidelity.LoFi)
    return device_kernel_config or WormholeComputeKernelConfig(**kwargs)


#: The unary functions that can be fused into other ops.
UnaryOpType = Named(
    "UnaryOpType",
    "EXP RECIP GELU GELU_TANH RELU SQRT SIGMOID LOG LOG1P TANH LOG2 LOG10 SIN COS COSH SINH ABS ABS_INT32 SIGN "
    "SQUARE EQZ NEZ GTZ LTZ GEZ LEZ RELU_MAX RELU_MIN POWER POWER_ITERATIVE LEAKY_RELU ELU EXP2 HEAVISIDE EXPM1 "
    "SIGNBIT ASIN ACOS ACOSH RSQRT RELU6 ATAN ASINH ATANH ERF ERFC ISINF ISPOSINF ISNEGINF ISNAN "
    "LOGICAL_NOT_UNARY ISFINITE ERFINV I0 I1 TAN RSUB RDIV SILU SOFTPLUS IDENTITY NEG ADD_UNARY_SFPU "
    "SUB_UNARY_SFPU MUL_UNARY_SFPU DIV_UNARY_SFPU UNARY_NE UNARY_EQ UNARY_GT UNARY_LT UNARY_GE UNARY_LE "
    "TILED_PROD TYPECAST BITCAST BITWISE_XOR BITWISE_NOT BITWISE_AND BITWISE_OR RIGHT_SHIFT FLOOR CEIL TRUNC FRAC "
    "ROUND LEFT_SHIFT REMAINDER FMOD DROPOUT FILL PRELU_SFPU ZERO_POINT ALT_COMPLEX_ROTATE90 MISH HARDMISH "
    "MAXIMUM MINIMUM TANHSHRINK THRESHOLD SOFTSHRINK HARDSHRINK HARDTANH HARDSIGMOID HARDSWISH WHERE_TSS MAC_TSS "
    "SOFTSIGN CELU CLAMP_TSS SELU RPOW CBRT LOGSIGMOID LOGIT XIELU LGAMMA DIGAMMA POLYGAMMA SOFTCAP",
    start=0,
)


class UnaryWithParam:
    """A unary function and its parameters, as fused activations are written."""

    __slots__ = ("op_type", "params")

    def __init__(self, op_type, *params):
        if isinstance(op_type, tuple) and not params:
            op_type, *params = op_type
        if (
            not isinstance(op_type, UnaryOpType)
            or not all(isinstance(p, (int, float)) for p in params)
            or len(params) > 2
        ):
            raise TypeError(
                "__init__(): incompatible function arguments. The following argument types are supported:\n"
                "  UnaryWithParam(UnaryOpType), UnaryWithParam(UnaryOpType, float), "
                "UnaryWithParam(UnaryOpType, float, float)"
            )
        self.op_type, self.params = op_type, [float(p) for p in params]

    def __repr__(self) -> str:
        params = f", params=[{', '.join(f'{p:g}' for p in self.params)}]" if self.params else ""
        return f"UnaryWithParam(op_type=UnaryOpType::{self.op_type.name}{params})"


class GeluVariant(Named):
    Accurate, FastLut, Tanh = range(3)


class SigmoidMode(Named):
    FastApproximate, AccurateWithFastExp, Accurate = range(3)


class EmbeddingsType(Named):
    GENERIC, PADDED, BINARY = range(3)


R = _Config.REQUIRED


class MatmulMultiCoreProgramConfig(_Config):
    FIELDS = {}


class MatmulMultiCoreReuseProgramConfig(_Config):
    FIELDS = dict(
        compute_with_storage_grid_size=R, in0_block_w=R, out_subblock_h=R, out_subblock_w=R, per_core_M=R, per_core_N=R,
        allowed_worker_cores=None,
    )  # fmt: skip


class MatmulMultiCoreReuseMultiCastProgramConfig(_Config):
    FIELDS = dict(
        compute_with_storage_grid_size=R, in0_block_w=R, out_subblock_h=R, out_subblock_w=R, out_block_h=None,
        out_block_w=None, per_core_M=R, per_core_N=R, transpose_mcast=R, fused_activation=None, fuse_batch=True,
        allowed_worker_cores=None,
    )  # fmt: skip


class MatmulMultiCoreReuseMultiCast1DProgramConfig(_Config):
    FIELDS = dict(
        compute_with_storage_grid_size=R, in0_block_w=R, out_subblock_h=R, out_subblock_w=R, out_block_h=None,
        out_block_w=None, per_core_M=R, per_core_N=R, fuse_batch=R, fused_activation=None, mcast_in0=R,
        gather_in0=False, hop_cores=None, num_global_cb_receivers=1, untilize_out=False, allowed_worker_cores=None,
        stream_in1=False,
    )  # fmt: skip


class MatmulMultiCoreReuseMultiCastDRAMShardedProgramConfig(_Config):
    FIELDS = dict(in0_block_w=R, per_core_M=R, per_core_N=R, fused_activation=None, num_workers_per_dram_bank=1)


class MatmulMultiCoreReuseMultiCastBatchedDRAMShardedProgramConfig(_Config):
    FIELDS = dict(in0_block_w=R, per_core_M=R, per_core_N=R, fused_activation=None)


class MinimalMatmulConfig(_Config):
    """Blocks and the grid of `experimental.minimal_matmul`, in tiles; without any argument all are 0."""

    FIELDS = dict(
        M_block_size=1, K_block_size=1, N_block_size=1, subblock_h=1, subblock_w=1,
        compute_with_storage_grid_size=(1, 1),
    )  # fmt: skip

    def __init__(self, **kwargs):
        super().__init__(**(kwargs or dict.fromkeys(self.FIELDS, 0)))


class SDPAProgramConfig(_Config):
    FIELDS = dict(
        compute_with_storage_grid_size=R, sub_core_grids=None, q_chunk_size=R, k_chunk_size=R, exp_approx_mode=None,
        max_cores_per_head_batch=16, max_k_splits=1, matmul_math_fidelity=None, segmented_accumulation=False,
    )  # fmt: skip


class LayerNormDefaultProgramConfig(_Config):
    FIELDS = dict(legacy_reduction=False, legacy_rsqrt=False, use_welford=False)


class LayerNormShardedMultiCoreProgramConfig(_Config):
    FIELDS = dict(
        compute_with_storage_grid_size=R, subblock_w=R, block_h=R, block_w=R, inplace=R, legacy_reduction=False,
        legacy_rsqrt=False, use_welford=False,
    )  # fmt: skip


class SoftmaxDefaultProgramConfig(_Config):
    FIELDS = {}


class SoftmaxShardedMultiCoreProgramConfig(_Config):
    FIELDS = dict(compute_with_storage_grid_size=R, subblock_w=R, block_h=R, block_w=R)


class DispatchCoreType(Named):
    WORKER = 0
    ETH = 1


class DispatchCoreAxis(Named):
    ROW = 0
    COL = 1


class DispatchCoreConfig:
    """Which cores dispatch; the emulated systems keep the 8x8 worker grid whatever is asked."""

    def __init__(self, type=None, axis=None, fabric_tensix_config=None):
        self.type, self.axis = type, axis


class Config:
    """ttnn.CONFIG: the library's run-time settings with their defaults in 0.81.1.

    Differs   they are held and have no effect: there are no reports, no model cache and no comparison mode here
    """

    __slots__ = (
        "cache_path", "comparison_mode_pcc", "comparison_mode_should_raise_exception", "enable_comparison_mode",
        "enable_detailed_buffer_report", "enable_detailed_tensor_report", "enable_fast_runtime_mode",
        "enable_graph_python_stack_traces", "enable_graph_report", "enable_logging", "enable_model_cache",
        "model_cache_path", "report_name", "report_path", "root_report_path", "strict_ccl_topology",
        "throw_exception_on_fallback", "tmp_dir", "validate_program_args",
    )  # fmt: skip

    def __init__(self):
        for name in self.__slots__:
            setattr(self, name, None if name.startswith("report") else False)
        # As the library lays them out, in a folder of the user's; nothing is written there.
        cache = pathlib.Path.home() / ".cache/ttnn"
        self.cache_path, self.model_cache_path, self.tmp_dir = cache, cache / "models", pathlib.Path("/tmp/ttnn")
        self.root_report_path = pathlib.Path("generated/ttnn/reports")
        self.enable_fast_runtime_mode, self.comparison_mode_pcc = True, 0.9999


CONFIG = Config()
