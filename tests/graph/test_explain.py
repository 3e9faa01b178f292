"""A graph in words, as a table, as a picture, and on the command line."""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruning_agents.cli.main import main
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.explain import abbreviate, layer_order
from pruning_env.graph.picture import draw_graph
from pruning_env.tasks.models import CifarResNet


class Odd(nn.Module):
    """Two concatenated branches, one depthwise; an operator without a rule; an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.BatchNorm2d(3)
        self.left = nn.Conv2d(3, 8, 1)
        self.right = nn.Conv2d(3, 6, 1)
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm = nn.BatchNorm2d(14)
        self.join = nn.Conv2d(14, 4, 1)
        self.head = nn.Conv2d(4, 5, 1)
        self.idle = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fixed(x)
        x = self.norm(torch.cat([self.left(x), self.depthwise(self.right(x))], 1))
        return self.head(torch.linalg.matrix_exp(self.join(x.relu())))


@pytest.fixture(scope="module")
def odd() -> ChannelGraph:
    return ChannelGraph.trace(Odd().eval(), torch.randn(1, 3, 4, 4))


@pytest.fixture(scope="module")
def resnet() -> ChannelGraph:
    return ChannelGraph.trace(CifarResNet(8, shortcut="A").eval(), torch.randn(1, 3, 32, 32))


def test_a_layer_is_explained_by_its_groups_and_what_goes_with_them(odd: ChannelGraph) -> None:
    text = odd.explain("right")
    assert "its 6 outputs belong to group 1, right (6 channels)" in text
    assert "with a channel go outputs of depthwise norm" in text
    assert "and inputs of join" in text


def test_a_layer_over_two_groups_tells_how_much_belongs_to_each(odd: ChannelGraph) -> None:
    text = odd.explain("norm")
    assert "8 of its 14 channels belong to group 0, left (8 channels)" in text
    assert "6 of its 14 channels belong to group 1, right (6 channels)" in text


def test_a_frozen_layer_is_explained_by_the_reason(odd: ChannelGraph) -> None:
    assert "frozen: no rule for linalg_matrix_exp in the model" in odd.explain("join")
    assert "frozen: an output of the model" in odd.explain("head")
    assert "frozen: not used by forward" in odd.explain("idle")


def test_a_parameter_that_is_frozen_by_itself_counts_for_its_layer() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.head(self.attention(x, x, x, need_weights=False)[0])

    network, x = Attending().eval(), torch.randn(2, 5, 4)
    graph = ChannelGraph.trace(network, x, ignore=["attention"])
    assert "is to be ignored" in graph.explain("attention")
    texts = [text.get_text() for text in draw_graph(graph).axes[0].texts]
    assert any("is to be ignored" in text for text in texts)


def test_a_layer_that_nothing_removable_reaches_says_so(odd: ChannelGraph) -> None:
    assert "no removable channel reaches it" in odd.explain("fixed")


def test_a_module_at_full_width_is_explained(resnet: ChannelGraph) -> None:
    assert "full width between a scatter and a gather" in resnet.explain("layer2.0.shortcut")


def test_an_unknown_layer_is_refused_with_similar_names(resnet: ChannelGraph) -> None:
    with pytest.raises(ValueError, match=r"layer='layer2\.0\.conf1'.*layer2\.0\.conv1"):
        resnet.explain("layer2.0.conf1")


def test_the_table_has_every_group_layer_and_reason(odd: ChannelGraph) -> None:
    text = odd.table()
    rows = dict(re.findall(r"^ +(\d+) +(\d+) ", text, re.MULTILINE))
    assert rows == {str(i): str(group.size) for i, group in enumerate(odd.groups)}
    for group in odd.groups:
        assert all(name in text for name in (*group.layers, *group.consumers))
    for layer, reason in odd.frozen.items():
        assert layer in text and reason in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_table_keeps_to_its_width(resnet: ChannelGraph, width: int) -> None:
    assert max(map(len, resnet.table(width).splitlines())) <= width
    with pytest.raises(ValueError, match="width=79"):
        resnet.table(79)


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["a", "b"], ["a", "b"]),
        (["l.0.c", "l.1.c", "l.2.c", "l.4.c"], ["l.{0-2,4}.c"]),
        (["l1.0.c", "l1.1.c", "l2.0.c", "l2.1.c"], ["l{1,2}.{0,1}.c"]),
        (["l1.0.c", "l1.1.c", "l2.0.c"], ["l{1,2}.0.c", "l1.1.c"]),
        (["x.1", "x.1", "x.1.y"], ["x.1", "x.1.y"]),
        (["v.9", "v.10", "v.11"], ["v.{9-11}"]),
    ],
)
def test_names_that_differ_in_numbers_are_abbreviated(names: list[str], short: list[str]) -> None:
    assert abbreviate(names) == short


def test_layers_come_in_execution_order_whatever_the_order_of_definition() -> None:
    class Reversed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.second = nn.Linear(6, 2), nn.Conv2d(4, 6, 1)
            self.first = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x)).mean((2, 3)))

    graph = ChannelGraph.trace(Reversed().eval(), torch.randn(1, 3, 4, 4))
    assert layer_order(graph) == ["first", "second", "head"]


def test_the_picture_names_every_layer_with_a_weight_and_every_reason(odd: ChannelGraph) -> None:
    figure = draw_graph(odd)
    texts = " ".join(text.get_text() for text in (*figure.texts, *figure.axes[0].texts))
    for layer in ("left", "right", "depthwise", "join", "head", "idle"):
        assert f" {layer} " in texts
    assert "norm" not in texts
    assert all(reason in texts for reason in odd.frozen.values())


def nested(name: str, depth: int) -> ChannelGraph:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 4, 1))
    for _ in range(depth):
        network = nn.Sequential(OrderedDict([(name, network)]))
    return ChannelGraph.trace(network.eval(), torch.randn(1, 3, 4, 4))


@pytest.mark.parametrize(
    ("name", "depth"), [("i", 1), ("feature_extractor", 2), ("feature_extractor", 8), ("MMMM", 40)]
)
def test_a_picture_holds_all_its_texts_however_long_names_are(name: str, depth: int) -> None:
    figure = draw_graph(nested(name, depth))
    assert figure.get_figwidth() < 8
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    labels = [
        text.get_text().split()[0] for text in texts if text.get_fontfamily() == ["monospace"]
    ]
    assert len(set(labels)) == 4  # a heading and three layers, told apart
    assert all(len(label) <= 40 for label in labels)
    for text in texts:
        extent = text.get_window_extent()
        assert extent.x0 >= 0 and extent.x1 <= figure.bbox.x1


def test_a_reason_of_wide_letters_is_within_the_picture() -> None:
    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.WWWWWWWWMMMMMMMMWWWWWWWWMMMMMMMM = Odd()

        def forward(self, x: Tensor) -> Tensor:
            return self.WWWWWWWWMMMMMMMMWWWWWWWWMMMMMMMM(x)

    figure = draw_graph(ChannelGraph.trace(Wide().eval(), torch.randn(1, 3, 4, 4)))
    assert max(text.get_window_extent().x1 for text in figure.axes[0].texts) <= figure.bbox.x1


def test_names_that_differ_only_in_their_middle_are_told_apart_in_the_picture() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for side in ("left", "right"):
                name = f"{'a' * 30}_{side}_{'b' * 30}"
                self.add_module(name, nn.Conv2d(3 if side == "left" else 4, 4, 1))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.children():
                x = layer(x)
            return x

    graph = ChannelGraph.trace(Twins().eval(), torch.randn(1, 3, 4, 4))
    labels = {text.get_text().split()[0] for text in draw_graph(graph).axes[0].texts[:3]}
    assert len(labels) == 3


def test_groups_that_overlap_have_lanes_of_their_own(resnet: ChannelGraph) -> None:
    spans: dict[float, list[tuple[float, float]]] = {}
    for line in draw_graph(resnet).axes[0].lines:
        (left, top), (right, bottom) = np.asarray(line.get_xydata()).tolist()
        if left == right:
            spans.setdefault(left, []).append((top, bottom))
    assert sum(map(len, spans.values())) == len(resnet.groups)
    for lane in spans.values():
        lane.sort()
        assert all(end < begin for (_, end), (begin, _) in itertools.pairwise(lane))


# The command


def command(*arguments: str) -> int:
    try:
        return main(["graph", *arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def test_the_command_shows_a_task_and_draws_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "graph.svg"
    assert command("digits-resnet8", "--picture", str(picture)) == 0
    out = capsys.readouterr().out
    assert "groups" in out and "an output of the model" in out
    assert picture.read_text().lstrip().startswith("<?xml")


def test_the_command_explains_a_layer_of_an_imported_network(
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = "tests.helpers.small:SmallNet"
    assert command(path, "--input", "1,1,8,8", "--layer", "inner.0") == 0
    assert "its 10 outputs belong to group" in capsys.readouterr().out


def test_the_command_knows_torchvision(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("squeezenet1_1", "--input", "1,3,64,64") == 0
    assert "features.12.expand3x3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no-such-net"], "argument MODEL: model='no-such-net' is unknown"),
        (["no.such.module:net"], "argument MODEL: model='no.such.module:net' cannot be imported"),
        (["math:pi"], "argument MODEL: model='math:pi' is not callable"),
        (["builtins:dict"], "returned dict, not a torch.nn.Module"),
        (["digits-resnet8", "--input", "1,x"], "'1,x' is not a shape such as"),
        (
            ["digits-resnet8", "--input", "1,5,8,8"],
            "argument --input: example_input: CifarResNet does",
        ),
        (["digits-resnet8", "--layer", "nowhere"], "argument --layer: layer='nowhere'"),
        (["digits-resnet8", "--picture", "x.doc"], "argument --picture"),
    ],
)
def test_bad_input_ends_with_2_and_names_the_argument(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err
