"""A real one-node SLURM with accounting in a private directory, for tests and to try sweeps out.

    eval "$(python scripts/slurm_testbed.py up)"            # sbatch and sacct now speak to it
    python scripts/slurm_testbed.py down --dir DIR          # ends what `up` started, no more
    python scripts/slurm_testbed.py run -- pytest -m slurm  # up, the command, down in any case
    python scripts/slurm_testbed.py missing                 # Debian's packages that are not there

It needs root. Ports are free ones and sockets private: testbeds stand side by side, and beside a
SLURM or a MariaDB of the machine's own. Jobs in the partition `low` are requeued when one in
`urgent` needs their room; a job beyond its memory limit is killed.
"""

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import slurm_files
from slurm_processes import Process, free_ports, interruptible, run_command, start_of, wait

from mech_arith.common.errors import UserError

PACKAGES = {
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "slurmdbd": "slurmdbd",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "sacct": "slurm-wlm",
}
"""Program -> the package that brings it."""

PLUGIN, PLUGIN_PACKAGE = "slurm*/accounting_storage_mysql.so", "slurm-wlm-mysql-plugin"

RECORD = "testbed.json"
"""In the testbed's directory: which processes were started."""

FOLDERS = ("munge", "database", "state", "spool", "log")
OWN = (*FOLDERS, "slurm.conf", "slurmdbd.conf", "gres.conf", RECORD)
"""All that a testbed puts into its directory, and takes away again."""

LONGEST = 70
"""Characters of the directory's path: sockets allow 107 in all."""

PATIENCE_S = 60.0
"""How long, in seconds, to wait for a daemon to answer."""


