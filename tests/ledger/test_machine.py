"""The ledger against a model of it: whatever happens in whatever order, nothing is lost or sent behind our back."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from postroom.ledger import keys
from postroom.ledger.accept import Created, Exists
from postroom.ledger.claimed import Claimed
from postroom.ledger.limits import Pace
from postroom.states import State
from tests.ledger.harness import AGENT, LEASED, Ledger, make_offer

BUDGET = 1  # ambiguous retries
LATER_MS = 600_000
# How a recipient may move; r waits like q and remembers that an earlier attempt may have reached it.
MOVES = {
    "q": "qrsfxuc",
    "r": "rsu",
    "s": "s",
    "f": "f",
    "x": "x",
    "c": "c",
    "u": "us",  # a late "sent" resolves it
}
ENDED = (State.SENT, State.PARTLY_SENT, State.FAILED, State.EXPIRED, State.UNCONFIRMED, State.CANCELLED)


@dataclass
class Message:
    """What the model knows of one message."""

    id: str
    ref: str
    agent_ref: str
    policy: str
    priority: str
    letters: str
    state: State = State.QUEUED
    phase: str = "new"
    fence: int = 0
    attempts: int = 0
    doubts: int = 0
    due: bool = True
    seen: bool = False
    expired: bool = False
    known: str = ""
    copies: dict[int, int] = field(default_factory=dict)  # what the other side may have got, by recipient

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    def settle(self) -> None:
        """Take the message's state from its recipients'."""
        has = set(self.letters)
        if has & {"q", "r"}:
            self.state = State.QUEUED
        elif "u" in has:
            self.state = State.UNCONFIRMED
        elif "s" in has:
            self.state = State.SENT if has == {"s"} else State.PARTLY_SENT
        else:
            ends = {"x": State.EXPIRED, "f": State.FAILED, "c": State.CANCELLED}
            self.state = next(state for letter, state in ends.items() if letter in has)

    def doubt(self) -> str:
        """Return what becomes of a recipient whose fate is unknown."""
        again = self.policy == "retry" and self.doubts < BUDGET and self.state != State.UNCONFIRMED
        return "r" if again else "u"

    def end_waiting(self, letter: str = "x") -> None:
        self.letters = self.letters.replace("q", letter).replace("r", "u")

    def apply(self, codes: str) -> None:
        """Move the recipients by an attempt's outcome."""
        doubt, out = self.doubt(), []
        for letter, code in zip(self.letters, codes, strict=True):
            moved = letter
            if letter in "qru":
                if code == "s":
                    moved = "s"
                elif code == "f":
                    moved = "f" if letter == "q" else "u"
                elif code == "a":
                    moved = doubt
            out.append(moved)
        self.letters = "".join(out)
        self.doubts += "a" in codes
        self.attempts += 1


