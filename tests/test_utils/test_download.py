import hashlib
import io
import urllib.request
from email.message import Message
from urllib.response import addinfourl

import pytest
import torch

from mmdiffkd.utils.download import local_file

CONTENT = b'weights'
DIGEST = hashlib.sha256(CONTENT).hexdigest()
URL = 'https://example.org/models/net.pth'


@pytest.fixture
def web(monkeypatch, tmp_path):
    """A web of our own: (status, headers, content) by URL, and a cache."""
    pages, visited = {}, []

    def https_open(self, request):
        visited.append(request.full_url)
        code, headers, content = pages[request.full_url]
        message = Message()
        for key, value in headers.items():
            message[key] = value
        response = addinfourl(
            io.BytesIO(content), message, request.full_url, code
        )
        response.msg = ''
        return response

    def http_open(self, request):
        raise AssertionError(f'{request.full_url} was opened')

    monkeypatch.setattr(urllib.request.HTTPSHandler, 'https_open', https_open)
    monkeypatch.setattr(urllib.request.HTTPHandler, 'http_open', http_open)
    for name in ('http_proxy', 'https_proxy', 'HTTP_PROXY', 'HTTPS_PROXY'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    pages[URL] = 200, {'Content-Length': str(len(CONTENT))}, CONTENT
    return pages, visited, tmp_path / 'hub/checkpoints'


@pytest.mark.parametrize('url', [URL, URL.replace('https', 'http')])
def test_url_is_fetched_once_over_https(web, url):
    _, visited, cache = web
    for _ in range(2):
        assert local_file(url) == cache / 'net.pth'
    assert (cache / 'net.pth').read_bytes() == CONTENT
    assert visited == [URL]


def test_redirection_stays_with_https(web):
    pages, visited, cache = web
    other = 'https://mirror.example.org/x'
    pages[other] = pages[URL]
    pages[URL] = 302, {'Location': other}, b''
    local_file(URL)
    assert visited == [URL, other]
    (cache / 'net.pth').unlink()
    pages[URL] = 302, {'Location': 'http://mirror.example.org/x'}, b''
    with pytest.raises(ValueError, match='not https.*by other means'):
        local_file(URL)
    assert list(cache.iterdir()) == []


def test_a_long_download_shows_how_far_it_is(web, slow_items, capsys):
    pages, _, cache = web
    content = b'0' * (3 << 20)
    pages[URL] = 200, {'Content-Length': str(len(content))}, content
    local_file(URL)
    assert (cache / 'net.pth').read_bytes() == content
    said = capsys.readouterr().err
    assert 'Download of net.pth: 2 of 3 MB, about 11 s left\n' in said


@pytest.mark.parametrize(
    'page',
    [
        (404, {}, b'no such page'),
        (200, {'Content-Length': '99'}, CONTENT),
    ],
)
def test_failed_download_leaves_nothing(web, page):
    pages, _, cache = web
    pages[URL] = page
    with pytest.raises(ValueError, match='net.pth.*cannot be downloaded'):
        local_file(URL)
    assert list(cache.iterdir()) == []


def test_url_without_a_file(web):
    with pytest.raises(ValueError, match='names no file'):
        local_file('https://example.org/')


def test_sha256_of_a_url(web):
    pages, visited, cache = web
    local_file(f'{URL}#sha256={DIGEST.upper()}')
    assert visited == [URL]
    # What has been in the cache is checked as well.
    (cache / 'net.pth').write_bytes(b'other')
    with pytest.raises(ValueError, match=f"{DIGEST}. Remove '.*net.pth'"):
        local_file(f'{URL}#sha256={DIGEST}')
    (cache / 'net.pth').unlink()
    pages[URL] = 200, {}, b'other'
    with pytest.raises(ValueError, match='not the file that was meant'):
        local_file(f'{URL}#sha256={DIGEST}')
    assert list(cache.iterdir()) == []


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / 'net.pth'
    path.write_bytes(CONTENT)
    assert local_file(f'{path}#sha256={DIGEST}') == path
    with pytest.raises(ValueError, match='not the file that was meant'):
        local_file(f'{path}#sha256={"0" * 64}')
    with pytest.raises(ValueError, match="'abc' is no sha256.*64"):
        local_file(f'{path}#sha256=abc')


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'net.pth').write_bytes(CONTENT)
    assert local_file('~/net.pth') == tmp_path / 'net.pth'
    with pytest.raises(FileNotFoundError, match='absent.pth'):
        local_file('~/absent.pth')
