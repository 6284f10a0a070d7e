"""Writing so that a reader never meets half a result: temporary name first, then one rename.

Every writer of medsr goes through here. It knows names and folders only; the caller writes into the
temporary file or folder. Whatever ends the writing early, an interrupt
included, takes the temporary data with it and leaves an older result untouched.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from medsr.errors import OutputError, OutputExistsError, OutputNotWritableError

_PREFIX = ".medsr-"


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that cannot be written, before any work is spent on it.

    An empty folder at ``path`` counts as free.

    Raises:
        OutputExistsError: if ``path`` is taken and ``overwrite`` is False.
        OutputNotWritableError: if the folder that would hold it is missing or not writable.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from medsr.errors import OutputExistsError
        >>> from medsr.io import check_output
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "sharp.nii.gz")
        ...     check_output(file, overwrite=False)  # silent: it can be written
        ...     _ = file.write_bytes(b"an older result")
        ...     try:
        ...         check_output(file, overwrite=False)
        ...     except OutputExistsError:
        ...         print("it exists")
        it exists
    """
    parent = path.parent
    if not parent.is_dir():
        raise OutputNotWritableError(f"{path}: its folder {parent} does not exist; create it first")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputNotWritableError(f"{path}: no permission to write into {parent}")
    if _taken(path) and not overwrite:
        raise OutputExistsError(f"{path} exists already; choose another name or ask to overwrite")


@contextlib.contextmanager
def atomic_file(
    path: Path, *, overwrite: bool = False, suffix: str | None = None
) -> Iterator[Path]:
    """Give a temporary file name beside ``path``; rename it to ``path`` once the block is done.

    Args:
        path: where the file shall be.
        overwrite: whether an existing file may be replaced.
        suffix: ending of the temporary name, for writers that go by it; the ending of ``path``
            (such as ".nii.gz") if None.

    Yields:
        A path that does not exist yet; the block must create it.

    Raises:
        OutputExistsError: if ``path`` is taken and ``overwrite`` is False, or is a folder.
        OutputNotWritableError: if writing fails for want of permission or space.
    """
    check_output(path, overwrite=overwrite)
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder; choose a file name")
    ending = "".join(path.suffixes[-2:]) if suffix is None else suffix
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(6)}{ending}")
    try:
        with _failures_named(path):
            yield temporary
            if not overwrite:
                check_output(path, overwrite=False)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_replaceable(path: Path, replaceable: Callable[[Path], bool] | None) -> None:
    """Refuse a folder that may not be replaced as a whole, before any work is spent on it.

    Args:
        path: the folder; it may be absent.
        replaceable: asked about every entry, see :func:`atomic_folder`.

    Raises:
        OutputExistsError: if ``path`` is a file, or holds an entry that must not go.
    """
    if path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path} is a file; choose the name of a folder")
    if replaceable is not None and path.is_dir():
        foreign = sum(not replaceable(entry) for entry in path.iterdir())
        if foreign:
            raise OutputExistsError(
                f"{path} also holds {foreign} entries of another kind, which overwriting would "
                "delete; choose another folder"
            )


@contextlib.contextmanager
def atomic_folder(
    path: Path,
    *,
    overwrite: bool = False,
    replaceable: Callable[[Path], bool] | None = None,
) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; rename it to ``path`` after the block.

    Args:
        path: where the folder shall be; an empty folder may be there already.
        overwrite: whether an existing folder may be replaced as a whole.
        replaceable: asked about every entry of a folder that is to be replaced; one "no" refuses,
            so that nobody's other files go with it. All entries may go if None.

    Raises:
        OutputExistsError: if ``path`` is taken and may not be replaced.
        OutputNotWritableError: if writing fails for want of permission or space.
    """
    check_output(path, overwrite=overwrite)
    check_replaceable(path, replaceable)
    temporary = path.with_name(f"{_PREFIX}{secrets.token_hex(6)}")
    try:
        with _failures_named(path):
            temporary.mkdir()
            yield temporary
            if not overwrite:
                check_output(path, overwrite=False)
            _replace_folder(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _taken(path: Path) -> bool:
    """Whether something other than an empty folder stands at ``path``."""
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return os.path.lexists(path)


def _replace_folder(new: Path, path: Path) -> None:
    """Move ``new`` to ``path``; what stood there comes back if the move fails."""
    if not os.path.lexists(path):
        new.rename(path)
        return
    old = path.with_name(f"{_PREFIX}{secrets.token_hex(6)}")
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def reason_of(error: OSError | OutputError) -> str:
    """The operating system's words for why a file could not be written, for another message."""
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause.strerror or str(cause) if isinstance(cause, OSError) else str(error)


@contextlib.contextmanager
def _failures_named(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal into one that names the output."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputNotWritableError(f"{path} cannot be written: {reason}") from error
