"""The project's documents: links lead somewhere; commands, settings, make targets and files that they name exist."""

import functools
import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sigma_assets.cli import app
from sigma_core.config import SigmaConfig

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CODE = re.compile(r"```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def code_of(path: Path) -> Iterator[str]:
    """What stands in backquotes and code blocks, a line each; lines that go on with a backslash are one."""
    for block, inline in CODE.findall(path.read_text(encoding="utf-8")):
        yield from (inline or block).replace("\\\n", " ").splitlines()


def anchors(path: Path) -> set[str]:
    """Anchors of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The verb that the words lead to, and the words after it.

    Raises:
        KeyError: there is no such verb.
    """
    command: Any = get_command(app)
    while hasattr(command, "commands") and words and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def faults_of(line: str) -> list[str]:
    """What a line of code says of `sigma` that is not so."""
    found = re.match(r"(?:\w+=\S+ )*sigma ((?:[\w-]+ ?).*)", line.strip())
    if found is None:
        return []
    words = re.sub(r" #.*|\s[|&>].*", "", found[1]).split()
    try:
        command, rest = command_of(words)
    except KeyError as verb:
        return [f"no verb {verb} in: {line}"]
    named = {"--help", *(name for parameter in command.params for name in parameter.opts)}
    asked = re.findall(r"(?<![\w-])(--[a-z][\w-]*)", " ".join(rest))
    faults = [f"no option {name} in: {line}" for name in asked if name not in named]
    for section, key in re.findall(r"--set '?(\w+)\.(\w+)=", line):
        if key not in SigmaConfig.model_fields[section].annotation.model_fields:
            faults.append(f"no setting {section}.{key} in: {line}")
    return faults


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_settings_that_a_document_names_exist(path: Path) -> None:
    assert [fault for line in code_of(path) for fault in faults_of(line)] == []


def test_a_wrong_verb_option_or_setting_is_found() -> None:
    assert faults_of("sigma materialise --as-of DATE") == [
        "no verb 'materialise' in: sigma materialise --as-of DATE"
    ]
    assert faults_of("sigma prune --keep 3") == ["no option --keep in: sigma prune --keep 3"]
    assert faults_of("X=1 sigma materialize --set runtime.gpu=1") == [
        "no setting runtime.gpu in: X=1 sigma materialize --set runtime.gpu=1"
    ]
    assert faults_of("sigma ui                 # --anything") == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_of_a_document_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name) if name else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{path.name}: {link}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_make_targets_that_a_document_names_exist(path: Path) -> None:
    targets = set(
        re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for line in code_of(path):
        for name in re.findall(
            r"(?<![\w/.-])((?:tests|sigma_core|sigma_assets|data_contracts|docs)/[\w/.-]*)", line
        ):
            assert (ROOT / name.split("::")[0].rstrip(".")).exists(), f"{path.name}: {line}"
        for target in re.findall(r"^make ([a-z][\w-]*)", line):
            assert target in targets, f"{path.name}: {line}"


def holds(name: str) -> bool:
    """Whether `module.Class.member` is something of `sigma_core`; the class of the model may stand alone."""
    parts = ("model.sigma." + name if name.startswith("SigmaModel") else name).split(".")
    for length in range(len(parts), 0, -1):
        if importlib.util.find_spec("sigma_core." + parts[0]) is None:
            return False
        try:
            found = importlib.import_module(".".join(["sigma_core", *parts[:length]]))
        except ModuleNotFoundError:
            continue
        owner = functools.reduce(lambda thing, part: getattr(thing, part, None), parts[length:-1], found)
        wanted = parts[-1]
        if length == len(parts) or hasattr(owner, wanted):
            return True
        return wanted in inspect.getsource(owner)  # an attribute that instances have
    return False


def test_functions_that_the_paper_table_names_exist() -> None:
    rows = [line.split("|") for line in (ROOT / "PAPER.md").read_text(encoding="utf-8").splitlines()]
    cells = [row[2] for row in rows if len(row) > 4 and row[1].strip() != "claim"]
    names = [name for cell in cells for name in re.findall(r"`((?:[a-z_]+\.|SigmaModel\.)[\w.]+)`", cell)]
    assert len(names) > 40
    assert [name for name in names if not holds(name)] == []
    assert not holds("model.heads.Nothing")
