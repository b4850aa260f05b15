"""Compute-kernel and program configs: what a call may say about how an op runs."""

from __future__ import annotations

import enum

from .numerics import ComputeConfig


class MathFidelity(enum.Enum):
    LoFi = 0
    HiFi2 = 2
    HiFi3 = 3
    HiFi4 = 4
    Invalid = 255

    def __str__(self) -> str:
        return f"MathFidelity.{self.name}"

    __hash__ = object.__hash__


class ThrottleLevel(enum.Enum):
    NO_THROTTLE = 0
    LEVEL_1 = 1
    LEVEL_2 = 2
    LEVEL_3 = 3
    LEVEL_4 = 4
    LEVEL_5 = 5


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


#: On Wormhole the name for a Grayskull config gives the same class.
GrayskullComputeKernelConfig = BlackholeComputeKernelConfig = WormholeComputeKernelConfig


def resolve(config: WormholeComputeKernelConfig | None, default: ComputeConfig) -> ComputeConfig:
    return default if config is None else config.resolve(default)


def init_device_compute_kernel_config(arch, device_kernel_config=None, **kwargs) -> WormholeComputeKernelConfig:
    """A config from keywords (fidelity LoFi unless said), or the one given."""
    kwargs.setdefault("math_fidelity", MathFidelity.LoFi)
    return device_kernel_config or WormholeComputeKernelConfig(**kwargs)


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


class DispatchCoreType(enum.Enum):
    WORKER = 0
    ETH = 1


class DispatchCoreAxis(enum.Enum):
    ROW = 0
    COL = 1


class DispatchCoreConfig:
    """Which cores dispatch; the emulated systems keep the 8x8 worker grid whatever is asked."""

    def __init__(self, type=None, axis=None, fabric_tensix_config=None):
        self.type, self.axis = type, axis
