"""Records a workload, makes the images, checks them; spread over processes."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import msgspec

from etcray.spec import Timing
from tests.crash_images.check import Broken, Promised, open_and_judge, write_image
from tests.crash_images.disk import Disk, Image
from tests.crash_images.journal import Operation, build_recorder, read_journal
from tests.crash_images.workload import WATCHED, Truth
from tests.node.local_cluster import make_spec


@dataclass
class Result:
    """Counts of one process, or of all."""

    boundaries: int = 0
    """Between two recorded calls."""
    checked: Counter[str] = field(default_factory=Counter)
    """Images on which the member was opened, by kind. The same files and promises count once."""
    started: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    """By reason."""
    broken: list[str] = field(default_factory=list)

    def add(self, other: Result) -> None:
        self.boundaries = max(self.boundaries, other.boundaries)
        self.checked += other.checked
        self.started += other.started
        self.refused += other.refused
        self.broken += other.broken


def record(directory: Path, seed: int, steps: int) -> None:
    """Run the workload in a process of its own; leaves `journal` and `truth.json` in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(build_recorder(directory)),
        "RECORDER_ROOT": str(directory / WATCHED),
        "RECORDER_JOURNAL": str(directory / "journal"),
    }
    command = [sys.executable, "-m", "tests.crash_images.record", str(directory), str(seed), str(steps)]
    subprocess.run(command, check=True, env=environment)


def images_of(directory: Path, seed: int) -> Iterator[tuple[int, str, Image, Promised]]:
    """Every image of a recorded workload, with the number of the boundary that it belongs to. The
    promises are the same object throughout: what was promised up to the boundary."""
    disk, promised = Disk(str(directory / WATCHED)), Promised()
    for number, call in enumerate(read_journal(directory / "journal")):
        if call.operation is Operation.MARK:
            promised.add(call)
        elif disk.perform(call):
            chance = random.Random(f"{seed}/{number}")
            for kind, image in disk.images(chance):
                yield number, kind, image, promised


def check_share(directory: Path, seed: int, share: int, shares: int, images_max: int) -> Result:
    """Check the images whose number, counted without repetitions, falls to this share."""
    truth = msgspec.json.decode((directory / "truth.json").read_bytes(), type=Truth)
    cluster = make_spec(directory, 3, Timing())
    result = Result()
    chance = random.Random(seed)
    seen: set[bytes] = set()
    total = 0
    place = directory / f"image-{share}"
    keep_one_in = max(1, count_images(directory, seed) // images_max)
    for boundary, kind, image, promised in images_of(directory, seed):
        result.boundaries = boundary + 1
        fingerprint = _fingerprint(image, promised)
        if fingerprint in seen:
            continue
        seen.add(fingerprint)
        total += 1
        if chance.randrange(keep_one_in) or total % shares != share:
            continue
        result.checked[kind] += 1
        write_image(image, place)
        try:
            verdict = open_and_judge(place, cluster, promised, truth)
        except Exception as error:
            known = "" if isinstance(error, Broken) else f"{type(error).__name__}: "
            result.broken.append(f"boundary {boundary}, {kind}: {known}{error}")
            continue
        if verdict == "started":
            result.started += 1
        else:
            result.refused[f"{kind}: {verdict}"] += 1
    return result


def count_images(directory: Path, seed: int) -> int:
    """How many different images there are."""
    return len({_fingerprint(image, promised) for _, _, image, promised in images_of(directory, seed)})


def _fingerprint(image: Image, promised: Promised) -> bytes:
    """The same files with the same promises need no second look."""
    found = hashlib.blake2b(repr((promised.term, promised.votes, promised.match)).encode(), digest_size=16)
    for path in sorted(image):
        content = image[path]
        found.update(path.encode())
        found.update(content.digest if content is not None else b"directory")
    return found.digest()


def run(directory: Path, seed: int, steps: int, images: int, jobs: int) -> Result:
    """Record one workload, and check about `images` of its images."""
    record(directory, seed, steps)
    result = Result()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        shares = [pool.submit(check_share, directory, seed, share, jobs, images) for share in range(jobs)]
        for share in shares:
            result.add(share.result())
    return result
