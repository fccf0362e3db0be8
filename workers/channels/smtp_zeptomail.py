"""What ZeptoMail's relay is told beside the mail, in header fields of its own: our id, tracking, cached files."""

import msgspec

from postroom.config.structs import SmtpChannel
from postroom.message import Mail
from postroom.outcome import Phase, Refused, Submission, Submitted
from workers.channels.zeptomail_files import NOTHING, Referred, ZeptomailFiles, in_header


async def refer(mail: Mail, files: ZeptomailFiles | None) -> tuple[Mail, Referred]:
    """Name what lies in ZeptoMail's file cache in its header field, and leave the rest to be attached."""
    referred = NOTHING if files is None else await files.refer(mail.attachments)
    value, attached = in_header(mail.attachments, referred.keys)
    if not value:
        return mail, referred
    headers = (*mail.headers, ("X-TM-FILE-KEY", value))
    return msgspec.structs.replace(mail, attachments=attached, headers=headers), referred


def provider_headers(mail: Mail, config: SmtpChannel) -> tuple[tuple[str, str], ...]:
    """Return ZeptoMail's own header fields: our id for its reports, and what it may track."""
    if not config.is_zeptomail:
        return ()
    return (
        ("X-TM-CLIENT-REF", mail.id),
        ("X-TM-OPEN-TRACK", str(mail.track_opens).lower()),
        ("X-TM-CLICK-TRACK", str(mail.track_clicks).lower()),
    )


def may_lack_a_file(ended: Submission) -> bool:
    """True where the whole content was refused: no reply says that the relay does not know a key any more."""
    return isinstance(ended, Submitted) and all(
        isinstance(a.outcome, Refused) and a.outcome.phase in (Phase.DATA, Phase.DONE) for a in ended.answers
    )
