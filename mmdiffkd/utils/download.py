"""Files by path or URL: fetched over https alone, checked by their sha256."""

import hashlib
import os
import re
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlparse
from urllib.request import HTTPRedirectHandler, Request, build_opener
from uuid import uuid4

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from .progress import track

#: What comes between a path or URL and the digits of its digest.
DIGEST = '#sha256='
#: Seconds without an answer after which a download is given up.
TIMEOUT = 60


def is_url(source: str) -> bool:
    """Whether a file has to be fetched."""
    return re.match('https?://', source, re.IGNORECASE) is not None


def split_digest(source: str) -> tuple[str, str]:
    """A path or URL without its ``#sha256=...``, and the digits of that.

    Args:
        source (str): As written in a config.

    Returns:
        tuple[str, str]: The path or URL; the digits, empty if there are
        none.

    Raises:
        ValueError: If they are not 64 hexadecimal digits.
    """
    name, mark, digest = source.partition(DIGEST)
    if mark and not re.fullmatch('[0-9a-fA-F]{64}', digest):
        raise ValueError(
            f'checkpoint {source!r}: {digest!r} is no sha256. Write its 64 '
            'hexadecimal digits, which `sha256sum FILE` prints.'
        )
    return name, digest.lower()


def local_file(source: str | Path) -> Path:
    """The file that a path or URL stands for, on this disk.

    Args:
        source (str or Path): A path, or an https URL (``http://`` becomes
            ``https://``), which is kept in torch's hub cache under its last
            part. With ``#sha256=`` and 64 hexadecimal digits at its end, the
            content has to have that digest.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be fetched, or is not the file that the
            digest belongs to.
    """
    name, digest = split_digest(str(source))
    if is_url(name):
        return _cached(re.sub('^[^:]*', 'https', name), digest)
    path = Path(name).expanduser()
    # Path.is_file raises on names that no file can have.
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'there is no checkpoint {name!r}. Give a file that exists '
            'from the current directory, or an https URL.'
        )
    _check_digest(path, digest, name)
    return path


def _cached(url: str, digest: str) -> Path:
    """The file of a URL, fetched by one process where it is not there."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    file = Path(urlparse(url).path).name
    if not file:
        raise ValueError(
            f'checkpoint {url!r} names no file. Give the URL of the file '
            'itself.'
        )
    path = folder / file
    # The other processes wait, and find the file in the cache.
    if not is_main_process():
        barrier()
    try:
        if not path.is_file():
            _download(url, path, digest)
    finally:
        if is_main_process():
            barrier()
    _check_digest(path, digest, url)
    return path


class _HttpsOnly(HTTPRedirectHandler):
    """Follows no redirection that leaves https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.startswith('https://'):
            raise URLError(f'it redirects to {newurl!r}, which is not https')
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, path: Path, digest: str) -> None:
    """Fetch a file; it appears under its name when it is complete.

    ``torch.hub.download_url_to_file`` follows redirections to http, waits
    without end, and takes a file that was cut off for complete.
    """
    print_log(f'Downloading {url} to {path}', 'current')
    request = Request(url, headers={'User-Agent': 'mmdiffkd'})
    part = path.with_name(f'{path.name}.{uuid4().hex}.part')
    opener = build_opener(_HttpsOnly)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            opener.open(request, timeout=TIMEOUT) as response,
            open(part, 'wb') as file,
        ):
            size = response.headers.get('Content-Length', '')
            for block in track(
                iter(lambda: response.read(1 << 20), b''),
                f'Download of {path.name}',
                unit='MB',
                total=int(size) / 1e6 if size.isdecimal() else None,
                size=lambda block: len(block) / 1e6,
            ):
                file.write(block)
            arrived = str(file.tell())
            if size and arrived != size:
                raise URLError(f'{arrived} of {size} bytes arrived')
        _check_digest(part, digest, url)
        os.replace(part, path)
    except (OSError, HTTPException) as error:
        reason = getattr(error, 'reason', None) or error
        raise ValueError(
            f'checkpoint {url!r} cannot be downloaded ({reason}). Download '
            'it by other means and give the file.'
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _check_digest(path: Path, digest: str, name: str) -> None:
    if not digest:
        return
    found = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            found.update(block)
    if found.hexdigest() != digest:
        raise ValueError(
            f'checkpoint {name!r} is not the file that was meant: its '
            f'sha256 is {found.hexdigest()}, not {digest}. Remove '
            f'{str(path)!r} and fetch it again, or correct the digest.'
        )
