"""Attention heads side by side against the same heads one by one, in float64."""

import torch
from torch import Tensor
from torch.nn import functional

from catheters.models.heads import AttentionHeads


def one_head(heads: AttentionHeads, head: int, num_heads: int, features: Tensor) -> Tensor:
    """Logits of one head by its definition: slices of the joint weights, batch norm in evaluation mode."""
    maps = features
    convolutions = [layer for layer in heads.attention if isinstance(layer, torch.nn.Conv2d)]
    norms = [layer for layer in heads.attention if isinstance(layer, torch.nn.BatchNorm2d)]
    for number, (convolution, norm) in enumerate(zip(convolutions, norms, strict=True)):
        size = convolution.out_channels // num_heads
        own = slice(head * size, (head + 1) * size)
        maps = functional.conv2d(maps, convolution.weight[own], padding=1)
        mean, var = norm.running_mean[own], norm.running_var[own]
        maps = functional.batch_norm(maps, mean, var, norm.weight[own], norm.bias[own])
        maps = torch.relu(maps) if number < 3 else torch.sigmoid(maps)
    pooled = (features * maps).mean(dim=(2, 3))
    hidden = torch.relu(pooled @ heads.hidden_weight[head] + heads.hidden_bias[head])
    return heads.outputs[head](hidden)


def test_side_by_side_equals_one_by_one() -> None:
    torch.manual_seed(0)
    columns = [[0, 3], [1], [4, 2]]  # labels of a head need not stand together
    heads = AttentionHeads(12, columns).double().eval()
    for layer in heads.attention:
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    features = torch.randn(3, 12, 5, 7, dtype=torch.float64)
    with torch.inference_mode():
        logits = heads(features)
        for head, labels in enumerate(columns):
            expected = one_head(heads, head, len(columns), features)
            torch.testing.assert_close(logits[:, labels], expected, rtol=1e-10, atol=1e-12)
        maps = heads.attention_maps(features)
    assert maps.shape == (3, 3, 5, 7)
    assert 0 <= maps.min() < maps.max() <= 1


def test_heads_start_out_different_and_of_the_published_widths() -> None:
    heads = AttentionHeads(20, [[0, 1, 2], [3]])
    widths = [layer.out_channels for layer in heads.attention if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [128, 64, 32, 2]  # 64, 32, 16 and 1 for each of the two
    assert heads.hidden_weight.shape == (2, 20, 20)
    assert not torch.equal(heads.hidden_weight[0], heads.hidden_weight[1])
    assert heads.dropout.p == 0.5
    assert [output.out_features for output in heads.outputs] == [3, 1]
