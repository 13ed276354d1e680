"""What the commands print: text that steers nothing, on every terminal and in every pipe, without secrets."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings

import pystac
import pytest
import shapely.geometry
from hypothesis import given
from hypothesis import strategies as st

from stac_latent.cli.console import PlainConsole, as_text, speaking
from stac_latent.errors import CatalogError

STEERING = {
    "esc-clear": "x\x1b[2Jy",
    "esc-title": "x\x1b]0;owned\x07y",
    "c1": "x\x9b31my",
    "bidi": "x\u202egnp.exe",
    "newline": "a\nb",
    "return": "a\rb",
    "nul": "a\x00b",
    "half": "a\ud800b",
}
MARKUP = ["S2A [red] tile", "tile[/b]", "[/]", "T32:smile:X", "[link=http://x]y[/link]", "src/[id]"]


def catalogue(path, ident):
    box = shapely.geometry.mapping(shapely.geometry.box(10, 50, 11, 51))
    fields = {"latent:spaces": ["sha256:" + "0" * 64], "latent:kinds": ["codec"]}
    item = pystac.Item(
        ident,
        box,
        [10, 50, 11, 51],
        None,
        fields
        | {
            "start_datetime": "2024-01-01T00:00:00Z",
            "end_datetime": "2024-01-01T00:00:00Z",
            "datetime": None,
        },
        collection="c",
    )
    path.write_text(json.dumps(pystac.ItemCollection([item]).to_dict()))
    return path


@pytest.mark.parametrize("ident", STEERING.values(), ids=STEERING.keys())
@pytest.mark.parametrize("command", ["search", "coverage"])
def test_ids_do_not_steer_the_terminal(run, tmp_path, command, ident):
    path = catalogue(tmp_path / "items.json", ident)
    code, out, err = run(command, path)
    assert code == 0, err
    assert not set("\x1b\x9b\x07\u202e\r\x00\ud800") & set(out + err)
    if command == "search":
        assert as_text(ident) in out
    code, out, _ = run("search", path, "--json")
    assert not set("\x1b\x9b\x07\u202e\r\x00\ud800") & set(out)
    assert json.loads(out)["items"][0]["id"] == ident


@pytest.mark.parametrize("ident", MARKUP)
def test_markup_in_ids_is_text(run, tmp_path, ident):
    code, out, err = run("search", catalogue(tmp_path / "items.json", ident))
    assert code == 0, err
    assert ident in out


def test_markup_and_escapes_in_errors(run, tmp_path):
    code, _, err = run("search", tmp_path / "no [/b]\x1b[2J.json")
    assert code == 1
    assert r"no [/b]\x1b[2J.json" in err
    assert err.count("\n") == 1


@given(st.text(st.characters()))
def test_any_text_is_one_line_that_steers_nothing(text):
    file = io.StringIO()
    PlainConsole(file=file, soft_wrap=True, force_terminal=False).print(text)
    said = file.getvalue()
    assert said == as_text(text) + "\n"
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000 for c in said[:-1])


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_pipes_of_any_encoding(tmp_path, encoding):
    path = catalogue(tmp_path / "scène 日本.json", "scène-日本-😀\x9b")
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    program = [sys.executable, "-m", "stac_latent", "search", str(path)]
    table = subprocess.run(program, capture_output=True, env=env, check=False)
    assert table.returncode == 0, table.stderr
    done = subprocess.run([*program, "--json"], capture_output=True, env=env, check=False)
    assert json.loads(done.stdout.decode(encoding))["items"][0]["id"] == "scène-日本-😀\x9b"


def test_warnings_logs_and_tracebacks_show_no_secret(capsys):
    with speaking():
        warnings.simplefilter("default")
        warnings.warn("https://x.org/a?sig=SECRET is old\x1b[2J", stacklevel=1)
        record = logging.LogRecord(
            "x", logging.WARNING, "", 0, "opened %s", ("https://me:SECRET@x.org/a",), None
        )
        logging.lastResort.handle(record)
        sys.excepthook(KeyError, KeyError("https://x.org/a?sig=SECRET"), None)
    err = capsys.readouterr().err
    assert "SECRET" not in err
    assert "\x1b[2J" not in err
    for word in ("warning https://x.org/a?sig=... is old", "KeyError", "https://...@x.org/a"):
        assert word in err


def test_errors_of_the_package_show_no_secret():
    assert (
        str(CatalogError("https://x.org/a?sig=SECRET cannot be read"))
        == "https://x.org/a?sig=... cannot be read"
    )


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("STAC_LATENT_MAX_BYTES", "4G", "is no number of bytes; expected a whole number such as 4294967296"),
        ("STAC_LATENT_CACHE_BYTES", "-1", "is no number of bytes"),
        ("STAC_LATENT_CACHE_SECONDS", "-1", "is no number of seconds; expected one such as 300"),
        ("STAC_LATENT_CONNECTIONS", "0", "is no number of requests; expected a whole number such as 16"),
        ("STAC_LATENT_TIMEOUT", "30s", "is no number of seconds; expected one such as 30, or unset it"),
        ("STAC_LATENT_TIMEOUT", "0", "is no number of seconds"),
    ],
)
def test_settings_that_are_no_numbers(monkeypatch, name, value, text):
    from stac_latent.errors import SettingError
    from stac_latent.net.answers import connections, request_timeout
    from stac_latent.net.disk_cache import process_cache
    from stac_latent.system.limits import largest

    monkeypatch.setenv(name, value)
    read = {"MAX": largest, "CACHE": process_cache, "CONNECTIONS": connections, "TIMEOUT": request_timeout}
    with pytest.raises(SettingError, match=f"{name}='{value}' {text}"):
        read[name.split("_")[2]]()


def test_a_working_folder_that_is_gone(tmp_path):
    path = catalogue(tmp_path / "items.json", "tile")
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); os.execv({sys.executable!r}, [{sys.executable!r}, '-m', 'stac_latent', 'search', {str(path)!r}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "tile" in done.stdout
    assert "warning the working folder was deleted; relative paths are taken from" in done.stderr


def test_names_of_files_where_the_locale_is_posix(tmp_path):
    path = catalogue(tmp_path / "scène 日本.json", "scène")
    env = {**os.environ, "LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "stac_latent", "search", str(path)], capture_output=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "scène" in done.stdout.decode()
