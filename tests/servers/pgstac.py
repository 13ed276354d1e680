"""A real STAC API on loopback: stac-fastapi-pgstac over a PostgreSQL of its own, in a folder that goes away with it.

    python tests/servers/pgstac.py            prints the address, and serves until it is interrupted

Needs PostgreSQL's server with PostGIS (Debian: postgresql-15-postgis-3, postgis) and the packages of the extra ``server``, in
this interpreter or in that of $STAC_LATENT_SERVER_PYTHON. PostgreSQL refuses to run as root: started by root, it runs as the
user postgres.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

__all__ = ["Pgstac", "missing"]

PYTHON = os.environ.get("STAC_LATENT_SERVER_PYTHON") or sys.executable
_SECONDS = 60


def postgres():
    """Folder of PostgreSQL's programs, the newest that has PostGIS; None without one."""
    places = Path("/usr/lib/postgresql").glob("*/bin")
    for folder in sorted(places, key=lambda p: int(p.parent.name), reverse=True):
        control = Path("/usr/share/postgresql") / folder.parent.name / "extension" / "postgis.control"
        if (folder / "initdb").exists() and control.exists():
            return folder
    return None


def missing():
    """Why there can be no server on this machine; None where it can be started."""
    if postgres() is None:
        return "PostgreSQL's server with PostGIS is not installed (Debian: postgresql-15-postgis-3, postgis)"
    if os.geteuid() == 0:
        if not shutil.which("runuser"):
            return "root cannot run PostgreSQL, and there is no runuser to become another user"
        if subprocess.run(["id", "postgres"], capture_output=True, check=False).returncode:
            return "root cannot run PostgreSQL, and there is no user postgres"
    code = "import stac_fastapi.pgstac.app, pypgstac, uvicorn"
    found = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=False)
    if found.returncode:
        why = (found.stderr.strip().splitlines() or ["it failed"])[-1]
        return f"{PYTHON} lacks the packages of the extra server ({why}); set STAC_LATENT_SERVER_PYTHON to one that has them"
    return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Pgstac:
    """``with Pgstac() as server: server.url``; data and processes are gone afterwards."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="stac-latent-pgstac-"))
        self.port, self.api_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.api_port}/"
        own = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": "stac",
            "PGPASSWORD": "x",
            "PGDATABASE": "pgstac",
        }
        quiet = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "POSTGRES_"))}
        self.environment = {**quiet, **own, "ENABLE_TRANSACTIONS_EXTENSIONS": "true"}
        self._api = None

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _start(self):
        self.folder.chmod(0o755)
        data, log = self.folder / "data", self.folder / "log"
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        # nothing here has to outlive a power failure
        self._as_postgres(
            "initdb", "-D", data, "-U", "stac", "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._as_postgres("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")
        self.run(postgres() / "createdb", "pgstac")
        self.pypgstac("migrate")
        self.sql(
            "update pgstac.pgstac_settings set value = 'on' where name = 'context'"
        )  # else nothing is counted
        command = [
            PYTHON,
            "-m",
            "uvicorn",
            "stac_fastapi.pgstac.app:create_app",
            "--factory",
            "--log-level",
            "warning",
        ]
        with (self.folder / "api.log").open("w") as out:
            self._api = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.api_port)],
                env=self.environment,
                cwd=self.folder,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._wait()

    def _wait(self):
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            if self._api.poll() is not None:
                break
            with suppress(OSError), urllib.request.urlopen(f"{self.url}_mgmt/ping", timeout=5) as answer:  # noqa: S310
                json.load(answer)
                return
            time.sleep(0.1)
        raise RuntimeError(f"the STAC API does not answer: {(self.folder / 'api.log').read_text()[-2000:]}")

    def stop(self):
        """End both servers and remove the folder."""
        if self._api is not None:
            self._api.terminate()
            try:
                self._api.wait(10)
            except subprocess.TimeoutExpired:
                self._api.kill()
                self._api.wait()
        if (self.folder / "data" / "postmaster.pid").exists():
            self._as_postgres("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)

    def queryables(self, document, *, index=()):
        """Declare queryables, as ``pypgstac load_queryables`` does."""
        path = self.folder / "queryables.json"
        path.write_text(json.dumps(document))
        fields = [f"--index_fields={json.dumps(list(index))}"] if index else []
        self.pypgstac("load_queryables", path, *fields)

    def pypgstac(self, *arguments):
        """Answer of the command pypgstac."""
        return self.run(PYTHON, "-c", "from pypgstac.pypgstac import cli; cli()", *arguments)

    def sql(self, text):
        """Answer of the database, as psql prints it."""
        return self.run(postgres() / "psql", "-qAtc", text)

    def run(self, *command):
        done = subprocess.run(
            [str(c) for c in command],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(
                f"{' '.join(map(str, command))} failed: {done.stdout[-1000:]} {done.stderr[-2000:]}"
            )
        return done.stdout.strip()

    def _as_postgres(self, program, *arguments):
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        done = subprocess.run(  # pg_ctl's server keeps its output open: it must not be a pipe
            [*user, str(postgres() / program), *map(str, arguments)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=(out := (self.folder / f"{program}.log").open("w")),
            stderr=subprocess.STDOUT,
            check=False,
        )
        out.close()
        if done.returncode:
            raise RuntimeError(f"{program} failed: {(self.folder / f'{program}.log').read_text()[-2000:]}")


def main():
    if why := missing():
        sys.exit(why)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Pgstac() as server, suppress(KeyboardInterrupt):
        names = ("PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE")
        lines = [f"export STAC_API={server.url}", *(f"export {k}={server.environment[k]}" for k in names)]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
