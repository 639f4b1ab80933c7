"""A member starts on whatever a power loss leaves, with everything that it promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash_images.campaign import run
from tests.crash_images.journal import compiler

IMAGES = 600


@pytest.mark.skipif(compiler() is None, reason="recording needs a C compiler")
@pytest.mark.timeout(600)
def test_no_acknowledged_write_is_lost_on_any_image(tmp_path: Path) -> None:
    result = run(tmp_path, seed=11, steps=230, images=IMAGES, jobs=2)
    assert not result.broken, "\n".join(result.broken)
    assert sum(result.checked.values()) >= IMAGES * 2 // 3
    assert result.checked.keys() >= {"everything", "only what was synced", "one write lost", "torn", "zeros"}
    assert result.started > 0
