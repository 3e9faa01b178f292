"""A teacher's answers, kept from one training to the next that asks the same.

Knows nothing of recipes: who trains says what its questions depend on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from pruning_env.files import atomic_path

__all__ = ["KeptAnswers"]

Teacher = Callable[[Tensor], Tensor]


class KeptAnswers:
    """Files of what a teacher answered in each epoch, bit for bit as it did.

    Where the batches of an epoch depend on the seed and the epoch alone, all students of one
    teacher that share a seed ask the same of it: the second one need not wait for it.

    Args:
        folder: Of all teachers and trainings; made when there is something to write.
        teacher: Answers what no file does.
        questions: Names all else that the answers depend on, such as seed, batch size, data.
    """

    def __init__(self, folder: Path, teacher: nn.Module, questions: str) -> None:
        digest = hashlib.sha256(questions.encode())
        for name, tensor in teacher.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        self._folder = folder / digest.hexdigest()[:16]
        self._teacher = teacher

    @contextmanager
    def epoch(self, number: int) -> Iterator[Teacher]:
        """A teacher for the batches of one epoch, in their order; its answers are kept at the end.

        Raises:
            ValueError: More batches are asked than the file has.
        """
        path = self._folder / f"epoch-{number}.pt"
        if path.is_file():
            kept = iter(torch.load(path, map_location="cpu", weights_only=True))

            def repeat(images: Tensor) -> Tensor:
                answer = next(kept, None)
                if answer is None or len(answer) != len(images):
                    raise ValueError(f"{path} holds the answers to other batches: delete it")
                return answer.to(images.device)

            yield repeat
            return
        given: list[Tensor] = []

        def ask(images: Tensor) -> Tensor:
            answer: Tensor = self._teacher(images)
            given.append(answer.cpu())
            return answer

        yield ask
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(given, file)
