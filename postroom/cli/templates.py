"""`postroom templates`: what the owner of a template runs before a change is merged, and to publish it."""

import argparse
import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from postroom.cli.template_places import Target, open_place, place_of, read_judged, whole_folder
from postroom.errors import PostroomError
from postroom.preview.app import serve_preview
from postroom.preview.compare import compare
from postroom.preview.folder import WatchedFolder
from postroom.preview.sheet import make_sheet
from postroom.preview.words import tell
from postroom.startup import report
from postroom.templates import Template

SAME, DIFFERENT, TROUBLE = 0, 1, 2  # as `diff` ends


def check(options: argparse.Namespace) -> int:
    """Judge every template of a folder; print each fault with file and line, and 1 where there is any."""
    files, faults = read_judged(options.dir)
    folder, _ = whole_folder(options.dir)
    for fault in faults:
        print(f"{folder}/{place_of(fault)}:{fault.line}: {fault.message}", file=sys.stderr)
    if faults:
        print(f"{len(faults)} fault(s) in {len({f.template for f in faults})} template(s)", file=sys.stderr)
        return 1
    for name, of_one in files.items():
        template = Template(name, of_one)
        print(f"{name} {template.version} ({', '.join(template.locales)})")
    return 0


def push(options: argparse.Namespace) -> int:
    """Publish the templates of a folder, or those named, that differ from what is current there."""
    files, faults = read_judged(options.dir)
    if faults:
        return check(options)
    _refuse_unknown(options.names, files, str(options.dir))
    target = Target(options.url, options.token)
    refused = 0
    for name in options.names or files:
        template = Template(name, files[name])
        current = target.versions.get(name)
        if current == template.version:
            print(f"{name} {template.version} is current already")
        elif options.dry_run:
            print(f"{name} {template.version} would take the place of {current or 'nothing'}")
        else:
            refused += not _publish(target, template)
    return 1 if refused else 0


def preview(options: argparse.Namespace) -> int:
    """Serve a page of a folder's templates until Ctrl-C."""
    path, names = whole_folder(options.dir)
    if not path.is_dir():
        raise PostroomError(f"there is no folder {options.dir}")

    def say(url: str) -> None:
        print(
            f"Templates of {options.dir}: {url}\nThe page follows what you save. Ctrl-C stops it.", flush=True
        )

    asyncio.run(serve_preview(WatchedFolder(path, names), options.port, say))
    print()
    return 0


def diff(options: argparse.Namespace) -> int:
    """Show how the templates of two places differ; 0 where they do not, 1 where they do, 2 where nobody can say."""
    try:
        return _diff(options)
    except PostroomError as error:
        report(error)
        return TROUBLE


def _diff(options: argparse.Namespace) -> int:
    old = open_place(options.old, options.old_token or options.token)
    new = open_place(options.new, options.token)
    everything = {**old.versions, **new.versions}
    _refuse_unknown(options.names, everything, "either of them")
    wanted = sorted(options.names or everything)
    changes = [
        compare(
            name,
            old.load(name) if name in old.versions else None,
            new.load(name) if name in new.versions else None,
        )
        for name in wanted
        if old.versions.get(name) != new.versions.get(name)
    ]
    for change in changes:
        print("\n".join(tell(change)))
    if options.html is not None:
        _write(options.html, make_sheet(changes, options.old, options.new))
    print(f"{len(changes)} of {len(wanted)} templates differ" if changes else "no template differs")
    return DIFFERENT if changes else SAME


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PostroomError(f"cannot write {path}: {error.strerror}") from None
    print(f"side by side: {path}")


def _publish(target: Target, template: Template) -> bool:
    version, wrong = target.publish(template)
    if version is None:
        print(f"{template.name}: {wrong}", file=sys.stderr)
        return False
    print(f"{template.name} {version} is current now")
    return True


def _refuse_unknown(names: Iterable[str], known: Iterable[str], where: str) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise PostroomError(f"no such template in {where}: {', '.join(unknown)}")
