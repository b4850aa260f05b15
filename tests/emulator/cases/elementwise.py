"""Arithmetic, comparisons and logic against torch in float32.

One rounding to bfloat16 costs at most 2^-9 of a value, 1.7e-3 in relative L2. Block formats: half a step of the block's
largest value; two of them in one op: their own rounding too.
"""

import torch
import torch.nn.functional as F

import ttnn_emulator as ttnn
from tests.emulator.case import Case, Refused, T

BF16, BFP8, FP32 = 3e-3, 2e-2, 1e-6
CUT = 2**-8  # stored in bfloat16 without rounding
PHASES = 4e-3  # a product of the FPU: up to four roundings to bfloat16
SHAPE = (1, 1, 32, 64)
RM = ttnn.ROW_MAJOR_LAYOUT
A, A8, ROW, COLUMN = T(SHAPE), T(SHAPE, ttnn.bfloat8_b), T((1, 1, 1, 64)), T((1, 1, 32, 1))
I32, U32, U16 = (T(SHAPE, d, high=50) for d in (ttnn.int32, ttnn.uint32, ttnn.uint16))
NOT_ZERO = T(SHAPE, ttnn.int32, values=torch.arange(2048, dtype=torch.int32).view(SHAPE) % 9 + 1)
WIDE_A, DIVISORS = T(SHAPE, low=-9.0, high=9.0), T(SHAPE, low=0.5, high=3.0)
ONE_CORE = ttnn.MemoryConfig(
    ttnn.TensorMemoryLayout.HEIGHT_SHARDED, ttnn.BufferType.L1,
    ttnn.ShardSpec(ttnn.CoreRangeSet([ttnn.CoreRange((0, 0), (0, 0))]), (32, 64)),
)  # fmt: skip
TypeRefused = dict(match="incompatible function arguments", error=TypeError)


def of(reference):
    """The reference of an op: placement and the tensor written into do not matter, activations are applied."""

    def call(a, b, dtype=None, memory_config=None, output_tensor=None, activations=(), input_tensor_a_activations=(),
             input_tensor_b_activations=(), fast_and_approximate_mode=None):  # fmt: skip
        def applied(v, acts):
            for act in acts:
                v = {"SILU": F.silu, "RELU": torch.relu}[getattr(act, "op_type", act).name](v)
            return v

        return applied(
            reference(applied(a, input_tensor_a_activations), applied(b, input_tensor_b_activations)), activations
        )

    return call


def arithmetic(reference, divisor=False):
    """Two tensors and a number, both orders; formats, broadcasts, layouts, places, fused activations, refusals."""
    r = of(reference)
    b = T(SHAPE, low=0.5, high=3.0)
    return [
        Case((A, b), {}, r, BF16),
        Case((T(SHAPE, ttnn.float32), T(SHAPE, ttnn.float32, low=0.5, high=3.0)), {}, r, FP32),
        Case((T(SHAPE, ttnn.bfloat8_b), T(SHAPE, ttnn.bfloat8_b, low=0.5, high=3.0)), {}, r, BFP8),
        Case((A, T((1, 1, 1, 64), low=0.5, high=3.0)), {}, r, BF16),
        Case((T((2, 3, 32, 1)), T((3, 1, 64), low=0.5, high=3.0)), {}, r, BF16),
        Case((T((1, 1, 20, 50), layout=RM), T((1, 1, 20, 50), low=0.5, high=3.0)), {}, r, BF16),
        Case((T(SHAPE, memory_config=ONE_CORE), b), {"memory_config": ttnn.L1_MEMORY_CONFIG}, r, BF16),
        Case((A, b), {"dtype": ttnn.bfloat8_b}, r, BFP8),
        Case((A, b), {"output_tensor": T(SHAPE, ttnn.float32)}, r, BF16),
        Case((A, b), {"input_tensor_a_activations": [ttnn.UnaryOpType.SILU]}, r, 2 * BF16),
        Case((A, b), {"activations": [ttnn.UnaryWithParam(ttnn.UnaryOpType.RELU)]}, r, BF16),
        Case((A, 2.0), {}, r, BF16),
        Case((A, 3), {"activations": [ttnn.UnaryOpType.RELU]}, r, BF16),
        Case((0.5, T(SHAPE, low=0.5, high=3.0)), {}, r, BF16),
        Refused((A, T((1, 1, 64, 64))), {}, "Invalid subtile broadcast type"),
        Refused(
            (T((2, 3, 32, 64)), T((4, 1, 32, 64))), {}, r"Broadcasting rule violation at dimension index -4 .*dim a: 2",
        ),
        Refused((T(SHAPE, host=True), A), {}, "Input tensor A must be on device"),
        Refused((A, T(SHAPE, host=True)), {}, "Input tensor B must be on device"),
        Refused((T(SHAPE, ttnn.uint8), A), {}, "Input tensor A dtype DataType::UINT8 is not supported"),
        Refused((A, b), {"output_tensor": T((1, 1, 64, 64))}, "does not match the broadcasted output shape"),
        Refused((A, b), {"activations": ["relu"]}, **TypeRefused),
        Refused((A, b), {"use_legacy": True}, **TypeRefused),
        Refused((A, "2"), {}, **TypeRefused),
    ]  # fmt: skip


