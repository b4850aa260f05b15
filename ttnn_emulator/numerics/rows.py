"""Rows that repeat: of a tile's 32 rows in decode, one is the token and 31 are padding."""

import torch

_last: tuple = (None, -1, None)  # rows, their version, and the answer: the chips of a mesh ask one after the other


def repeated_rows(rows: torch.Tensor):
    """Of rows [M, K]: those that differ from the last one, then the last; and where each row went. None if most
    differ. The answer is shared: it is not to be written to."""
    global _last
    if rows.is_inference():  # has no version
        return _repeated_rows(rows)
    held, version, answer = _last
    if (
        held is not None
        and rows.data_ptr() == held.data_ptr()
        and rows._version == version
        and (rows.dtype, rows.shape, rows.stride()) == (held.dtype, held.shape, held.stride())
    ):
        return answer
    answer = _repeated_rows(rows)
    _last = rows, rows._version, answer
    return answer


def _repeated_rows(rows: torch.Tensor):
    m = rows.shape[0]
    if m == 1:
        return None
    words = rows.contiguous().view(torch.int64) if rows.shape[-1] % 4 == 0 and rows.dtype == torch.bfloat16 else rows
    keep = (words != words[-1]).any(-1).nonzero().flatten()
    if keep.numel() > m // 2:
        return None
    index = torch.full((m,), keep.numel(), device=rows.device)
    index[keep] = torch.arange(keep.numel(), device=rows.device)
    return torch.cat([rows[keep], rows[-1:]]), index
