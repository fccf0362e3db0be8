"""Templates are judged in a process of its own: whatever they do, the verdict comes soon and only that process ends."""

import json
import resource
import subprocess
import sys
import time

import pytest

from postroom.templates import judging
from postroom.templates.judging import judge

MANIFEST = 'description = "d"\n[variables.name]\ntype = "string"\nexample = "Ada"\n'
SOUND = {"template.toml": MANIFEST, "subject.txt": "Hi {{ name }}", "body.txt": "Hello"}


class Spinning(str):
    """A file that never ends when it is looked at, as a parser with a defect would."""

    __slots__ = ()

    def replace(self, *_):
        while True:
            pass


class Growing(Spinning):
    """A file that takes all memory there is when it is looked at."""

    __slots__ = ()

    def replace(self, *_):
        return "x" * (judging.MEMORY_BYTES + 1) * 4


def test_sound_templates_have_no_faults():
    """What is sound is told as sound, and what is not with file and line."""
    assert [] == judge({"one": SOUND, "two": SOUND})
    assert [("two", "body.txt", 1)] == [
        (f.template, f.file, f.line)
        for f in judge({"one": SOUND, "two": {**SOUND, "body.txt": "{{ nobody }}"}})
    ]


@pytest.mark.parametrize(("kind", "said"), [(Spinning, "takes too long"), (Growing, "takes too much memory")])
def test_a_runaway_ends_alone(kind, said):
    """A judgement that would go on for ever, or take all memory, ends soon; the other templates have their verdict."""
    started = time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    found = judge(
        {
            "one": SOUND,
            "two": {**SOUND, "body.txt": kind("x")},
            "three": {**SOUND, "body.txt": "{{ nobody }}"},
        }
    )
    assert [("three", "body.txt"), ("two", "template.toml")] == [(f.template, f.file) for f in found]
    assert found[1].message.startswith(said)
    assert 1 > time.process_time() - started[0]
    assert 2 > resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - started[1]


LOOP = "{% for i in range(1000) %}"
HOSTILE = [
    LOOP * 3 + "x" + "{% endfor %}" * 3,
    "{{ 'a' * 10 ** 9 }}",
    "{{ '%0999999999d' | format(1) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    '{% include "_self.txt" %}',
    "{% if true %}" * 3_000 + "{% endif %}" * 3_000,
    "{{ " + "not " * 60_000 + "1 }}",
    "{{ name }}" + '<a "' * 50_000,
    "<table>" * 30_000,
    "<div>" * 50_000,
]
# A process that has no other children, so that what it is told of its children is of those that judge.
WATCHER = """
import json, resource, sys
from postroom.templates.judging import judge_apart
manifest, sources = json.load(sys.stdin)
cpu, answers = 0.0, []
for source in sources:
    files = {"template.toml": manifest, "subject.txt": "x", "body.html": source, "_self.txt": '{% include "_self.txt" %}'}
    faults = judge_apart("hostile", files)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    answers.append(([fault.message for fault in faults], used.ru_utime + used.ru_stime - cpu, used.ru_maxrss))
    cpu = used.ru_utime + used.ru_stime
json.dump(answers, sys.stdout)
"""


def test_hostile_files_end_in_a_clear_error():
    """Loops, gigabytes, recursion and deep nesting end in words within a second of work, in less than 256 MB."""
    asked = json.dumps([MANIFEST, HOSTILE]).encode()
    done = subprocess.run(
        [sys.executable, "-c", WATCHER], input=asked, capture_output=True, check=True, timeout=50
    )
    answers = json.loads(done.stdout)
    for source, (said, seconds, kilobytes) in zip(HOSTILE, answers, strict=True):
        assert said or source.startswith("<"), source[:60]  # HTML nested deeply is odd, and no fault
        assert all(said)
        assert 1.5 > seconds, source[:60]  # the start of an interpreter included
        assert 256 * 1024 > kilobytes
