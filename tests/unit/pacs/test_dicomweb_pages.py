"""Listings of DICOMweb servers that page as they like: all of it, once, and to an end."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from medsr import errors
from medsr.pacs import dicomweb
from medsr.pacs.archive import Archive
from medsr.pacs.connect import connect
from medsr.pacs.settings import Settings, parse_address

Answer = tuple[int, dict[str, str], list[str]]
"""Code, headers, and the UIDs that a page has."""
Rule = Callable[[list[str], int, int], Answer]
MOST_REQUESTS = 60


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[Archive, list[tuple[int, int]]]]]:
    """A server of so many instances that answers by a rule; also what was asked of it."""
    servers: list[ThreadingHTTPServer] = []

    def call(count: int, rule: Rule) -> tuple[Archive, list[tuple[int, int]]]:
        uids, asked = [f"1.2.3.{number}" for number in range(count)], []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                limit, offset = (int(query[name][0]) for name in ("limit", "offset"))
                asked.append((limit, offset))
                code, headers, page = rule(uids, limit, offset)
                if len(asked) > MOST_REQUESTS:
                    code, page = 500, []
                body = json.dumps(
                    [{"00080018": {"vr": "UI", "Value": [uid]}} for uid in page]
                ).encode()
                self.send_response(code)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        address = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
        settings = Settings(timeout_seconds=10.0, retries=0)
        return connect(parse_address(address), "from", settings), asked

    yield call
    for server in servers:
        server.shutdown()
        server.server_close()


def azure(uids: list[str], limit: int, offset: int) -> Answer:
    """Azure Health Data Services: a limit of 1 to 200, else a bad request; 204 at the end."""
    if not 1 <= limit <= 200:
        return 400, {}, []
    page = uids[offset : offset + limit]
    return (200 if page else 204), {}, page


def capped(uids: list[str], limit: int, offset: int) -> Answer:
    """A server that gives fewer than asked for (DICOMcloud: 12), and says so (PS3.18 8.3.4.4)."""
    page = uids[offset : offset + min(limit, 12)]
    rest = len(uids) - offset - len(page)
    return 200, {"Warning": f'299 here: "{rest} additional results"'} if rest > 0 else {}, page


def all_at_once(uids: list[str], limit: int, offset: int) -> Answer:
    """Neither limit nor offset is known."""
    return 200, {}, uids


def without_offset(uids: list[str], limit: int, offset: int) -> Answer:
    """The limit is kept to and the offset is not (dcmjs-org/dicomweb-server, issue 19)."""
    return 200, {}, uids[:limit]


def overlapping(uids: list[str], limit: int, offset: int) -> Answer:
    """Each page begins with what the last one ended with."""
    start = max(0, offset - 1)
    return 200, {}, uids[start : start + limit]


def missing_at_the_end(uids: list[str], limit: int, offset: int) -> Answer:
    """404 where there is nothing more."""
    page = uids[offset : offset + limit]
    return (200 if page else 404), {}, page


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 200, 350])
@pytest.mark.parametrize(
    "rule", [azure, capped, all_at_once, without_offset, overlapping, missing_at_the_end]
)
def test_everything_is_listed(
    rule: Rule,
    count: int,
    start: Callable[..., tuple[Archive, list[tuple[int, int]]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    archive, asked = start(count, rule)
    assert archive.instances("1.1", "1.2") == {f"1.2.3.{number}" for number in range(count)}
    assert len(asked) <= MOST_REQUESTS
    assert all(limit <= 200 for limit, _ in asked) or rule in (all_at_once, without_offset)
    # Whether 100 or 200 of a server without offset are all of it, nobody can tell.
    unsure = rule in (all_at_once, without_offset) and count in (100, 200)
    ours = [record for record in caplog.records if record.name.startswith("medsr")]
    assert bool(ours) == unsure


def test_a_server_that_hides_the_rest_is_warned_of(
    start: Callable[..., tuple[Archive, list[tuple[int, int]]]], caplog: pytest.LogCaptureFixture
) -> None:
    def told(uids: list[str], limit: int, offset: int) -> Answer:
        return 200, {"Warning": '299 here: "more"'}, uids[: min(limit, 20)]

    def untold(uids: list[str], limit: int, offset: int) -> Answer:
        return 200, {}, uids[: min(limit, 100)]

    def refusing(uids: list[str], limit: int, offset: int) -> Answer:
        return (200, {}, uids[:limit]) if limit <= 100 else (400, {}, [])

    for rule, count in ((told, 20), (untold, 100), (refusing, 100)):
        caplog.clear()
        archive, _ = start(300, rule)
        assert len(archive.instances("1.1", "1.2")) == count
        assert f"lists {count} entries and knows no way to further ones" in caplog.text


def test_a_list_without_end_is_given_up(
    start: Callable[..., tuple[Archive, list[tuple[int, int]]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(uids: list[str], limit: int, offset: int) -> Answer:
        return 200, {}, [f"1.2.9.{offset + number}" for number in range(limit)]

    monkeypatch.setattr(dicomweb, "_MOST", 1000)
    archive, asked = start(0, endless)
    with pytest.raises(errors.PacsError, match="comes to no end"):
        archive.instances("1.1", "1.2")
    assert len(asked) == 10
