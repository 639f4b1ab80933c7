"""The command line without a cluster: usage errors, the transaction grammar, what is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from etcray.cli.kv import operation_from, put_from
from etcray.cli.main import app, exit_code_of
from etcray.cli.txn_grammar import parse_condition, split_operation
from etcray.errors import ClusterNotFoundError, OptionsError


def run_cli(*arguments: str, run_directory: Path, text: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ETCRAY_RUN_DIR": str(run_directory),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", "etcray.cli", *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    "arguments",
    [["get"], ["put"], ["nonsense"], ["get", "k", "--order", "UP"], ["up", "--nodes", "three"]],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "a", "b", "--prefix"],
        ["get", ""],
        ["del", "a", "--prefix", "--from-key"],
        ["get", "a", "--keys-only", "--count-only"],
        ["put", "a", "b", "--ignore-value"],
        ["put", "a", "b", "--lease", "xyz"],
        ["up", "--nodes", "4"],
    ],
)
def test_options_that_exclude_each_other_are_usage_errors(arguments: list[str]) -> None:
    error = CliRunner().invoke(app, arguments).exception
    assert isinstance(error, OptionsError)
    assert exit_code_of(error) == 2


def test_a_failed_operation_ends_with_1_and_says_what_to_do(tmp_path: Path) -> None:
    done = run_cli("status", "--name", "nowhere", run_directory=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: no cluster named 'nowhere'")
    assert "etcray up" in done.stderr
    assert exit_code_of(ClusterNotFoundError("x")) == 1


def test_an_unexpected_error_keeps_its_traceback() -> None:
    assert exit_code_of(RuntimeError("a defect")) is None


def test_importing_the_package_and_a_kv_command_imports_no_ray() -> None:
    program = (
        "import sys, etcray, etcray.cli.main, etcray.cli.kv\n"
        "print(sorted({'ray', 'duckdb', 'pyarrow', 'grpc'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('mod("key1") > "0"', "MOD GREATER key1 0"),
        ('value("a b") != "x\\ty"', "VALUE NOT_EQUAL a b x\ty"),
        ("ver(k) = 3", "VERSION EQUAL k 3"),
        ('create("k")<"10"', "CREATE LESS k 10"),
        ('lease("k") = "1f"', "LEASE EQUAL k 31"),
    ],
)
def test_comparisons_are_read_as_etcdctl_reads_them(line: str, text: str) -> None:
    message = parse_condition(line).message
    target = message.CompareTarget.Name(message.target)
    result = message.CompareResult.Name(message.result)
    operand = getattr(message, message.WhichOneof("target_union") or "")
    shown = operand.decode() if isinstance(operand, bytes) else operand
    assert f"{target} {result} {message.key.decode()} {shown}" == text


@pytest.mark.parametrize("line", ["mod(k)", 'size("k") = "1"', 'mod("k") > "x"', 'mod("k") >= "1"'])
def test_comparisons_that_make_no_sense_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"comparison|not one of|number"):
        parse_condition(line)


def test_operations_are_split_like_shell_words_with_go_escapes() -> None:
    assert split_operation(r'put "a b" "1\n\x41" --lease=7b') == ["put", "a b", "1\nA", "--lease=7b"]
    assert split_operation(r"put 'a\n' x") == ["put", r"a\n", "x"]
    assert split_operation('put k ""') == ["put", "k", ""]
    with pytest.raises(ValueError, match="not closed"):
        split_operation('put "a')


def test_a_transaction_takes_the_options_of_the_commands() -> None:
    message = operation_from(
        "get a --prefix --limit 3 --sort-by MODIFY --order DESCEND"
    ).message.request_range
    assert (message.key, message.range_end, message.limit) == (b"a", b"b", 3)
    assert operation_from("del k --prev-kv").message.request_delete_range.prev_kv
    assert operation_from("put k v --lease=1f").message.request_put.lease == 31
    for line in ("watch k", "put k", "get", "get k --nonsense"):
        with pytest.raises(OptionsError):
            operation_from(line)


def test_arguments_that_are_not_utf8_pass_unchanged() -> None:
    key = os.fsdecode(b"\xff\xfe")
    put = put_from(
        {
            "key": key,
            "value": key,
            "lease": "0",
            "prev_kv": False,
            "ignore_value": False,
            "ignore_lease": False,
        },
        standard_input=False,
    )
    assert (put.key, put.value) == (b"\xff\xfe", b"\xff\xfe")


def test_a_cluster_that_does_not_run_is_told_with_what_to_do() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "etcray.cli",
            "get",
            "--endpoints",
            "127.0.0.1:1",
            "--command-timeout",
            "0.5",
            "key",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "`etcray up` starts one" in done.stderr
