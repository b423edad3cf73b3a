"""Small text files that a Compose file names, beside the file that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from cli.compose import dotenv
from cli.compose.reader import Field, Reader


def path_of(field: Field, name: str) -> Path:
    """Where `name` is, as the file that holds `field` means it."""
    return field.item.source.folder / name


def read_named(reader: Reader, field: Field, name: str, bytes_max: int, *, required: bool = True) -> str | None:
    """The text of the file; None where it cannot be read, which is refused at `field` unless a file that is not
    `required` is not there."""
    path = path_of(field, name)
    try:
        if path.stat().st_size > bytes_max:
            reader.refuse(field, f"{path} is larger than {bytes_max} bytes")
            return None
        return path.read_text()
    except FileNotFoundError:
        if required:
            reader.refuse(field, f"{path} does not exist")
    except (OSError, UnicodeDecodeError) as error:
        reader.refuse(field, f"{path} cannot be read: {error}")
    return None


def read_values(
    reader: Reader,
    field: Field,
    name: str,
    bytes_max: int,
    parse: Callable[[str], Mapping[str, str]],
    *,
    required: bool = True,
) -> Mapping[str, str]:
    """Names to values, by a function of dotenv.py; empty where the file is refused, as `read_named` does."""
    text = read_named(reader, field, name, bytes_max, required=required)
    if text is not None:
        try:
            return parse(text)
        except dotenv.DotenvError as error:
            reader.refuse(field, f"{path_of(field, name)}:{error.line}: {error}")
    return {}
