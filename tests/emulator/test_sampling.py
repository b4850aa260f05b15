"""What a seed does to the draws that follow it."""

import torch

import ttnn_emulator as ttnn
from tests.emulator.case import open_system


def test_draws_go_on_from_the_seed_of_each_user():
    device = open_system("n150")
    rows = dict(layout=ttnn.ROW_MAJOR_LAYOUT, device=device)
    logits = ttnn.from_torch(torch.zeros(1, 1, 4, 64).bfloat16(), layout=ttnn.TILE_LAYOUT, device=device)
    tokens = ttnn.from_torch(torch.arange(64, dtype=torch.int32).expand(1, 1, 4, 64), dtype=ttnn.int32, **rows)
    k = ttnn.from_torch(torch.full((4,), 64), dtype=ttnn.uint32, **rows)
    ones = ttnn.from_torch(torch.ones(4).bfloat16(), **rows)

    def draw():
        return ttnn.to_torch(ttnn.sampling(logits, tokens, k, ones, ones)).flatten().tolist()

    seeds = ttnn.from_torch(torch.tensor([1, 2, 3, 1]), dtype=ttnn.uint32, **rows)
    ttnn.manual_seed(seeds)
    first, second = draw(), draw()
    assert first[0] == first[3]
    assert len({*first, *second}) > 2
    ttnn.manual_seed(seeds)
    assert [draw(), draw()] == [first, second]
    ttnn.manual_seed(2, device=device, user_ids=0)
    assert draw()[0] == first[1]
    ttnn.close_device(device)
