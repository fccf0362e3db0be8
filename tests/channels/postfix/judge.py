"""A private Postfix: the distribution's own, with its own folders and ports, that stores what it takes as files.

It wants implicit TLS on one port and STARTTLS on the other, a login over either, and refuses bare newlines. It
needs root, because Postfix does.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import trustme

from tests.stack import free_port

USER, PASSWORD, REALM = "judge", "open sesame", "judge.example"
PROGRAMS = ("postfix", "postconf", "saslpasswd2")

MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/spool
data_directory = {folder}/data
maillog_file = {folder}/log/maillog
maillog_file_prefixes = {folder}/log
myhostname = {realm}
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
alias_maps =
message_size_limit = 20000000
virtual_mailbox_domains = example.com
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:all/
virtual_mailbox_limit = 0
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_forbid_bare_newline = reject
smtpd_forbid_bare_newline_exclusions =
smtpd_tls_cert_file = {folder}/cert.pem
smtpd_tls_key_file = {folder}/cert.pem
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = {realm}
cyrus_sasl_config_path = {folder}/sasl
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions =
    check_recipient_access inline:{{ {{ nobody@example.com = 550 5.1.1 nobody }}, {{ later@example.com = 450 4.2.1 later }} }},
    permit_sasl_authenticated, reject
"""
MASTER = """\
127.0.0.1:{implicit} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_tls_security_level=encrypt
127.0.0.1:{starttls} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt
cleanup   unix  n - n - 0 cleanup
qmgr      unix  n - n 300 1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n - - trivial-rewrite
bounce    unix  - - n - 0 bounce
defer     unix  - - n - 0 bounce
trace     unix  - - n - 0 bounce
error     unix  - - n - - error
retry     unix  - - n - - error
virtual   unix  - n n - - virtual
anvil     unix  - - n - 1 anvil
proxymap  unix  - - n - - proxymap
postlog   unix-dgram n - n - 1 postlogd
"""
SASL = """\
pwcheck_method: auxprop
auxprop_plugin: sasldb
mech_list: PLAIN LOGIN
sasldb_path: {folder}/sasl/sasldb2
"""


def why_not() -> str | None:
    """Return why there can be no judge here."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: postfix, sasl2-bin, libsasl2-modules)"
    return "Postfix wants root" if os.geteuid() != 0 else None


class Postfix:
    """The judge. Use as a context manager."""

    def __init__(self, authority: trustme.CA) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="prfix"))
        self.implicit, self.starttls = free_port(), free_port()
        self._authority = authority

    def __enter__(self) -> Self:
        owner = pwd.getpwnam("postfix")
        self.folder.chmod(0o755)
        for name in ("spool", "data", "log", "mail", "sasl"):
            (self.folder / name).mkdir()
        names = {"folder": self.folder, "realm": REALM, "uid": owner.pw_uid, "gid": owner.pw_gid}
        (self.folder / "main.cf").write_text(MAIN.format(**names))
        ports = {"implicit": self.implicit, "starttls": self.starttls}
        (self.folder / "master.cf").write_text(MASTER.format(**ports))
        (self.folder / "sasl" / "smtpd.conf").write_text(SASL.format(folder=self.folder))
        self._authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
            self.folder / "cert.pem"
        )
        database = self.folder / "sasl" / "sasldb2"
        command = ["saslpasswd2", "-p", "-c", "-f", str(database), "-u", REALM, USER]
        subprocess.run(command, input=PASSWORD.encode(), check=True, capture_output=True, timeout=20)
        for path in (database, self.folder / "data", self.folder / "mail"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        self._postfix("start")
        return self

    def __exit__(self, *_: object) -> None:
        self._postfix("stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def stored(self, count: int, seconds: float = 60) -> list[bytes]:
        """Return what was stored, once there are so many and nothing is on its way any more."""
        until = time.monotonic() + seconds
        while True:
            paths = list((self.folder / "mail" / "all" / "new").glob("*"))
            waiting = [
                p
                for name in ("incoming", "active")
                for p in (self.folder / "spool" / name).rglob("*")
                if p.is_file()
            ]
            if len(paths) >= count and not waiting:
                return [path.read_bytes() for path in paths]
            assert time.monotonic() < until, (
                f"{len(paths)} of {count} stored, {len(waiting)} under way\n{self.log()}"
            )
            time.sleep(0.1)

    def forget(self) -> None:
        """Throw away what was stored."""
        shutil.rmtree(self.folder / "mail" / "all", ignore_errors=True)

    def log(self) -> str:
        """Return the end of its log."""
        path = self.folder / "log" / "maillog"
        return path.read_text(errors="replace")[-3000:] if path.exists() else "(no log)"

    def _postfix(self, verb: str) -> None:
        command = ["postfix", "-c", str(self.folder), verb]
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert verb == "stop" or run.returncode == 0, f"{run.stderr}\n{self.log()}"
