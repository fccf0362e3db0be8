"""Cached files: stored once, held by the messages that need them, and dropped when none does."""

import asyncio
import os

import pytest
from msgspec import structs

from postroom.ledger.accept import Created
from postroom.ledger.files import (
    NO_UPLOAD,
    FileContents,
    Files,
    ProviderKeys,
    StoredFile,
    collect_files,
    file_id,
)
from postroom.ledger.keys import file_key, place_of, place_of_file, upload_rest_key
from postroom.message import AttachmentRef
from tests.ledger.harness import CALLER, Ledger, make_offer

DAY_MS = 86_400_000
LINES = b"aGVsbG8="
LONG = os.environ.get("POSTROOM_LONG") == "1"


def a_file(data: bytes = b"hello") -> StoredFile:
    return StoredFile(file_id(CALLER, "application/pdf", data), "application/pdf", len(data), 0)


async def keep(ledger: Ledger, *, lifetime_ms: int = DAY_MS, lines: bytes = LINES) -> StoredFile:
    kept, _ = await Files(ledger.pipe, ledger.large).keep(a_file(), CALLER, lines, lifetime_ms)
    return kept


def with_file(file: StoredFile, agent: str = "orders", **changes):
    offer = make_offer(agent=agent, **changes)
    refs = tuple(AttachmentRef(name, "application/pdf", 5, file=file.id) for name in ("a.pdf", "b.pdf"))
    return structs.replace(offer, payload=structs.replace(offer.payload, attachments=refs))


async def accept(ledger: Ledger, file: StoredFile, **changes):
    offer = with_file(file, **changes)
    assert isinstance(await ledger.acceptance.accept(offer), Created)
    return offer


async def is_kept(ledger: Ledger, file: StoredFile) -> bool:
    """Let the collector look, and say whether the file outlived it."""
    await collect_files(ledger.workers_pipe, ledger.client)
    return bool(await ledger.client.exists(file_key(file.id)))


async def make_over(ledger: Ledger, file: StoredFile) -> None:
    """Let the file's time be up, as far as the collector is concerned."""
    await ledger.client.zadd(place_of_file(file.id).agenda, {file.id: 1})


async def test_the_same_bytes_are_one_file(ledger: Ledger):
    """Sent again it is found, and its life only grows."""
    files = Files(ledger.pipe, ledger.large)
    first, new = await files.keep(a_file(), CALLER, LINES, DAY_MS)
    again, still_new = await files.keep(a_file(), CALLER, LINES, 1000)

    assert (True, False) == (new, still_new)
    assert first == again
    assert a_file().id != file_id("billing", "application/pdf", b"hello")
    assert a_file().id != file_id(CALLER, "image/png", b"hello")


async def test_only_its_caller_finds_it(ledger: Ledger):
    """A key of another caller, and one of nobody, are none."""
    files, kept = Files(ledger.pipe, ledger.large), await keep(ledger)

    assert {kept.id: kept} == await files.touch(CALLER, [kept.id, kept.id, "nonsense"])
    assert {} == await files.touch("billing", [kept.id])


async def test_after_its_lifetime_no_new_message_may_use_it(ledger: Ledger):
    """What is over is not found any more, though messages that wait still have it."""
    kept = await keep(ledger, lifetime_ms=1)
    offer = await accept(ledger, kept)
    await asyncio.sleep(0.01)

    assert {} == await Files(ledger.pipe, ledger.large).touch(CALLER, [kept.id])
    assert await is_kept(ledger, kept)
    assert LINES == await FileContents(ledger.client, 1000).lines(kept.id)
    assert 0 == await ledger.client.exists(f"pr:{{p00}}:b:{offer.id}:0")


async def test_it_stays_while_a_message_waits_and_while_its_content_is_kept(ledger: Ledger):
    """Two agents' messages hold it; the end of one does not take it from the other."""
    kept = await keep(ledger)
    first, second = await accept(ledger, kept), await accept(ledger, kept, agent="logins")
    await make_over(ledger, kept)
    assert await is_kept(ledger, kept)

    for offer in (first, second):
        held = await ledger.claim_one(agent=offer.agent)
        await ledger.advance(held)
        await ledger.finish(held, "s")
        await make_over(ledger, kept)
        assert await is_kept(ledger, kept), "its content is kept for an hour"


@pytest.mark.parametrize("how", ["sent", "cancelled"])
async def test_it_goes_with_the_content_of_the_last_message(ledger: Ledger, how: str):
    """When the retention of the last one is over, so is the file."""
    kept = await keep(ledger)
    ledger.acceptance._content_ms = ledger.delivery._content_ms = 1
    offers = [await accept(ledger, kept) for _ in range(3)]
    for offer in offers:
        assert await is_kept(ledger, kept)
        if how == "cancelled":
            await ledger.acceptance.cancel(offer.id)
        else:
            held = await ledger.claim_one()
            await ledger.advance(held)
            await ledger.finish(held, "s")
        await make_over(ledger, kept)
    await asyncio.sleep(0.01)

    assert not await is_kept(ledger, kept)
    assert 0 == await ledger.client.zcard(place_of_file(kept.id).agenda)


