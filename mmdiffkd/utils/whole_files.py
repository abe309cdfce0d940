"""Files that are either whole or absent."""

import fcntl
import os
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

#: The name under which MMEngine knows :class:`AtomicLocalBackend`.
ATOMIC = 'mmdiffkd.atomic'


class AtomicLocalBackend(LocalBackend):
    """Local files that are either whole or absent."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a temporary file, sync it and rename it.

        Args:
            obj (bytes): The content.
            filepath (str or Path): The file, whose folder is made.

        Raises:
            OSError: If it cannot be written; names the file. What had that
                name before is still there.
        """
        path = Path(filepath)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
        try:
            with temporary.open('wb') as file:
                # Held until this process dies, see `remove_stale`.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX)
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
                temporary.replace(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise OSError(
                error.errno,
                f'{error.strerror or error}: this file of {len(obj):,} bytes '
                'was not written, and what was there before is untouched. '
                'Make room, then go on with --resume',
                str(path),
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


register_backend(ATOMIC, AtomicLocalBackend, force=True)


def remove_stale(folder: str | Path) -> None:
    """Remove temporary files whose writers are dead.

    Args:
        folder (str or Path): Where :class:`AtomicLocalBackend` writes.
    """
    for path in Path(folder).glob('.*.tmp'):
        if not re.fullmatch(r'\..+\.\d+\.tmp', path.name):
            continue
        with suppress(OSError), path.open('rb') as file:
            # Fails while the writer lives.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def is_whole(path: str | Path) -> bool:
    """Whether a file is a checkpoint of torch's and none of it is missing.

    Looks at the table of contents, which torch writes last; nothing is
    unpickled.

    Args:
        path (str or Path): The file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith('/data.pkl') for name in names)


def newest_whole(folder: str | Path, pattern: str = '*.pth') -> Path | None:
    """The newest checkpoint in a folder that is whole.

    Args:
        folder (str or Path): The folder; sub-folders are not searched.
        pattern (str): What its name looks like. Defaults to ``'*.pth'``.

    Returns:
        Path or None: The file, None if there is none.
    """
    whole = [p for p in Path(folder).glob(pattern) if is_whole(p)]
    return max(whole, key=lambda p: p.stat().st_mtime, default=None)
