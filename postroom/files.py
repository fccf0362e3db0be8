"""What may be attached: names that no mail system refuses, and types that are what they say."""

import re
import unicodedata

from postroom.text import find_forbidden

MAX_NAME_BYTES = 150

# RFC 6838 §4.2 for the names; parameters as bare tokens (`charset`, `method`), and never a second file name.
CONTENT_TYPE = re.compile(
    r"(?P<kind>[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63})/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,63}"
    r"(?:; ?(?!(?i:name|boundary)=)[A-Za-z-]{1,32}=[A-Za-z0-9_.+-]{1,64}){0,4}"
)
# Types a mail reader would act on as part of the mail itself; RFC 2046 forbids base64 for them as well.
COMPOSITE = ("multipart", "message")

# Endings of files that run when opened.
REFUSED_ENDINGS = frozenset(
    """
    ade adp app asp bas bat cer chm cmd com cpl crt csh der exe fxp gadget hlp hpj hta inf ins isp js jse ksh
    lib lnk mad maf mag mam maq mar mas mat mau mav maw mda mdb mde mdt mdw mdz msc msh msh1 msh1xml msh2
    msh2xml mshxml msi msp mst ops osd pcd pif plg prf prg ps1 ps1xml ps2 ps2xml psc1 psc2 pst reg scf scr sct
    shb shs sys tmp url vb vbe vbp vbs vsmacros vsw vxd ws wsc wsf wsh xnk
    """.split()
)


def name_problem(name: str) -> str | None:
    """Return what is wrong with a file's name, in words that go behind it."""
    if forbidden := find_forbidden(name):
        return f"holds {forbidden}"
    if "/" in name or "\\" in name or name.startswith(".") or name != name.strip(" ."):
        return "must be a plain file name"
    if len(name.encode()) > MAX_NAME_BYTES:
        return f"may have {MAX_NAME_BYTES} bytes"
    return "has an ending that mail systems refuse" if has_refused_ending(name) else None


def type_problem(content_type: str) -> str | None:
    """Return what is wrong with a content type."""
    found = CONTENT_TYPE.fullmatch(content_type)
    if found is None or found["kind"].lower() in COMPOSITE:
        return "is not a type that may be attached"
    return None


def normalised_type(content_type: str) -> str:
    """Return a content type with its type and subtype in lower case: they are the same in any (RFC 2045 §5.1)."""
    kind, semicolon, parameters = content_type.partition(";")
    return kind.lower() + semicolon + parameters


def has_refused_ending(name: str) -> bool:
    """True where any ending of the name is refused: `a.exe`, and `a.exe.pdf` and `a.exe. ` too."""
    return any(part.strip().lower() in REFUSED_ENDINGS for part in looks(name).split(".")[1:])


def looks(text: str) -> str:
    """Return a text as it looks to a reader: compatibility forms folded, invisible characters gone (UAX 15)."""
    folded = unicodedata.normalize("NFKC", text)
    return "".join(c for c in folded if unicodedata.category(c) != "Cf")
