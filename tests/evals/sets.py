"""Reading the labelled sets: every line checked, with the file and the line in each complaint."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from services.ai_worker.examples import Example

FOLDER = Path(__file__).parent / "sets"


class UnusableSet(Exception):
    """A set cannot be used; the sentence names the file and the line."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Examples and a digest that changes with any of them: two results are comparable if it is the same."""

    examples: tuple[Example, ...]
    sha256: str

    @property
    def messages(self) -> int:
        return sum(len(example.new_messages) for example in self.examples)


def read_sets(paths: Sequence[Path]) -> LabelledSet:
    """Read files, and the files in folders. Raises: UnusableSet."""
    files = sorted(file for path in paths for file in (path.glob("*.jsonl") if path.is_dir() else [path]))
    if not files:
        raise UnusableSet(f"no *.jsonl in {', '.join(map(str, paths))}")
    return labelled_set(example for file in files for example in _read(file))


def labelled_set(examples: Iterable[Example]) -> LabelledSet:
    """Put examples together. Raises: UnusableSet if two have one id, or say the same."""
    kept = tuple(examples)
    for what, keys in (
        ("id", [example.id for example in kept]),
        ("text", [repr((e.history, [message.text for message in e.new_messages])) for e in kept]),
    ):
        twice = [kept[keys.index(key)].id for key, count in Counter(keys).items() if count > 1]
        if twice:
            raise UnusableSet(f"more than one example has the {what} of {', '.join(twice)}")
    digest = hashlib.sha256("\n".join(example.line() for example in kept).encode("utf-8", "surrogatepass"))
    return LabelledSet(kept, digest.hexdigest()[:16])


def choose(whole: LabelledSet, *, languages: Sequence[str], tags: Sequence[str], most: int | None) -> LabelledSet:
    """Take the examples in these languages (of their first message) with one of these tags; empty means any."""
    chosen = [
        example
        for example in whole.examples
        if (not languages or language_of(example) in languages) and (not tags or set(tags) & set(example.tags))
    ]
    if most is not None and len(chosen) > most:
        step = len(chosen) / most  # spread over the files, so that a few still hold every language
        chosen = [chosen[int(number * step)] for number in range(most)]
    if not chosen:
        raise UnusableSet("no example is left: look at --language and --tag")
    return labelled_set(chosen)


def language_of(example: Example) -> str:
    """Return the language an example is counted under."""
    for message in example.new_messages:
        if message.labels.languages:
            return message.labels.languages[0]
    # Emoji have none; the file they stand in has, and the id begins with it.
    head = "-".join(example.id.split("-")[:-1])
    return {"pt-br": "pt-BR"}.get(head, head)


def _read(file: Path) -> list[Example]:
    examples = []
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableSet(f"{file}: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            examples.append(Example.model_validate_json(line))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise UnusableSet(f"{file.name}, line {number}: {where}: {first['msg']}") from error
    return examples