class Testbed:
    """The daemons of one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = os.environ | {"SLURM_CONF": str(directory / "slurm.conf")}

    def up(self) -> None:
        """Start it; on return it takes jobs.

        Raises:
            UserError: something is missing or in the way, or a daemon does not start. Nothing is
                left running.
        """
        _check_machine()
        self._check_directory()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write(RECORD, "[]")
        try:
            self._start()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End its jobs and its daemons, the last first, and remove its files.

        Raises:
            UserError: there is no testbed in the directory.
        """
        started = self._started()
        if any(process.name == "slurmctld" and process.runs for process in started):
            self._end_jobs()
        for process in reversed(started):
            process.stop()
        for name in OWN:
            path = self.directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for cut_off in self.directory.glob(_unfinished(Path("*")).name):
            cut_off.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of another's is in it, and stays
            self.directory.rmdir()

    def _check_directory(self) -> None:
        directory = self.directory
        if len(str(directory)) > LONGEST:
            raise UserError(
                f"expected a directory of at most {LONGEST} characters, which is what sockets "
                f"allow, got {directory}; choose another by --dir"
            )
        if (directory / RECORD).exists():
            raise UserError(
                f"expected a directory without a testbed, got {directory}, which holds one; "
                f"end that by: {sys.argv[0]} down --dir {directory}"
            )
        if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
            raise UserError(
                f"expected a new or an empty directory, got {directory}; choose another by --dir"
            )

    def _start(self) -> None:
        self.directory.chmod(0o755)  # munge wants its socket within everybody's reach
        for name in FOLDERS:
            (self.directory / name).mkdir()
        ports = ("database_port", "slurmdbd_port", "slurmctld_port", "slurmd_port")
        values: dict[str, object] = dict(zip(ports, free_ports(len(ports)), strict=True))
        # SLURM knows hosts by their short names.
        values |= {"dir": self.directory, "host": socket.gethostname().partition(".")[0]}
        values |= {"cpus": max(8, os.cpu_count() or 1), "password": secrets.token_hex(16)}
        self._write("slurm.conf", slurm_files.SLURM_CONF.format_map(values), mode=0o644)
        self._write("gres.conf", slurm_files.GRES_CONF, mode=0o644)
        self._write("slurmdbd.conf", slurm_files.SLURMDBD_CONF.format_map(values))
        self._start_munge()
        self._start_database(values)
        self._start_slurm()

    def _start_munge(self) -> None:
        home = self.directory / "munge"
        self._write("munge/key", secrets.token_hex(64))
        self._daemon(
            "munged",
            "--foreground",
            "--force",  # it would rather have its key elsewhere than under a temporary directory
            f"--key-file={home}/key",
            f"--socket={home}/munge.socket",
            f"--pid-file={home}/pid",
            f"--seed-file={home}/seed",
            ready=(home / "munge.socket").exists,
        )

    def _start_database(self, values: Mapping[str, object]) -> None:
        home = self.directory / "database"
        # Of 96 MB by default, all of it written to disk at once.
        options = ["--no-defaults", "--user=root", f"--datadir={home}/data"]
        options += ["--skip-name-resolve", "--innodb-log-file-size=8M"]
        self._call("mariadb-install-db", *options, "--skip-test-db")
        self._write("database/init.sql", slurm_files.DATABASE_SQL.format_map(values))
        self._daemon(
            "mariadbd",
            *options,
            "--bind-address=127.0.0.1",
            f"--port={values['database_port']}",
            f"--socket={home}/socket",
            f"--pid-file={home}/pid",
            f"--init-file={home}/init.sql",
            "--innodb-lock-wait-timeout=900",  # slurmdbd complains of less
            "--innodb-flush-log-at-trx-commit=0",  # nothing here is meant to outlive the machine
            ready=(home / "socket").exists,
        )

    def _start_slurm(self) -> None:
        self._daemon("slurmdbd", "-D", ready=self._says("sacctmgr", "-n", "list", "cluster"))
        self._call("sacctmgr", "-i", "add", "cluster", "testbed")
        self._daemon("slurmctld", "-D", ready=self._says("scontrol", "ping"))
        idle = self._says("sinfo", "-h", "-p", "normal", "-o", "%T", answer="idle")
        self._daemon("slurmd", "-D", "-N", "testbed", ready=idle)
        if not wait(self._says("sacct", "-n"), seconds=PATIENCE_S):
            raise UserError(f"expected sacct to answer within {PATIENCE_S:g} s, got an error")

    def _daemon(self, name: str, *arguments: str, ready: Callable[[], bool]) -> None:
        """Start one in a session of its own, where no Ctrl-C reaches it, and wait for it."""
        path = self.directory / "log" / f"{name}.log"
        with path.open("wb") as log:
            child = subprocess.Popen(
                [_program(name) or name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=path.parent,
                env=self.environment,
                start_new_session=True,
            )
        process = Process(name, child.pid, start_of(child.pid) or "")
        processes = [asdict(other) for other in (*self._started(), process)]
        self._write(RECORD, json.dumps(processes, indent=1))
        answers = wait(lambda: not process.runs or ready(), seconds=PATIENCE_S)
        if not process.runs or not answers:
            what = "no answer" if process.runs else "its end"
            raise UserError(
                f"expected {name} to start within {PATIENCE_S:g} s, got {what}; its log ends:\n"
                + "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-12:])
            )

    def _started(self) -> list[Process]:
        try:
            text = (self.directory / RECORD).read_text(encoding="utf-8")
        except OSError:
            raise UserError(
                f"expected a testbed in {self.directory}, found none; say where by --dir"
            ) from None
        try:
            return [Process(**fields) for fields in json.loads(text)]
        except (ValueError, TypeError):
            raise UserError(
                f"expected a list of processes in {self.directory / RECORD}, got something else; "
                "end by hand what runs with that directory in its command line, and remove it"
            ) from None

    def _end_jobs(self) -> None:
        """Kill what runs and drop what waits: jobs would outlive the daemons."""
        for options in (["--state=PENDING"], ["--full", "--signal=KILL"], []):
            self._ask("scancel", "--user=root", *options)
        wait(self._says("squeue", "-h", answer=""), seconds=20)

    def _says(self, *command: str, answer: str | None = None) -> Callable[[], bool]:
        """Whether a client's command succeeds, and says that."""

        def asked() -> bool:
            done = self._ask(*command)
            return done.returncode == 0 and answer in (None, done.stdout.strip())

        return asked

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What a command has to say; exit code 124 if it is silent for too long."""
        try:
            return subprocess.run(
                command, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, 124, "", "no answer")

    def _call(self, *command: str) -> None:
        done = self._ask(*command)
        if done.returncode != 0:
            raise UserError(
                f"expected `{command[0]}` to succeed, got exit code {done.returncode}:\n"
                + "\n".join((done.stdout + done.stderr).splitlines()[-12:])
            )

    def _write(self, name: str, text: str, *, mode: int = 0o600) -> None:
        """Write a file whole or not at all: a kill must leave the record of what was started."""
        path = self.directory / name
        new = _unfinished(path)
        new.unlink(missing_ok=True)
        new.touch(mode=mode)  # before it holds a key or a password
        new.write_text(text, encoding="utf-8")
        new.replace(path)


def _unfinished(path: Path) -> Path:
    """Where a file is written before it takes its place."""
    return path.with_name(f".{path.name}.new")


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise UserError("expected root, as whom SLURM's daemons run, got another user; use sudo")
    if lacking := missing_packages():
        raise UserError(
            f"expected Debian's packages of SLURM, found no {', '.join(lacking)}; "
            f"run: apt-get install -y --no-install-recommends {' '.join(lacking)}"
        )


def missing_packages() -> list[str]:
    """Debian's packages without which no testbed comes up."""
    lacking = {package for program, package in PACKAGES.items() if _program(program) is None}
    if not any(Path("/usr/lib").glob(f"*/{PLUGIN}")):
        lacking.add(PLUGIN_PACKAGE)
    return sorted(lacking)


def _program(name: str) -> str | None:
    """Where it is: daemons are not on every shell's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def run(testbed: Testbed, command: list[str]) -> int:
    """Bring it up, run a command on it, take it down; the command's exit code."""
    with interruptible():
        testbed.up()
        try:
            return run_command(command, testbed.environment)
        finally:
            testbed.down()


def main() -> None:
    """Do what the command line says; a failure is told without a traceback."""
    arguments = _arguments()
    try:
        if arguments.verb == "missing":
            print(" ".join(missing_packages()))
        elif arguments.verb == "down":
            Testbed(arguments.dir.absolute()).down()
        else:
            new = Path(tempfile.gettempdir(), f"slurm-testbed-{secrets.token_hex(4)}")
            testbed = Testbed((arguments.dir or new).absolute())
            if arguments.verb == "run":
                sys.exit(run(testbed, arguments.command))
            with interruptible():
                testbed.up()
            print(f"export SLURM_CONF={shlex.quote(testbed.environment['SLURM_CONF'])}")
    except UserError as error:
        sys.exit(str(error))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A real one-node SLURM in a private directory.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("missing", help="print Debian's packages that are not there")
    up = verbs.add_parser("up", help="start one, and print the variable by which it is found")
    down = verbs.add_parser("down", help="end one")
    run = verbs.add_parser("run", help="start one, run a command on it, end it")
    for verb in (up, run):
        verb.add_argument("--dir", type=Path, help="by default a new one for temporary files")
    down.add_argument("--dir", type=Path, required=True)
    run.add_argument("command", nargs="+", help="after --")
    return parser.parse_args()


if __name__ == "__main__":
    main()