def in_place(reference):
    r = of(reference)
    b = T(SHAPE, low=0.5, high=3.0)
    return [
        Case((A, b), {}, r, BF16, changes=0),
        Case((A, 2.0), {}, r, BF16, changes=0),
        Refused((T((1, 1, 1, 64)), A), {}, "does not match the broadcasted output shape"),
        Refused((2.0, A), {}, **TypeRefused),
    ]


def compared(test, tie=True):
    """1 or 0; operands with equal values among them."""
    r = of(lambda a, b: test(a, b if torch.is_tensor(b) else torch.tensor(b)).to(a.dtype))
    small = torch.randint(-2, 3, SHAPE).float()
    return [
        Case((T(SHAPE, values=small), T(SHAPE, values=small.flip(-1))), {}, r, 0),
        Case((T(SHAPE, values=small), 1.0), {}, r, 0),
        Case((I32, I32), {}, r, 0),
        Case((T(SHAPE, ttnn.float32), T((1, 1, 1, 64), ttnn.float32)), {}, r, 0),
        Refused((A, U32), {}, "Mixed dtype is not supported for binary operation"),
        Refused((I32, 2.5), {}, "cannot represent the scalar 2.5"),
    ]


def compared_in_place(test):
    small = torch.randint(-2, 3, SHAPE).float()
    r = of(lambda a, b: test(a, b).to(a.dtype))
    return [Case((T(SHAPE, values=small), T(SHAPE, values=small.flip(-1))), {}, r, 0, changes=0)]


def floats(reference, tolerance=BF16):
    """Ops of two tensors of one float dtype."""
    r = of(lambda a, b: reference(a, b if torch.is_tensor(b) else torch.tensor(b)))
    b = T(SHAPE, low=0.5, high=3.0)
    return [
        Case((T(SHAPE, low=0.5, high=3.0), b), {}, r, tolerance),
        Case((T(SHAPE, low=0.5, high=3.0), 2.0), {}, r, tolerance),
        Refused((A, T(SHAPE, ttnn.float32)), {}, "Mixed dtype is not supported"),
        Refused((A, I32), {}, "Input tensor B dtype DataType::INT32 is not supported"),
    ]


def bits(reference):
    r = of(lambda a, b: reference(a, b if torch.is_tensor(b) else torch.tensor(b)))
    return [
        Case((I32, T(SHAPE, ttnn.int32, high=8)), {}, r, 0),
        Case((U32, 3), {}, r, 0),
        Refused((A, 3), {}, "expected Int32, UInt32, or UInt16"),
        Refused((A, I32), {}, "Input tensor A dtype DataType::BFLOAT16 is not supported"),
        Refused((I32, 1.5), {}, **TypeRefused),
    ]


MIXED = "Mixed dtype is not supported for binary operation"
COMPARISONS = {"eq": torch.eq, "ne": torch.ne, "gt": torch.gt, "ge": torch.ge, "lt": torch.lt, "le": torch.le}
LOGIC = {"logical_and": torch.logical_and, "logical_or": torch.logical_or, "logical_xor": torch.logical_xor}
FLOATS = {
    "logaddexp": torch.logaddexp, "logaddexp2": torch.logaddexp2, "xlogy": torch.xlogy, "ldexp": lambda a, b: a * 2**b,
}  # fmt: skip
GATES = {"glu": torch.sigmoid, "swiglu": F.silu, "geglu": F.gelu, "reglu": torch.relu}


