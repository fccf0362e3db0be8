"""The files a configuration is read from: each read once, and compared later by what it holds."""

import hashlib
from pathlib import Path

SHOWN_DIGITS = 12


class Files:
    """Gives each file's bytes as they were at its first reading, and remembers what could not be read."""

    def __init__(self) -> None:
        self.found: dict[Path, bytes | OSError] = {}

    def read(self, path: Path) -> bytes:
        """Return the file's bytes, the same ones every time.

        Raises:
            OSError: it cannot be read, or could not at the first time.
        """
        if path not in self.found:
            self.found[path] = _look_into(path)
        found = self.found[path]
        if isinstance(found, OSError):
            raise found
        return found

    def digest(self, path: Path) -> str:
        """Return the first digits of the SHA-256 of what was read, none of it where nothing was."""
        found = self.found.get(path)
        return hashlib.sha256(found if isinstance(found, bytes) else b"").hexdigest()[:SHOWN_DIGITS]

    def changed(self) -> bool:
        """True where any of them holds something else by now, has come or has gone.

        Contents are compared, not times: what Kubernetes mounts is swapped by a symlink far above the file.
        """
        return any(_differ(found, _look_into(path)) for path, found in self.found.items())

    def unlike(self, before: "Files") -> frozenset[str]:
        """Return the paths read both times that hold something else now."""
        both = self.found.keys() & before.found.keys()
        return frozenset(str(p) for p in both if _differ(self.found[p], before.found[p]))


def _look_into(path: Path) -> bytes | OSError:
    try:
        return path.read_bytes()
    except OSError as error:
        return error


def _differ(one: bytes | OSError, other: bytes | OSError) -> bool:
    if isinstance(one, OSError) or isinstance(other, OSError):
        return type(one) is not type(other)
    return one != other
