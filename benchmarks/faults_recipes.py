"""Injects damage into recipes of training: mutated TOML, values that make no sense, and changes like those of `--set`.

python benchmarks/faults_recipes.py --child     reads the recipe, and makes the changes, of each line of stdin (JSON)
"""

import importlib.resources
import json
import random
import re
from pathlib import Path

from faults_children import AnsweringChild, answer_lines
from faults_mutations import mutated
from faults_verdicts import RIGHT, WRONG, Tally

TRIALS = 1000
_VALUES = (
    *("-1", "0", "1e400", "nan", "-inf", "true", '"none"', '""', "[]", "{}", "[[1]]", "{ a = 1 }", "2.5", "0x10"),
    *("1979-05-27", "9" * 400, "9" * 5000, "[" * 500, "{a=" * 200, "'\\u0007'", '"\\u001b[31m"', "1_0", "+0.0", "-0"),
    *("9223372036854775807", '"' + "x" * 5000 + '"', "[1, 2, 3]", "1e-320", "null", ""),
)
_KEYS = (
    "",
    ".",
    "a..b",
    "stage1",
    "stage1.batch.x",
    "architecture",
    "__class__",
    "\u00e9",
    "seed ",
    "x" * 3000,
    "version",
)
_LINE = re.compile(r"^(\w+) = .*$", re.MULTILINE)


def inject(tally: Tally, trials: int, seed: int, folder: Path) -> None:
    """Read the recipes that come with realesr, then `trials` bad ones, one by one, in child processes."""
    dice, whole = random.Random(seed), whole_recipes()
    child = AnsweringChild(Path(__file__))
    path = folder / "recipe.toml"
    try:
        for name, text in whole.items():
            path.write_text(text)
            verdict, said = child.ask(json.dumps([str(path), []]))
            tally.add("whole recipes", RIGHT if verdict == RIGHT else WRONG, f"{name}: {said}")
        for number in range(trials):
            name = dice.choice(sorted(whole))
            subject, data, changes = bad_recipe(whole[name], dice)
            path.write_bytes(data)
            verdict, said = child.ask(json.dumps([str(path), changes]))
            tally.add(subject, verdict, f"number {number}, {name}, {changes}: {said}", path)
    finally:
        child.close()


def whole_recipes() -> dict[str, str]:
    """Return name -> text of the recipes that come with realesr."""
    folder = importlib.resources.files("realesr.train").joinpath("recipes")
    return {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".toml")}


def bad_recipe(text: str, dice: random.Random) -> tuple[str, bytes, list[str]]:
    """Return what is bad about a recipe, its bytes, and the changes that go over it."""
    choice = dice.randrange(4)
    if choice == 0:
        return "bytes", mutated(text.encode(), dice)[1], []
    if choice == 1:
        lines = list(_LINE.finditer(text))
        for line in dice.sample(lines, dice.choice((1, 1, 3))):
            text = text.replace(line[0], f"{line[1]} = {dice.choice(_VALUES)}", 1)
        return "values", text.encode(), []
    if choice == 2:
        lines_of_text = text.splitlines()
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(len(lines_of_text))
            lines_of_text[at:at] = [
                dice.choice((*lines_of_text, "[stage3]", "[[stage1]]", f"{dice.choice(_KEYS)} = 1"))
            ]
        return "lines", "\n".join(lines_of_text).encode(), []
    keys = [*_KEYS, *(f"{table}.{key}" for table in ("stage1", "data", "degrade") for key in _LINE.findall(text))]
    changes = [
        dice.choice(keys) + dice.choice(("=", "=", "=", "", "==", " = ")) + dice.choice(_VALUES)
        for _ in range(dice.choice((1, 1, 3)))
    ]
    return "changes", text.encode(), changes


def _judge(line: str) -> tuple[str, str]:
    from realesr.train.recipe import Recipe, read_recipe

    path, changes = json.loads(line)
    recipe = read_recipe(path, changes)
    return (RIGHT, "") if isinstance(recipe, Recipe) else (WRONG, f"got {recipe!r}")


if __name__ == "__main__":
    answer_lines(_judge)