def gated(gate):
    def reference(x, dim=-1):
        a, b = x.chunk(2, -1)
        return a * gate(b)

    return [
        Case((T((1, 1, 32, 128)),), {}, reference, 2 * BF16),
        Case((T((2, 1, 20, 64), ttnn.float32), -1), {}, reference, 1e-5),
        Refused((T((1, 1, 32, 96)),), {}, "Split tensor dimension should be in full tile"),
        Refused((T((1, 1, 32, 128)), 2), {}, "glu-family ops only support the last dimension, got dim=2"),
        Refused((T((32, 128)),), {}, "ShapeBase"),
    ]


CASES = {
    "ttnn.add": [
        *arithmetic(torch.add),
        Case((A, A), {"fast_and_approximate_mode": False}, of(torch.add), BF16),
        Case((I32, I32), {}, of(torch.add), 0),
        Case((U16, 3), {}, of(torch.add), 0),
        Refused((A, I32), {}, MIXED), Refused((U32, I32), {}, MIXED),
        Refused((U32, 2.5), {}, "cannot represent the scalar 2.5"),
    ],
    "ttnn.subtract": [*arithmetic(torch.sub), Case((I32, I32), {}, of(torch.sub), 0), Refused((I32, A), {}, MIXED)],
    "ttnn.multiply": [
        *arithmetic(torch.mul),
        Case((A, A), {"fast_and_approximate_mode": True}, of(torch.mul), 2 * BF16),
        Case((I32, A), {}, of(torch.mul), BF16),
        Case((I32, 2.0), {}, of(torch.mul), 0),
        Case((I32, 2), {}, of(torch.mul), 0),
        Refused((U32, I32), {}, MIXED), Refused((U16, A), {}, MIXED),
    ],
    "ttnn.remainder": [
        Case((WIDE_A, DIVISORS), {}, of(torch.remainder), BF16),
        Case((T(SHAPE, ttnn.float32, low=-9, high=9), T(SHAPE, ttnn.float32, low=0.5, high=3.0)), {},
             of(torch.remainder), 1e-5),
        Case((WIDE_A, 0.75), {}, of(torch.remainder), 2 * BF16),
        Case((WIDE_A, -0.75), {}, of(torch.remainder), 2 * BF16),
        Case((I32, NOT_ZERO), {}, of(torch.remainder)),
        Case((I32, 7), {}, of(torch.remainder)),
        Case((U32, 7), {"dtype": ttnn.float32}, of(torch.remainder)),
        Case((T(SHAPE, layout=RM), 0.75), {}, of(torch.remainder), 2 * BF16),
        Case((A, 0.75), {"output_tensor": T(SHAPE, ttnn.float32)}, of(torch.remainder), BF16),
        Refused((A, T(SHAPE, ttnn.float32)), {}, "Mixed dtype is not supported for binary operation .*REMAINDER"),
        Refused((U32, 2.0), {}, "Expected integer scalar divisor"),
        Refused((U32, -3), {}, "Divisor must be positive, got -3"),
        Refused((U16, 3), {}, "UnaryOpType::REMAINDER does not support integer input dtype DataType::UINT16"),
        Refused((U16, U16), {}, "UINT16 is not supported for binary operation BinaryOpType::REMAINDER"),
        Refused((3.0, A), {}, **TypeRefused),
    ],
    "ttnn.fmod": [
        Case((WIDE_A, DIVISORS), {}, of(torch.fmod), BF16),
        Case((T(SHAPE, ttnn.float32, low=-9, high=9), T(SHAPE, ttnn.float32, low=0.5, high=3.0)), {},
             of(torch.fmod), 1e-5),
        Case((WIDE_A, 0.75), {}, of(torch.fmod), 2 * BF16),
        Case((I32, NOT_ZERO), {}, of(torch.fmod)),
        Case((T(SHAPE, layout=RM), T(SHAPE, layout=RM, low=0.5, high=3.0)), {}, of(torch.fmod), BF16),
        Refused((U32, U32), {}, "UINT32 is not supported for binary operation BinaryOpType::FMOD"),
        Refused((U32, 3), {}, "UnaryOpType::FMOD does not support integer input dtype DataType::UINT32"),
        Refused((3.0, A), {}, **TypeRefused),
    ],
    "ttnn.floor_div": [
        Case((WIDE_A, DIVISORS), {}, of(lambda a, b: torch.floor((a / b).bfloat16().float())), BF16),
        Case((WIDE_A, 0.75), {}, of(lambda a, b: torch.floor((a / b).bfloat16().float())), BF16),
        Case((I32, 7), {}, of(lambda a, b: (a // b).float())),
        Case((U32, T(SHAPE, low=0.5, high=3.0)), {}, of(lambda a, b: torch.floor((a / b).bfloat16().float())), BF16),
        Refused((T(SHAPE, layout=RM), T(SHAPE, layout=RM)), {}, "requires tensor to be in Tile layout"),
        Refused((U32, I32), {}, "Input tensor A dtype DataType::UINT32 is not supported .*DIV"),
        Refused((U16, 3), {}, "UnaryOpType::FLOOR does not support integer input dtype DataType::UINT16"),
        Refused((T(SHAPE, ttnn.uint8, high=9), 3), {}, "UINT8 is not supported for binary operation BinaryOpType::MUL"),
        Refused((3.0, A), {}, **TypeRefused),
    ],
    "ttnn.div": [
        *arithmetic(torch.div),
        Case((T(SHAPE, ttnn.int32, high=50), T(SHAPE, ttnn.int32, values=torch.full(SHAPE, 4))), {}, of(torch.div),
        1e-6),
        Case((A, 2.0), {"rounding_mode": "floor"}, lambda a, b, **_: torch.floor(a / b), 0),
        Refused((U32, 2), {}, "Input tensor A dtype DataType::UINT32 is not supported"),
        Refused((I32, U32), {}, "Input tensor B dtype DataType::UINT32 is not supported"),
        Refused((A, 2.0), {"rounding_mode": "up"}, "Incorrect rounding mode"),
    ],
    "ttnn.add_": in_place(torch.add),
    "ttnn.subtract_": in_place(torch.sub),
    "ttnn.multiply_": [*in_place(torch.mul), Case((I32, I32), {}, of(torch.mul), 0, changes=0)],
    "ttnn.divide_": [*in_place(torch.div), Refused((I32, I32), {}, "supported output dtype is FLOAT32")],
    "ttnn.rsub": [
        Case((A, T(SHAPE)), {}, of(lambda a, b: b - a), BF16), Case((A, 2.0), {}, of(lambda a, b: b - a), BF16),
        Case((I32, I32), {}, of(lambda a, b: b - a), 0), Refused((A, I32), {}, MIXED),
        Refused((2.0, A), {}, **TypeRefused),
    ],
    "ttnn.rsub_": [Case((A, T(SHAPE)), {}, of(lambda a, b: b - a), BF16, changes=0)],
    "ttnn.squared_difference": [
        Case((A, ROW), {}, of(lambda a, b: (a - b) ** 2), 2 * BF16),
        Case((I32, 3), {}, of(lambda a, b: (a - b) ** 2), 0),
        Refused((A, U32), {}, MIXED),
    ],
    "ttnn.squared_difference_": [Case((A, ROW), {}, of(lambda a, b: (a - b) ** 2), 2 * BF16, changes=0)],
    **{f"ttnn.{name}": compared(test) for name, test in {**COMPARISONS, **LOGIC}.items()},
    **{f"ttnn.{name}_": compared_in_place(test) for name, test in {**COMPARISONS, **LOGIC}.items()},
    **{f"ttnn.{name}": floats(f, PHASES if name == "ldexp" else BF16) for name, f in FLOATS.items()},
    **{
        f"ttnn.{name}_": [Case((T(SHAPE, low=0.5, high=2.0), T(SHAPE, low=0.5, high=2.0)), {}, of(function), BF16,
        changes=0)]
        for name, function in FLOATS.items() if name != "xlogy"
    },
    "ttnn.maximum": [
        Case((A, ROW), {}, of(torch.maximum), 0), Case((A, 0.5), {}, lambda a, b: a.clamp(min=b), 0),
        Case((I32, I32), {}, of(torch.maximum), 0),
        Case((A,), {"input_b": 0.5}, lambda a, input_b: a.clamp(min=input_b), 0),
        Refused((A, T(SHAPE, ttnn.float32)), {}, MIXED),
        Refused((U16, 2), {}, "UnaryOpType::MAXIMUM does not support integer"),
    ],
    "ttnn.minimum": [
        Case((A, COLUMN), {}, of(torch.minimum), 0), Case((A, 0.5), {}, lambda a, b: a.clamp(max=b), 0),
        Refused((A, U16), {}, "Input tensor B dtype DataType::UINT16 is not supported"),
    ],
    "ttnn.pow": [
        Case((A, 2), {}, lambda a, e: a**e, CUT),
        Case((T(SHAPE, low=0.1, high=3.0), 0.5), {}, lambda a, e: a**e, CUT),
        Case((T(SHAPE, low=0.1, high=3.0), T(SHAPE)), {}, lambda a, e: a**e, BF16),
        Case((I32, 2), {}, lambda a, e: a**e, 0),
        Case((2.0, A), {}, lambda a, e: a**e, BF16),
        Refused((I32, 0.5), {}, "input requires an integral exponent, got 0.5"),
        Refused((I32, -1), {}, "integers to negative integer powers"),
        Refused((I32, I32), {}, "tensor exponents are not supported for integer inputs"),
    ],
    "ttnn.bitwise_and": bits(torch.bitwise_and),
    "ttnn.bitwise_or": bits(torch.bitwise_or),
    "ttnn.bitwise_xor": bits(torch.bitwise_xor),
    "ttnn.bitwise_left_shift": bits(torch.bitwise_left_shift),
    "ttnn.bitwise_right_shift": bits(torch.bitwise_right_shift),
    "ttnn.where": [
        Case((T(SHAPE, values=torch.randint(0, 2, SHAPE)), A, ROW), {}, lambda p, a, b: torch.where(p != 0, a, b), 0),
        Case((T((1, 1, 1, 64), values=torch.randint(0, 2, (1, 1, 1, 64))), A, 2.0), {}, lambda p, a, b: torch.where(p
        != 0, a, b), 0),
        Case((T(SHAPE, ttnn.int32, high=2), 1.0, -1.0), {}, lambda p, a, b: torch.where(p != 0, a, b), 0),
        Refused((A, T((1, 1, 64, 64)), A), {}, "do not broadcast in a pattern the ternary kernel supports"),
        Refused((A, T(SHAPE, ttnn.float32), 0.0), {}, MIXED),
        Refused((T(SHAPE, layout=RM), A, A), {}, "requires tensor to be in Tile layout"),
        Refused((T(SHAPE, ttnn.uint8), 1.0, 0.0), {}, "WHERE_TSS does not support integer input"),
    ],
    "ttnn.addcmul": [
        Case((A, T(SHAPE), ROW), {"value": 2.0}, lambda a, b, c, value: a + value * b * c, BF16),
        Case((I32, I32, I32), {}, lambda a, b, c: a + b * c, 0),
        Refused((A, T(SHAPE, ttnn.float32), A), {}, "requires all input tensors to have the same dtype"),
        Refused((U16, U16, U16), {}, "Addcmul supports only"),
    ],
    "ttnn.addcdiv": [
        Case((A, T(SHAPE), T(SHAPE, low=0.5, high=2.0)), {"value": 2.0}, lambda a, b, c, value: a + value * b / c,
        BF16),
        Case((A8,) * 2 + (T(SHAPE, ttnn.bfloat8_b, low=0.5, high=2.0),), {"value": 2.0},
            lambda a, b, c, value: a + value * b / c, 5e-2, note="in steps"),
        Refused((A8, A8, T(SHAPE, ttnn.bfloat8_b, low=0, high=0)), {}, "zeros in its third tensor", ttnn.NotEmulated),
        Refused((I32, I32, I32), {}, "Addcdiv TTT does not support INT32"),
    ],
    "ttnn.lerp": [
        Case((A, T(SHAPE), 0.25), {}, torch.lerp, BF16), Case((A, T(SHAPE), T(SHAPE)), {}, torch.lerp, BF16),
    ],
    "ttnn.mac": [Case((A, T(SHAPE), ROW), {}, lambda a, b, c: a * b + c, 2 * BF16), Case((A, 2.0, A), {}, lambda a, b,
    c: a * b + c, BF16)],
    "ttnn.clamp": [
        Case((A, -0.5, 0.5), {}, torch.clamp, 0), Case((A,), {"max": 0.25}, lambda a, max: a.clamp(max=max), 0),
        Case((I32, 5, 20), {}, torch.clamp, 0),
        Case((A, T(SHAPE, high=0.0, low=-1.0), T(SHAPE, low=0.0)), {}, torch.clamp, 0),
        Refused((A,), {}, "Only one of 'min' or 'max' can be None"),
        Refused((A, 0, 1.0), {}, "wrong index for variant"),
        Refused((U32, 0.0, 1.0), {}, "CLAMP_TSS does not support integer"),
    ],
    "ttnn.clip": [
        Case((A, -0.5, 0.5), {}, torch.clamp, 0), Case((I32, 5, 20), {}, torch.clamp, 0),
        Refused((U16, 0.0, 1.0), {}, "CLAMP_TSS does not support integer"),
    ],
    **{f"ttnn.{name}": gated(gate) for name, gate in GATES.items()},
}  # fmt: skip
