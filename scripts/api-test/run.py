"""Tests the running service against its own OpenAPI document with Schemathesis.

Usage: run.py PROGRAM [--seed N] [--examples N]

Starts PROGRAM with a data folder of its own for each run in RUNS, and lets Schemathesis send
requests that follow the document and requests that do not. Each response must have a status, a
content type, headers and a body that the document lists; none may be a 500. Prints the seed, which
repeats the run, and ends with status 1 if a run found a fault.
"""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib

import requests
import yaml

HERE = pathlib.Path(__file__).resolve().parent
SCHEMATHESIS = pathlib.Path(sys.executable).parent / "schemathesis"
SECRET = "a secret that only this test knows, 32 bytes"
CHECKS = ",".join(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "unsupported_method",
        "allow_header_conformance",
    ]
)
# The checks that a program which answers only health checks cannot pass.
NEED_ROUTES = "unsupported_method,allow_header_conformance"
PHASES = "examples,coverage,fuzzing"
PUBLIC = {}
PRIVATE = {"CAMEO_DELIVERY__ACCESS": "private"}
# Nothing listens at this address, so the program waits for its catalog.
STARTING = {
    "CAMEO_CATALOG__KIND": "redis",
    "CAMEO_CATALOG__REDIS__URL": "redis://127.0.0.1:1",
}
# The log has a line for each of these only if it fails.
NOT_LOGGED = {
    ("GET", path) for path in ["/health", "/health/live", "/health/ready", "/metrics"]
}
# The name of each run, its settings, and the subject and role of its token.
RUNS = [
    ("nobody", PUBLIC, None),
    ("owner", PUBLIC, ("42", None)),
    ("service", PUBLIC, ("main-application", "service")),
    ("admin", PUBLIC, ("root", "admin")),
    ("nobody, private avatars", PRIVATE, None),
    ("owner, private avatars", PRIVATE, ("42", None)),
    ("admin, while the program starts", STARTING, ("root", "admin")),
]


def picture(edge):
    """A PNG of one colour."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x7a\x5c\x48" * edge) * edge
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def service(program, settings, folder):
    """The running program: its URL, and the environment of its commands."""
    address = f"127.0.0.1:{free_port()}"
    environment = dict(
        os.environ,
        CAMEO_DATA_DIR=str(folder / "data"),
        CAMEO_HTTP__BIND=address,
        CAMEO_HTTP__PUBLIC_URL=f"http://{address}",
        CAMEO_AUTH__JWT_SECRET=SECRET,
        # A quota would refuse most of the requests.
        CAMEO_LIMITS__ENABLED="false",
        # By default successful reads are not logged.
        CAMEO_TELEMETRY__ACCESS_LOG="all",
        **settings,
    )
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "serve"], env=environment, stdout=log, stderr=log)
    try:
        url = f"http://{address}"
        wanted = "/health/live" if settings is STARTING else "/health/ready"
        for _ in range(300):
            with contextlib.suppress(requests.ConnectionError):
                if requests.get(url + wanted, timeout=5).status_code == 200:
                    break
            if process.poll() is not None:
                sys.exit("the program ended:\n" + (folder / "log").read_text())
            time.sleep(0.1)
        else:
            sys.exit("the program is not ready after 30 s")
        yield url, environment
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def token(program, environment, subject, role):
    words = [program, "token", "--sub", subject]
    if role:
        words += ["--role", role]
    made = subprocess.run(words, env=environment, check=True, capture_output=True, text=True)
    return made.stdout.strip()


def upload(url, bearer, user):
    """Uploads a picture. Returns the path of one of its images below its folder, and its query."""
    answer = requests.put(
        f"{url}/api/v1/users/{user}/avatar",
        data=picture(100),
        headers={"Authorization": f"Bearer {bearer}", "Content-Type": "image/png"},
        timeout=60,
    )
    answer.raise_for_status()
    image = answer.json()["avatar_url"].split("/avatars/")[1]
    path, _, query = image.partition("?")
    return path, query


def faults_in(log):
    """Lines of the log that show a panic, or a status that must not occur."""
    bad = re.compile(r"panicked| status=5(?!03)")
    return [line for line in log.read_text(errors="replace").splitlines() if bad.search(line)]


def successes_in(log):
    """The method and route of every request that was answered below 400."""
    line = re.compile(r'method=(\S+) route="([^"]*)" status=[123]')
    return set(line.findall(log.read_text(errors="replace")))


def run(program, name, settings, caller, arguments, document):
    """One run. Returns whether it found no fault, and what was answered below 400."""
    print(f"== {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with service(program, settings, folder) as (url, environment):
            words = [SCHEMATHESIS, "--config-file", HERE / "schemathesis.toml", "run", document]
            words += ["--url", url, "--seed", str(arguments.seed), "--checks", CHECKS]
            words += ["--max-examples", str(arguments.examples), "--phases", PHASES]
            words += ["--warnings", "off", "--continue-on-failure"]
            if settings is STARTING:
                words += ["--exclude-checks", NEED_ROUTES]
            if caller:
                bearer = token(program, environment, *caller)
                words += ["--header", f"Authorization: Bearer {bearer}"]
            image = ("", "")
            if settings is not STARTING:
                admin = token(program, environment, "root", "admin")
                image = upload(url, admin, "kept")
                upload(url, admin, "42")
            hooks = {
                "SCHEMATHESIS_HOOKS": "hooks",
                "PYTHONPATH": str(HERE),
                "CAMEO_TEST_PICTURE": picture(100).hex(),
                "CAMEO_TEST_IMAGE": image[0],
                "CAMEO_TEST_LINK": image[1],
            }
            # The folder keeps the files that Schemathesis writes into the current one.
            found = subprocess.run(words, env=dict(os.environ, **hooks), cwd=folder)
        faults = faults_in(folder / "log")
        for line in faults:
            print(f"log: {line}")
        return found.returncode == 0 and not faults, successes_in(folder / "log")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", type=int, default=20, help="for each operation and phase")
    arguments = parser.parse_args()
    begun = time.monotonic()
    print(f"seed {arguments.seed}, {arguments.examples} examples", flush=True)
    program = str(pathlib.Path(arguments.program).resolve())
    failed, succeeded = [], set()
    with tempfile.NamedTemporaryFile(suffix=".yaml") as file:
        subprocess.run([program, "openapi"], check=True, stdout=file)
        document = yaml.safe_load(pathlib.Path(file.name).read_text())
        for name, settings, caller in RUNS:
            is_good, more = run(program, name, settings, caller, arguments, file.name)
            succeeded |= more
            if not is_good:
                failed.append(name)
    print(f"{len(RUNS)} runs in {time.monotonic() - begun:.0f} s; seed {arguments.seed}")
    # A run that only ever sees refusals would prove little.
    operations = {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
    }
    for method, path in sorted(operations - succeeded - NOT_LOGGED):
        failed.append(f"{method} {path} never succeeded")
    if failed:
        sys.exit("faults were found: " + "; ".join(failed))


main()
