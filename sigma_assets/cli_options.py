"""Checks of options that are made while the command line is parsed, so that nothing is computed for an answer that has no place.

Callbacks of typer's options: each returns its value or says what is wrong with it. No verb, and nothing that costs time.
"""

import os
from contextlib import suppress
from pathlib import Path

import typer

LOCKS = ".lock"  # names of lock files begin so; they are empty when nobody holds them


def output_file(path: Path | None) -> Path | None:
    """A file to write, in a folder that is there.

    Raises:
        BadParameter: it is a folder or no regular file, or its folder is missing or not writable.
    """
    if path is not None:
        _need_file(path)
        folder = path.absolute().parent
        if not folder.exists():
            raise typer.BadParameter(f"{path}: the folder {folder} does not exist; make it, or name another.")
        _need_writable(folder, path)
    return path


def output_file_and_folder(path: Path | None) -> Path | None:
    """A file to write by a verb that makes the file's folder when missing; else as `output_file`."""
    if path is not None:
        _need_file(path)
        _need_writable(_nearest(path.absolute().parent), path)
    return path


def output_folder(path: Path | None) -> Path | None:
    """A folder to write into, made when missing.

    Raises:
        BadParameter: it is a file, or it cannot be made or written to.
    """
    if path is not None:
        _need_writable(_nearest(path.absolute()), path)
    return path


def root_folder(context: typer.Context, path: Path | None) -> Path | None:
    """The root of a verb. A folder that the verb made and left empty, because it refused its work, is taken away again.

    Raises:
        BadParameter: there is a file in its place.
    """
    if path is not None:
        if not (there := _nearest(path.absolute())).is_dir():
            raise typer.BadParameter(f"{there} is a file; needed the folder of a root.")
        new = [folder for folder in (path, *path.parents) if not folder.exists()]
        context.call_on_close(lambda: _remove_empty(new))
    return path


def some_words(text: str | None) -> str | None:
    """Words that were given, which an unset shell variable does not.

    Raises:
        BadParameter: an empty text.
    """
    if text is not None and not text.strip():
        raise typer.BadParameter("an empty text arrived; give words, or leave the option out.")
    return text


def _need_file(path: Path) -> None:
    if path.is_dir():
        raise typer.BadParameter(
            f"{path} is a folder; needed the name of a file, such as {path / 'out.json'}."
        )
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{path} is no regular file; needed the name of one.")


def _need_writable(folder: Path, path: Path) -> None:
    if not folder.is_dir():
        raise typer.BadParameter(f"{path}: {folder} is a file; needed a folder.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{path}: the folder {folder} is not writable.")


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _remove_empty(folders: list[Path]) -> None:
    """Remove the folders, the innermost first, when that one holds nothing but locks that nobody holds."""
    if not folders or not folders[0].is_dir():
        return
    inside = list(folders[0].iterdir())
    if all(file.name.startswith(LOCKS) and not file.stat().st_size for file in inside):
        for file in inside:
            file.unlink(missing_ok=True)
        with suppress(OSError):  # somebody else uses it
            for folder in folders:
                folder.rmdir()
