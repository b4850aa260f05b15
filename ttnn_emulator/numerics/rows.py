"""Rows that repeat: of a tile's 32 rows in decode, one is the token and 31 are padding."""

import torch


def repeated_rows(rows: torch.Tensor):
    """Of rows [M, K]: those that differ from the last one, then the last; and where each row went. None if most
    differ."""
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
