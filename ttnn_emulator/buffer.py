"""The memory of one tensor on every chip: where it is, what is in it, and who holds it."""

from __future__ import annotations

from .memory import BufferType


class Buffer:
    """Memory of one tensor on every chip, and what is in it.

    `data` holds one torch tensor when all chips hold the same, else one per chip; None while there are no contents
    (under `spec_only`, or allocated and never written). It is freed when the last of its `handles` (tensors) goes.
    A zero-copy result has a buffer of its own that points to its source's, the `root`: freeing the result frees the
    source, while freeing the source leaves the result marked allocated (ttnn 0.81.1, `is_allocated` of aliases).
    `store` is the buffer whose `data` counts: the root's, except where a view shows a part of its root, or padding of
    it; `apart` is how many such views there are.
    `unknown` says why, where there are no contents but a device has some that we cannot know.
    """

    __slots__ = (
        "device", "buffer_type", "address", "bank_bytes", "data", "unknown", "alive", "root", "store", "handles",
        "apart",
    )  # fmt: skip

    def __init__(self, device, buffer_type: BufferType, bank_bytes: int, total_bytes: int, cores: int | None = None):
        self.address = device.allocators[buffer_type].allocate(bank_bytes, total_bytes, cores)
        self.device, self.buffer_type, self.bank_bytes = device, buffer_type, bank_bytes
        self.data: list | None = None
        self.unknown: str | None = None
        if device.traces:
            device.later[id(self)] = self
        self.root: Buffer | None = None
        self.alive, self.store, self.handles, self.apart = True, self, 0, 0

    @classmethod
    def view_of(cls, other: Buffer) -> Buffer:
        view = cls.__new__(cls)
        root = other.root or other
        root.handles += 1
        view.root, view.store = root, other.store
        view.device, view.buffer_type, view.address = other.device, other.buffer_type, other.address
        view.bank_bytes, view.alive, view.data, view.handles = other.bank_bytes, True, None, 0
        view.unknown, view.apart = None, 0
        return view

    @property
    def shared(self) -> bool:
        """Whether another tensor uses this memory."""
        return self.handles > 1 or (self.root is not None and self.root.handles > 1)

    def hold_apart(self) -> None:
        """From now on a view has contents of its own."""
        assert self.root is not None
        self.store = self
        self.root.apart += 1

    @property
    def shown_apart(self) -> bool:
        """Whether another tensor shows this memory by contents that are held apart."""
        if self.root is not None and self.store is self:
            return self.root.handles > 1
        return bool((self.root or self).apart)

    def drop(self) -> None:
        """One handle less; the last one frees."""
        self.handles -= 1
        if not self.handles:
            if self.root is None:
                self.free()
            else:
                self.alive = False
                self.root.apart -= self.store is self
                self.root.drop()

    def free(self) -> None:
        if not self.alive:
            return
        self.alive, self.data, self.unknown = False, None, None
        self.device.later.pop(id(self), None)
        if self.root is not None:
            self.root.free()
        elif self.device.is_open:
            self.device.allocators[self.buffer_type].release(self.address, self.bank_bytes)
