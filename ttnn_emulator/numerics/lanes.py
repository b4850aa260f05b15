"""Sixteen 32-bit lanes in LLVM vectors, so that a compiled kernel can be written as plain expressions.

numba widens 32-bit integers to 64 bits and leaves vectorising to chance; an intrinsic that builds vector code does
neither. Inside one, `Lanes` gives operators to a vector of 16 int32 or float32.
"""

from llvmlite import ir
from numba.core import cgutils

from . import compiling  # noqa: F401  says when kernels are compiled

WIDTH = 16
I16, I32, F32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
INTS, FLOATS = ir.VectorType(I32, WIDTH), ir.VectorType(F32, WIDTH)


def _operator(instruction: str):
    """The method that builds this instruction of two vectors."""

    def method(self, other):
        return self._new(getattr(self.builder, instruction)(self.value, self._int(other)))

    return method


class Lanes:
    """A vector of 16 int32 (or float32 bits) with operators; plain ints are broadcast."""

    def __init__(self, builder, value):
        self.builder, self.value = builder, value

    def _int(self, other):
        return other.value if isinstance(other, Lanes) else ir.Constant(INTS, [other] * WIDTH)

    def _new(self, value):
        return Lanes(self.builder, value)

    __add__, __sub__, __mul__ = map(_operator, ("add", "sub", "mul"))
    __and__, __or__, __xor__ = map(_operator, ("and_", "or_", "xor"))
    __lshift__, __rshift__ = map(_operator, ("shl", "ashr"))  # an arithmetic shift to the right
    plus, minus, by = map(_operator, ("fadd", "fsub", "fmul"))  # of floats

    def __gt__(self, other):
        """Booleans (a vector of i1), signed comparison."""
        return self._new(self.builder.icmp_signed(">", self.value, self._int(other)))

    def equals(self, other):
        return self._new(self.builder.icmp_signed("==", self.value, self._int(other)))

    def choose(self, yes, no):
        """self is a vector of booleans."""
        return self._new(self.builder.select(self.value, self._int(yes), self._int(no)))

    def max(self, other):
        return (self > other).choose(self, other)

    def min(self, other):
        return (self > other).choose(other, self)

    def as_float(self):
        return self._new(self.builder.bitcast(self.value, FLOATS))

    def as_int(self):
        return self._new(self.builder.bitcast(self.value, INTS))

    def to_float(self):
        """The bit pattern of the integer as float32."""
        return self._new(self.builder.sitofp(self.value, FLOATS)).as_int()

    def fma(self, factor, addend):
        """self * factor + addend, one rounding (floats)."""
        fn = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(FLOATS, [FLOATS] * 3), f"llvm.fma.v{WIDTH}f32"
        )
        return self._new(self.builder.call(fn, [self.value, factor.value, addend.value]))

    def times(self, factor: float):
        return self._new(self.builder.fmul(self.value, ir.Constant(FLOATS, [factor] * WIDTH)))

    def largest(self):
        """The largest lane (signed), in all lanes."""
        v = self
        for step in (8, 4, 2, 1):
            turned = [(i + step) % WIDTH for i in range(WIDTH)]
            v = v.max(self._new(self.builder.shuffle_vector(v.value, v.value, ir.Constant(INTS, turned))))
        return v

    def leading_zeros(self):
        bit = ir.IntType(1)
        fn = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(INTS, [INTS, bit]), f"llvm.ctlz.v{WIDTH}i32"
        )
        return self._new(self.builder.call(fn, [self.value, ir.Constant(bit, 0)]))


def load(builder, pointer, offset, floats=False):
    """Sixteen values from `pointer` (i32* or float*) + offset."""
    kind = FLOATS if floats else INTS
    p = builder.bitcast(builder.gep(pointer, [ir.Constant(ir.IntType(64), offset)]), kind.as_pointer())
    return Lanes(builder, builder.load(p, align=4))


def constant(builder, value):
    """The same number in all lanes: an int, or a float as float32."""
    return Lanes(builder, ir.Constant(FLOATS if isinstance(value, float) else INTS, [value] * WIDTH))


def same(builder, value):
    """A scalar LLVM value (i32 or float) in all lanes."""
    kind = FLOATS if isinstance(value.type, ir.FloatType) else INTS
    v = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(I32, 0))
    return Lanes(builder, builder.shuffle_vector(v, ir.Constant(kind, ir.Undefined), ir.Constant(INTS, [0] * WIDTH)))


def load_uint16(builder, pointer, offset):
    """Sixteen uint16 as int32 lanes."""
    kind = ir.VectorType(ir.IntType(16), WIDTH)
    p = builder.bitcast(builder.gep(pointer, [ir.Constant(ir.IntType(64), offset)]), kind.as_pointer())
    return Lanes(builder, builder.zext(builder.load(p, align=2), INTS))


def store_uint16(builder, pointer, offset, lanes):
    """The low halves of sixteen lanes."""
    kind = ir.VectorType(ir.IntType(16), WIDTH)
    p = builder.bitcast(builder.gep(pointer, [ir.Constant(ir.IntType(64), offset)]), kind.as_pointer())
    builder.store(builder.trunc(lanes.value, kind), p, align=2)


def splat(builder, pointer, offset):
    """One value in all lanes."""
    return same(builder, builder.load(builder.gep(pointer, [ir.Constant(ir.IntType(64), offset)]), align=4))


def store(builder, pointer, offset, lanes):
    p = builder.bitcast(builder.gep(pointer, [ir.Constant(ir.IntType(64), offset)]), lanes.value.type.as_pointer())
    builder.store(lanes.value, p, align=4)


def pointer(context, builder, array_type, value, index, kind):
    """Address of element `index` (an intp) of a contiguous 1-d numba array, as a pointer to `kind`."""
    data = context.make_array(array_type)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())
