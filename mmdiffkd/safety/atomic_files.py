"""Files that are either complete or absent."""

import fcntl
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from mmengine.fileio import LocalBackend, register_backend

#: The name under which MMEngine knows :class:`AtomicLocalBackend`.
ATOMIC = 'mmdiffkd.atomic'


@contextmanager
def atomic_write(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file that replaces another when the block has ended.

    The content goes to a temporary file beside the place. At the end of the
    block that file is synced to the disk and renamed. If the block raises an
    error, the temporary file is removed and the previous file stays.

    Args:
        path (str or Path): The file. Its folder is made.

    Yields:
        file: The temporary file, open for writing bytes. A function that
        opens files itself may write to its ``name``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    try:
        with open(str(temporary), 'wb') as file:
            # This process holds the lock until it ends: `remove_stale`.
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


class AtomicLocalBackend(LocalBackend):
    """MMEngine's backend of local files, writing by :func:`atomic_write`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file.

        Args:
            obj (bytes): The content.
            filepath (str or Path): The file. Its folder is made.

        Raises:
            OSError: If the file cannot be written. The message names it. A
                previous file of that name is still there.
        """
        try:
            with atomic_write(filepath) as file:
                file.write(obj)
        except OSError as error:
            raise OSError(
                error.errno,
                f'{error.strerror or error}: this file of {len(obj):,} bytes '
                'was not written, and what was there before is untouched. '
                'Make room, then go on with --resume',
                str(filepath),
            ) from error


register_backend(ATOMIC, AtomicLocalBackend, force=True)


def remove_stale(folder: str | Path) -> None:
    """Remove temporary files whose writers are dead.

    Args:
        folder (str or Path): Where :func:`atomic_write` writes.
    """
    for path in Path(folder).glob('.*.[0-9]*.tmp'):
        with suppress(OSError), path.open('rb') as file:
            # Fails while the writer lives.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def is_complete(path: str | Path) -> bool:
    """Whether a file is one of torch's checkpoints and has its end.

    The function reads the table of contents, which torch writes last.
    Nothing is unpickled.

    Args:
        path (str or Path): The file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith('/data.pkl') for name in names)


def newest_complete(folder: str | Path, pattern: str = '*.pth') -> Path | None:
    """The newest checkpoint in a folder that is complete.

    Args:
        folder (str or Path): The folder. Sub-folders are not searched.
        pattern (str): The pattern of its name. Defaults to ``'*.pth'``.

    Returns:
        Path or None: The file, None if there is none.
    """
    complete = [p for p in Path(folder).glob(pattern) if is_complete(p)]
    return max(complete, key=lambda p: p.stat().st_mtime, default=None)