async def test_a_message_that_is_tried_again_holds_it_again(ledger: Ledger):
    """An operator's retry brings a message back to life, and its file with it."""
    kept = await keep(ledger)
    await accept(ledger, kept)
    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "f")
    await ledger.operating.retry(held.id)
    ledger.delivery._content_ms = 1
    await make_over(ledger, kept)
    assert await is_kept(ledger, kept)

    held = await ledger.claim_one()
    await ledger.advance(held)
    await ledger.finish(held, "s")
    table = await ledger.client.hgetall(f"{place_of('orders').prefix}files")
    assert [b"0"] == [value.partition(b"|")[0] for value in table.values()]


async def test_what_an_accept_has_found_is_not_collected(ledger: Ledger):
    """Between looking it up and accepting, the collector may have asked already: it does not drop it."""
    kept = await keep(ledger)
    await make_over(ledger, kept)
    await Files(ledger.pipe, ledger.large).touch(CALLER, [kept.id])

    assert await is_kept(ledger, kept)


async def test_a_file_nobody_used_goes_after_its_lifetime(ledger: Ledger):
    """An upload without a message is dropped."""
    kept = await keep(ledger, lifetime_ms=1)
    await asyncio.sleep(1.1)

    assert not await is_kept(ledger, kept)


async def test_every_script_touches_one_slot(ledger: Ledger):
    """All keys of a call carry the hash tag of its first key, so that a cluster would take it."""
    kept = await keep(ledger)
    await accept(ledger, kept)
    tags = {key.decode().split("}")[0] for key in await ledger.client.keys("*") if b"{" in key}

    assert {place_of("orders").prefix.split("}")[0], place_of_file(kept.id).prefix.split("}")[0]} == tags


async def test_a_worker_reads_a_file_once(ledger: Ledger):
    """What is in memory is not read again; the least used goes first when there is too much."""
    kept = await keep(ledger)
    contents = FileContents(ledger.client, len(LINES))
    assert [LINES] * 20 == await asyncio.gather(*(contents.lines(kept.id) for _ in range(20)))
    await ledger.client.delete(file_key(kept.id))

    assert LINES == await contents.lines(kept.id)
    assert await FileContents(ledger.client, 1).lines(kept.id) is None


async def test_one_of_many_uploads_to_the_provider(ledger: Ledger):
    """Whoever comes first makes the upload; a forgotten key is only forgotten once."""
    mine, other = (ProviderKeys(ledger.client, "orders", "zepto") for _ in range(2))

    assert (None, True, False, "") == (
        await mine.get("a"),
        await mine.begin("a"),
        await other.begin("a"),
        await other.get("a"),
    )
    await mine.end("a", "their-key")
    assert "their-key" == await other.get("a")
    await other.forget("a", "an older key")
    assert "their-key" == await mine.get("a")
    await other.forget("a", "their-key")
    assert await mine.get("a") is None


@pytest.mark.parametrize(("of", "others"), [("a", None), (None, NO_UPLOAD)])
async def test_a_failed_upload_rests_over_all_workers(ledger: Ledger, of: str | None, others: str | None):
    """For a minute the file is not uploaded again, or none is; a key that is known serves on."""
    mine, other = (ProviderKeys(ledger.client, "orders", "zepto") for _ in range(2))
    await mine.end("known", "their-key")
    assert await mine.begin("a")
    await mine.rest(of)
    assert NO_UPLOAD == await other.get("a")
    await mine.end("a", None)

    assert (NO_UPLOAD, others, "their-key") == tuple([await other.get(file) for file in ("a", "b", "known")])
    assert await ProviderKeys(ledger.client, "orders", "another").get("a") is None
    left = await ledger.client.pttl(upload_rest_key("orders", "zepto", of or ""))
    assert 30_000 < left <= 60_000


async def test_ten_thousand_mails_share_one_file(ledger: Ledger):
    """Beyond the messages themselves, a 200 KB file costs its own size and next to nothing a message."""
    many = 10_000 if LONG else 300
    lines = os.urandom(200_000).hex().encode()[:274_000]

    async def grown(make) -> int:
        before = await used(ledger)
        for start in range(0, many, 100):
            offers = [make() for _ in range(start, min(start + 100, many))]
            await asyncio.gather(*(ledger.acceptance.accept(offer) for offer in offers))
        return await used(ledger) - before

    plain = await grown(make_offer)
    await ledger.client.flushall()
    before = await used(ledger)
    kept = await keep(ledger, lines=lines)
    upload = await used(ledger) - before
    beyond = upload + await grown(lambda: with_file(kept)) - plain
    print(f"{many} mails: {plain} bytes without the file, {beyond} beyond with it")  # noqa: T201  what `-s` shows of a long run

    assert beyond < 5_000_000 * max(many, 1000) / 10_000 + len(lines)


async def used(ledger: Ledger) -> int:
    return (await ledger.client.info("memory"))["used_memory"]
