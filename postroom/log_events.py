"""The catalogue of log events: each line that Postroom writes is one of these, with these fields.

`docs/events.md` is made from it, and tests hold the code and running processes to it.
"""

from msgspec import Struct

from postroom.states import State

COMMON = ("ts", "level", "event", "service", "version", "pid")
CRASH = ("error", "frames")  # class and frames of an exception, never its text
SERVICES = ("api", "worker", "both")


class Event(Struct, frozen=True):
    """One event: who writes it, at which level, with which fields, and what it means."""

    name: str
    service: str
    level: str
    fields: tuple[str, ...]
    text: str


_WHOSE = "message_id client_ref request_id trace_id caller agent channel template priority"
_ATTEMPT = (
    f"{_WHOSE} attempts outcome phase reply_code enhanced_code provider_id defect state next_in_ms age_ms ms "
    "accept_ms queue_ms pacing_ms connect_ms render_ms compose_ms submit_ms finish_ms"
)
_CANCELLED = " operator superseded_by ended_by_request"
_FAULT = "agent channel cause phase reply_code enhanced_code text again_in_ms"
QUIET_ENDS = frozenset({State.SENT, State.CANCELLED})  # as somebody wanted it
_ENDS = {
    State.SENT: "the channel took it for every recipient",
    State.PARTLY_SENT: "sent to some recipients, ended otherwise for the rest",
    State.FAILED: "refused for good, or it could not be made into mail (`defect`)",
    State.EXPIRED: "its deadline passed",
    State.CANCELLED: "called back by its caller, by an operator (`operator`), or superseded by a newer one (`superseded_by`)",
    State.SUPPRESSED: "all of its recipients are suppressed",
    State.UNCONFIRMED: "the provider may have it, and nobody knows",
}


def _event(name: str, service: str, level: str, fields: str, text: str) -> Event:
    return Event(name, service, level, tuple(fields.split()), text)


