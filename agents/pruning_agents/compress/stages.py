"""The stages from a network to a smaller file: command lines, and the files that prove them done.

Every stage is what a user could type; its folder is in the format that the commands read. Which
network goes on is read from the rows of those that came before. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pruning_agents.proposals.rules import RULES
from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import ResultRow

__all__ = ["RULES_AGENT", "Request", "Stage", "best_search", "stages_of"]

RULES_AGENT = "best-of-rules"

#: The file that each command leaves last.
_RESULT, _TUNED = "result.json", "finetune.json"


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        out: Folder of everything.
        pruned: Words that say what is pruned, for commands that make an environment.
        saved: Words that commands on a saved network need besides its folder.
        traced: Words that say what is traced, for `graph`.
        environment: Further words of both searches: budgets, recovery, groups, device.
        agent: Registered name of who searches after the rules of thumb.
        evaluations: Of rules and search together.
        seed: Of search and training.
        training: Words that say how is trained.
        probe_images: Images of search-train for the sensitivities.
        device: What computes.
        onnx: Whether an ONNX file is wanted.
        int8: Whether an int8 one is, too.
        progress: Whether stages show bars.
    """

    out: Path
    pruned: tuple[str, ...]
    saved: tuple[str, ...]
    traced: tuple[str, ...]
    environment: tuple[str, ...]
    agent: str
    evaluations: int
    seed: int
    training: tuple[str, ...]
    probe_images: int
    device: str
    onnx: bool
    int8: bool
    progress: bool

    def folder(self, stage: str) -> Path:
        """Where a stage writes."""
        return self.out / stage

    @property
    def rules_evaluations(self) -> int:
        """Evaluations of the rules: one each, but for the one that probes every group first."""
        plain = sum(not rule.probes for rule in RULES.values())
        return min(plain, self.evaluations)

    @property
    def search_evaluations(self) -> int:
        """Evaluations that are left for the search; 0 leaves it out."""
        if self.agent == RULES_AGENT:
            return 0
        return self.evaluations - self.rules_evaluations


@dataclass(frozen=True)
class Stage:
    """One of the way.

    Attributes:
        name: Of the stage, and of its folder.
        what: It does, in a few words.
        words: Gives its command line, without `cnnprune`; of a stage that builds on others, when
            those are done.
        proof: The file that it writes last.
    """

    name: str
    what: str
    words: Callable[[], list[str]]
    proof: Path

    @property
    def done(self) -> bool:
        """Whether it was."""
        return self.proof.is_file()


def stages_of(request: Request) -> list[Stage]:
    """The stages in their order; those that are not asked for are left out."""
    folder = request.folder
    quiet = [] if request.progress else ["--no-progress"]
    device = [] if request.device == "cpu" else ["--device", request.device]
    search = [*request.environment, *device, *request.pruned]

    def rules() -> list[str]:
        spend = ["--evaluations", str(request.rules_evaluations)]
        where = ["--out", str(folder("rules"))]
        return ["train", "--agent", RULES_AGENT, *spend, *search, *where, *quiet]

    def searched() -> list[str]:
        spend = ["--evaluations", str(request.search_evaluations), "--seed", str(request.seed)]
        learns = get_agent(request.agent).learner is not None
        resumed = ["--checkpoint-every", "10", "--resume"] if learns else []
        where = ["--out", str(folder("search")), *resumed]
        return ["train", "--agent", request.agent, *spend, *search, *where, *quiet]

    def tuned() -> list[str]:
        where = ["--out", str(folder("finetune")), "--resume", "--seed", str(request.seed)]
        source = str(best_search(request.out))
        return [
            *("finetune", source, *request.training),
            *(*where, *device, *request.saved, *quiet),
        ]

    def certified() -> list[str]:
        networks = [str(best_search(request.out)), str(folder("finetune"))]
        where = ["--out", str(folder("certify") / "test.jsonl")]
        return ["evaluate", *networks, "--test", *where, *device, *request.saved]

    def exported() -> list[str]:
        where = ["--out", str(folder("export") / "model.onnx")]
        int8 = ["--int8"] if request.int8 else []
        return ["export", str(folder("finetune")), *where, *int8, *request.saved]

    picture = folder("graph") / "graph.svg"
    stages = [
        Stage(
            "graph",
            "trace the network: what can go, what cannot, and why",
            lambda: ["graph", *request.traced, "--picture", str(picture)],
            picture,
        ),
        Stage(
            "sensitivity",
            "take channels from each group alone",
            lambda: [
                *("sensitivity", *request.pruned, *device),
                *("--probe-images", str(request.probe_images)),
                *("--out", str(folder("sensitivity")), *quiet),
            ],
            folder("sensitivity") / "sensitivity.json",
        ),
        Stage(
            "rules",
            f"rules of thumb, {request.rules_evaluations} evaluations",
            rules,
            folder("rules") / _RESULT,
        ),
    ]
    if request.search_evaluations:
        what = f"search with {request.agent}, {request.search_evaluations} evaluations"
        stages.append(Stage("search", what, searched, folder("search") / _RESULT))
    stages += [
        Stage("finetune", "train the best of them", tuned, folder("finetune") / _TUNED),
        Stage("certify", "open test, once", certified, folder("certify") / "test.jsonl"),
    ]
    if request.onnx:
        last = "model.int8.onnx" if request.int8 else "model.onnx"
        what = "write ONNX, and int8" if request.int8 else "write ONNX"
        stages.append(Stage("export", what, exported, folder("export") / last))
    return stages


def best_search(out: Path) -> Path:
    """The folder, of rules or search, whose network is better on search-val; of equals the rules'.

    Raises:
        FileNotFoundError: Neither is done.
    """
    rows = {
        folder: ResultRow.from_json((folder / _RESULT).read_text())
        for name in ("rules", "search")
        if ((folder := out / name) / _RESULT).is_file()
    }
    if not rows:
        raise FileNotFoundError(f"{out} holds no result of a search yet")
    return max(rows, key=lambda folder: rows[folder].val_accuracy)
