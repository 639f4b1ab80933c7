"""The generated message classes are what the checked-in .proto files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STORAGE = Path(__file__).parents[2] / "storage"
PROTO = STORAGE / "etcray_storage" / "proto"


def test_generated_messages_match_their_proto_files(tmp_path: Path) -> None:
    sources = sorted(str(path.relative_to(STORAGE)) for path in PROTO.glob("*.proto"))
    command = ["-m", "grpc_tools.protoc", "-I", ".", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([sys.executable, *command, *sources], cwd=STORAGE, check=True)
    for path in sorted((tmp_path / "etcray_storage" / "proto").iterdir()):
        checked_in = (PROTO / path.name).read_text()
        assert _without_version(path.read_text()) == _without_version(checked_in), f"{path.name} is stale"


def _without_version(text: str) -> str:
    """The compiler's own version is in the file; any compatible one may have made it."""
    lines = text.splitlines()
    return "\n".join(
        line
        for line in lines
        if "Protobuf Python Version" not in line
        and line.strip() not in {"7,", "35,", "36,", "0,", "1,", "2,", "3,"}
    )