class LedgerMachine(RuleBasedStateMachine):
    """Callers, carriers and accidents, one step at a time."""

    url = ""
    held = Bundle("held")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.ledger = self.runner.run(self._open())
        self.messages: dict[str, Message] = {}

    async def _open(self):
        ledger = Ledger(self.url)
        await ledger.client.flushall()
        return ledger

    def do(self, call):
        return self.runner.run(call)

    def teardown(self):
        assert () == tuple(self.do(self.ledger.balance.check()).misfits)
        self.runner.run(self.ledger.aclose())
        self.runner.close()

    # callers

    @rule(
        recipients=st.integers(1, 3),
        policy=st.sampled_from(["retry", "retry", "hold"]),
        priority=st.sampled_from(["high", "normal", "bulk"]),
    )
    def accept(self, recipients, policy, priority):
        offer = make_offer(recipients, on_ambiguous=policy, priority=priority)
        assert isinstance(self.do(self.ledger.acceptance.accept(offer)), Created)
        self.messages[offer.id] = Message(
            offer.id, offer.client_ref, offer.ref, policy, priority, "q" * recipients
        )

    @precondition(lambda self: self.messages)
    @rule(data=st.data())
    def accept_again(self, data):
        message = data.draw(st.sampled_from(sorted(self.messages.values(), key=lambda m: m.id)))
        reply = self.do(self.ledger.acceptance.accept(make_offer(client_ref=message.ref)))
        assert isinstance(reply, Exists)
        assert (message.id, message.state) == (reply.record.id, reply.record.state)

    @precondition(lambda self: self.messages)
    @rule(data=st.data(), wanted=st.integers(0, 2))
    def cancel(self, data, wanted):
        if wanted:  # rarely
            return
        message = data.draw(st.sampled_from(sorted(self.messages.values(), key=lambda m: m.id)))
        before = message.state
        waits = before == State.QUEUED or (before == State.SENDING and message.phase != "committing")
        if waits:
            message.fence += 1
            message.end_waiting("c")
            message.settle()
        found = self.do(self.ledger.acceptance.cancel(message.id))
        assert (message.state, waits) == (found.state, found.by_us)

    # carriers

    @rule(target=held, most=st.integers(1, 3), order=st.sampled_from(["hnb", "bhn"]))
    def claim(self, most, order):
        return multiple(*self._claim(most, order))

    def claim_all(self):
        self._claim(64, "hnb")

    def _claim(self, most, order):
        claim = self.do(self.ledger.claim(most, order=order))
        ended, lapsed = {e.id: e.state for e in claim.ended}, {one.id for one in claim.lapsed}
        assert len(claim.messages) <= most
        for message_id in lapsed:
            self._recover(self.messages[message_id])
        for claimed in claim.messages:
            self._claimed(self.messages[claimed.id], claimed)
        for message_id, state in ended.items():
            message = self.messages[message_id]
            self._expire(message)
            assert (state, True) == (message.state, message.ended)
        self._see(claim, most)
        return claim.messages

    def _recover(self, message):
        """Do what a claim does with a message whose lease has run out: it waits again, under a new fence."""
        assert message.due
        assert message.state == State.SENDING
        if message.phase == "committing":
            assert message.seen, "decided at first sight"
            doubt = message.doubt()
            letters = [
                doubt if k == "a" else ("u" if was == "r" else "f") if k == "f" else was
                for was, k in zip(message.letters, message.known, strict=True)
            ]
            message.letters = "".join(letters)
            message.doubts += 1
            message.attempts += 1
            message.settle()
            if message.ended:
                return
        message.fence += 1
        message.state, message.phase, message.seen = State.QUEUED, "lapsed", False

    def _expire(self, message):
        if message.expired and not message.ended:
            message.end_waiting()
            message.settle()

    def _claimed(self, message, claimed):
        assert message.due
        assert message.state == State.QUEUED
        assert not message.expired
        message.state, message.phase, message.due, message.seen = State.SENDING, "claimed", False, False
        message.fence += 1
        waiting = tuple(i for i, letter in enumerate(message.letters) if letter in "qr")
        assert (message.fence, message.attempts, waiting) == (
            claimed.fence,
            claimed.attempts,
            claimed.waiting,
        )

    def _see(self, claim, most):
        """A mark met for the first time is only put off; a claim with room left leaves nothing due unmet."""
        due = [m for m in self.messages.values() if m.due and not m.ended]
        met = [m for m in due if m.phase == "committing" and not m.seen]
        seen = self.do(self._seen(met))
        for message in met:
            message.seen, message.due = message.id in seen, message.id not in seen
        if len(claim.messages) < most and not claim.more:
            assert [] == [m.id for m in self.messages.values() if m.due and not m.ended]

    async def _seen(self, messages):
        fields = [await self.ledger.client.hget(keys.record_key(m.id), "ss") for m in messages]
        return {message.id for message, seen in zip(messages, fields, strict=True) if seen}

    @rule(held=held, data=st.data())
    def advance(self, held: Claimed, data):
        message = self.messages[held.id]
        current = message.state == State.SENDING and message.fence == held.fence
        taken = [data.draw(st.sampled_from("aaafd")) for _ in held.waiting]
        known = ["-"] * held.recipients
        for index, letter in zip(held.waiting, taken, strict=True):
            known[index] = letter
        written = self.do(self.ledger.delivery.advance(held.id, held.fence, "".join(known), "relay"))
        assert (0 if not current else -1 if message.expired else 1) == written
        if written == 1:
            if message.phase != "committing":
                for index, letter in enumerate(known):
                    if letter == "a":  # from here on the other side may have it
                        message.copies[index] = message.copies.get(index, 0) + 1
            message.phase, message.known = "committing", "".join(known)
            message.seen = False  # the lease is as it was: one that is over goes on being over

    @rule(held=held, late=st.booleans(), data=st.data())
    def finish(self, held: Claimed, late, data):
        message = self.messages[held.id]
        codes = self._codes(message, held, data)
        finished = self.do(self.ledger.finish(held, codes, delay_ms=LATER_MS if late else 0))
        current = message.fence == held.fence
        settled = message.state == State.UNCONFIRMED and "s" not in codes
        if current and (settled or message.state not in (State.SENDING, State.UNCONFIRMED)):
            assert (message.state, True) == (finished.state, finished.again)
            return
        if not current:
            believed = "s" in codes and message.phase != "committing" and not message.ended
            assert believed == (finished is not None)
            if not believed:
                return
            message.fence += 1
        message.apply(codes)
        if message.expired:  # the next attempt would come too late
            message.end_waiting()
        message.settle()
        message.phase, message.due, message.seen = "done", not late, False
        assert message.state == finished.state

    def _codes(self, message, held, data):
        """Draw an outcome an honest carrier can have: without a mark nothing is sent or in doubt."""
        at_mark = message.phase == "committing" and message.fence == held.fence
        out = ["-"] * held.recipients
        for index in held.waiting:
            if at_mark:
                known = message.known[index]
                out[index] = data.draw(st.sampled_from("ssfda")) if known == "a" else known
            elif message.copies.get(index):
                out[index] = data.draw(st.sampled_from("sfd"))
            else:
                out[index] = data.draw(st.sampled_from("fd"))
        return "".join(out)

    @rule(held=held)
    def release(self, held: Claimed):
        message = self.messages[held.id]
        mine = message.state == State.SENDING and message.fence == held.fence
        if mine and message.phase == "committing":
            return  # only for what surely was not sent
        given, _ = self.do(self.ledger.delivery.release(AGENT, [(held.id, held.fence)], pace=Pace()))
        assert int(mine) == given
        if mine:
            message.state, message.phase, message.due = State.QUEUED, "released", True

    @rule(held=held)
    def renew(self, held: Claimed):
        message = self.messages[held.id]
        mine = message.state == State.SENDING and message.fence == held.fence
        _, lost = self.do(self.ledger.delivery.renew(AGENT, ["lane"], [(held.id, held.fence)]))
        assert ([] if mine else [held.id]) == lost
        if mine:
            message.due = message.seen = False

    # accidents and time

    @precondition(lambda self: any(not m.ended and not m.due for m in self.messages.values()))
    @rule(data=st.data())
    def time_passes(self, data):
        waiting = sorted(m.id for m in self.messages.values() if not m.ended and not m.due)
        message = self.messages[data.draw(st.sampled_from(waiting))]
        self.do(self.ledger.lapse(message.id))
        message.due = True

    @precondition(lambda self: any(m.phase == "committing" and not m.ended for m in self.messages.values()))
    @rule(times=st.integers(1, 2))
    def a_carrier_dies_at_its_mark(self, times):
        """Let every message at its mark lapse, once or twice, and be looked at."""
        for _ in range(times):
            for message in self.messages.values():
                if message.phase == "committing" and not message.ended:
                    self.do(self.ledger.lapse(message.id))
                    message.due = True
            self.claim_all()

    @precondition(lambda self: any(not m.ended and not m.expired for m in self.messages.values()))
    @rule(data=st.data(), wanted=st.integers(0, 3))
    def deadline_passes(self, data, wanted):
        if wanted:  # rarely
            return
        waiting = sorted(m.id for m in self.messages.values() if not m.ended)
        message = self.messages[data.draw(st.sampled_from(waiting))]
        self.do(self.ledger.end_deadline(message.id))
        message.expired = True

    @rule()
    def scripts_are_forgotten(self):
        self.do(self.ledger.client.script_flush())

    # what always holds

    @invariant()
    def the_ledger_is_as_the_model_says(self):
        self.do(self._compare())

    async def _compare(self):
        ledger = self.ledger
        queues = await ledger.queues()
        pipe = ledger.client.pipeline(transaction=False)
        for message in self.messages.values():
            pipe.hmget(keys.record_key(message.id), "s", "rr", "f", "n")
            pipe.pttl(keys.record_key(message.id))
            pipe.pttl(keys.ref_key(AGENT, message.agent_ref))
            pipe.pttl(keys.payload_key(message.id))
        rows = await pipe.execute()
        places = [i for queue in queues.values() for i in queue]
        assert sorted(m.id for m in self.messages.values() if not m.ended) == sorted(places)
        for number, message in enumerate(self.messages.values()):
            (state, letters, fence, attempts), *ttls = rows[4 * number : 4 * number + 4]
            found = (state.decode(), letters.decode(), int(fence), int(attempts))
            assert (str(message.state), message.letters, message.fence, message.attempts) == found
            assert [message.ended] * 3 == [ms > 0 for ms in ttls]
            if not message.ended:
                assert message.id in queues[message.priority[0]]
            for copies in message.copies.values():
                assert copies - 1 <= message.doubts
                assert copies == 1 or message.policy == "retry"
        await self._compare_agenda(queues)

    async def _compare_agenda(self, queues):
        scores = [score % LEASED for queue in queues.values() for score in queue.values()]
        agenda = await self.ledger.agenda()
        assert not scores or (agenda is not None and agenda <= min(scores))

    @invariant()
    def recipients_move_as_they_may(self):
        for message in self.messages.values():
            before = getattr(message, "before", message.letters)
            for old, new in zip(before, message.letters, strict=True):
                assert new in MOVES[old], (old, new)
            message.before = message.letters


def test_the_ledger_does_what_its_model_does(shared_redis):
    """Nothing accepted is lost, nobody moves a recipient as it may not, no copy is made without a doubt."""

    class Machine(LedgerMachine):
        url = shared_redis.url

    quick = settings(
        max_examples=30,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[
            Phase.generate
        ],  # shrinking takes minutes over a real Redis: add Phase.shrink to read a failure
    )
    run_state_machine_as_test(Machine, settings=quick)