_MESSAGES = tuple(
    _event(
        f"message.{state}",
        "both",
        "info" if state in QUIET_ENDS else "warning",
        _ATTEMPT + _CANCELLED,
        f"**The end of a message:** {text}.",
    )
    for state, text in _ENDS.items()
)
_ATTEMPTS = tuple(
    _event(
        f"attempt.{outcome}",
        "worker",
        "info" if outcome in ("sent", "deferred") else "warning",
        _ATTEMPT,
        f"An attempt that was not the message's last: {text}.",
    )
    for outcome, text in {
        "sent": "some recipients are left",
        "deferred": "the other side put it off, or could not be reached past the greeting",
        "refused": "refused for some recipients; others are left",
        "ambiguous": "the answer got lost; the policy decides",
    }.items()
)
_API = (
    _event("message.accepted", "api", "info", "request_id trace_id caller agent message_id client_ref priority recipients template ms bytes", "Recorded; its caller gets 202. `recipients` is a count, `ms` the request's time, `bytes` its answer's."),
    _event("message.replayed", "api", "info", "request_id trace_id caller agent message_id client_ref ms bytes", "A ref that was known, with the same content: 200."),
    _event("message.resolved", "api", "info", _ATTEMPT + _CANCELLED, "An operator settled what was in doubt of a message: it was sent."),
    _event("file.kept", "api", "info", "request_id caller size new", "A file was uploaded; `new` is false where the same bytes were kept already."),
    _event("http.request", "api", "info", "request_id trace_id caller method route status code ms bytes", "All requests but probes, and those that `message.accepted` or `message.replayed` tells of. `code` is the problem's."),
    _event("storm.braked", "api", "warning", "agent caller template message_id", "The first message of a window that the storm brake holds."),
    _event("canary.failed", "api", "warning", "agent message_id how", "A canary was not accepted (`how`: the problem's code), or not sent in its time (the state it was in). The first of a row."),
    _event("operator.acted", "api", "info", "request_id caller token_id as_user verb agent message_id channel until template of_caller accepted_before skip_scheduled act done too_late finished reason", "An operator did something: who, what, and why."),
    _event("template.unusable", "api", "error", "template template_version", "A published version cannot be used by this process, perhaps an older one: what was current stays."),
    _event("redis.evicts", "api", "error", "policy", "Mail is refused until the policy is `noeviction`."),
    _event("request.crashed", "api", "error", "request_id error frames", "A defect; its caller got 500 `internal`."),
)  # fmt: skip
_WORKER = (
    _event("attempt.crashed", "worker", "error", "message_id agent error frames", "A defect; the attempt counts as deferred, or ambiguous past its mark."),
    _event("lease.expired", "worker", "warning", "agent message_id phase", "Its owner did not come back; `committing` means an ambiguous outcome."),
    _event("fence.rejected", "worker", "warning", "agent message_id channel n step outcome", "A step (`advance`, `finish`) too late, by a worker that lost the message."),
    _event("mark.too_late", "worker", "info", "agent message_id", "Its time was up at the commit mark; nothing was sent."),
    _event("day.used_up", "worker", "info", "agent", "A message had to wait for tomorrow at its commit mark."),
    _event("channel.faulty", "worker", "info", _FAULT, "A fault that does not stop the channel yet, for want of evidence."),
    _event("channel.switched", "worker", "warning", "agent channel instead_of cause", "Mail goes over another channel, because those before it stand still. Also in `postroom changes`."),
    _event("channel.returned", "worker", "info", "agent channel instead_of", "Mail goes over a channel again that comes earlier in the order."),
    _event("channel.token_refused", "worker", "warning", "agent channel remedy", "ZeptoMail refuses one of a channel's two tokens, and takes the other."),
    _event("breaker.opened", "worker", "warning", _FAULT, "The channel stands still; `text` says what to do."),
    _event("breaker.probe_failed", "worker", "info", _FAULT, "It was tried, and stands still on."),
    _event("breaker.closed", "worker", "info", "agent channel", "It works again."),
    _event("ring.failed", "worker", "warning", "agent", "arq's Redis did not answer; the sweep takes over."),
    _event("arq.restarted", "worker", "warning", "error", "arq's worker ended, and another was built: told once an outage and kind of error."),
    _event("outcomes.unwritten", "worker", "error", "count", "At the end of the grace Redis had not taken them; those messages will be ambiguous."),
    _event("round.crashed", "worker", "error", "agent error frames", "A defect; the sweep rings for the agent again."),
    _event("lane.crashed", "worker", "error", "agent error frames", "A defect; the lane's mail went back."),
    _event("round.unfinished", "worker", "warning", "error", "A round that was left over ended with an exception."),
)  # fmt: skip
_BOTH = (
    _event("journal.unwritten", "both", "warning", "kind", "Redis did not take an entry of `postroom changes`."),
    _event("service.started", "both", "info", "port metrics_port config_hash generation", "Ready for work."),
    _event("service.draining", "both", "info", "lanes", "Told to stop; finishes what it has in hand."),
    _event("service.stopped", "both", "info", "", "Everything is closed."),
    _event("config.reloaded", "both", "info", "generation config_hash added removed changed", "Names of agents."),
    _event("config.invalid", "both", "warning", "generation config_hash faults pointers remedy", "A faulty file: what was loaded before stays in force (`generation`)."),
    _event("config.restart_needed", "both", "warning", "config_hash sections", "Changed, but not before a restart."),
    _event("config.unwatched", "both", "error", "error frames", "A defect in looking at the files."),
    _event("config.not_applied", "both", "error", "generation error frames", "A defect in taking over a reload."),
    _event("config.warning", "both", "warning", "pointer detail", "It starts, but probably not as it was meant."),
    _event("task.crashed", "both", "error", "task error frames", "A defect; the task begins anew after a second."),
    _event("port.crashed", "both", "error", "error frames", "A defect in what answers on the metrics port."),
    _event("redis.unavailable", "both", "warning", "kind detail at", "Told once an outage and cause (`detail`), such as a password that Redis refuses; `at` is `start` while starting."),
    _event("redis.recovered", "both", "info", "", "The end of it."),
    _event("redis.not_durable", "both", "warning", "remedy", "No append-only file."),
)  # fmt: skip


EVENTS: dict[str, Event] = {event.name: event for event in (*_MESSAGES, *_API, *_ATTEMPTS, *_WORKER, *_BOTH)}
