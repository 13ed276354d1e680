"""Run stac-node-validator 2.0.0 offline, with the schemas that stac_latent.validation itself uses.

    npm install -g stac-node-validator@2.0.0
    python scripts/validate_node.py extensions/latent/examples --schemas FOLDER --lint

FOLDER holds the schemas of other extensions and an index.json: {address: file name}. The core schemas come from
pystac, PROJJSON from rasterio, the latent extension from this repository. A schema that is not at hand is not
fetched: documents that declare it fail. What a schema refers to and is not at hand is replaced by a stand-in that
rejects everything, so that nothing passes unchecked.

The exit code is that of the validator (0: valid, 1: invalid); 2: it could not be run. Options that this script does
not know (--lint, --verbose, --strict) are passed on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin

from stac_latent.errors import CatalogError
from stac_latent.validation import OfflineValidator

UNREACHABLE = "http://127.0.0.1:9"


def main(argv: list[str] | None = None) -> int:
    """Validate the files and folders on the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, help="STAC files, or folders of them (stores are left out)"
    )
    parser.add_argument("--schemas", type=Path, help="folder with other schemas and an index.json")
    parser.add_argument("--validator", help="the stac-node-validator to run (default: found on PATH)")
    args, passed_on = parser.parse_known_args(argv)
    try:
        command = [*find_validator(args.validator), *passed_on]
        files = [str(path) for path in stac_files(args.paths)]
        schemas = OfflineValidator(args.schemas).schema_cache
    except CatalogError as exc:
        print(f"validate_node: {exc}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        config = write_config(schemas, Path(folder))
        env = {**os.environ, "no_proxy": "", "NO_PROXY": ""}
        env |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), UNREACHABLE)
        return subprocess.run([*command, "--config", str(config), *files], env=env, check=False).returncode  # noqa: S603


def find_validator(given: str | None = None) -> list[str]:
    """Command that runs stac-node-validator: as given, by $STAC_NODE_VALIDATOR, on PATH, or in ./node_modules."""
    node = shutil.which("node")
    if node is None:
        raise CatalogError("node is not installed; expected Node.js 20 or newer on PATH")
    wanted = given or os.environ.get("STAC_NODE_VALIDATOR") or "stac-node-validator"
    found = shutil.which(wanted) or shutil.which(wanted, path="node_modules/.bin")
    if found is None:
        raise CatalogError(
            f"{wanted!r} not found; npm install -g stac-node-validator@2.0.0, or give --validator PATH"
        )
    return [node, found]


def stac_files(paths: list[Path]) -> list[Path]:
    """Every JSON document at the paths, but for those inside Zarr stores."""
    found: list[Path] = []
    for path in paths:
        inside = sorted([*path.rglob("*.json"), *path.rglob("*.geojson")]) if path.is_dir() else [path]
        found += [p for p in inside if not any(part.endswith(".zarr") for part in p.parts)]
    if missing := [str(p) for p in found if not p.is_file()]:
        raise CatalogError(f"no such file: {', '.join(missing)}")
    if not found:
        raise CatalogError(f"no JSON files in {', '.join(map(str, paths))}; expected STAC documents")
    return found


def write_config(schemas: dict[str, dict[str, Any]], folder: Path) -> Path:
    """Write the schemas, the stand-ins and the validator's configuration; return the latter's path."""
    every = stand_ins(schemas) | schemas
    mapped = {}
    for number, (uri, schema) in enumerate(every.items()):
        path = folder / f"{number}.json"
        path.write_text(json.dumps(schema), encoding="utf-8")
        mapped[uri] = str(path)
    config = folder / "config.json"
    config.write_text(json.dumps({"schemaMap": mapped}), encoding="utf-8")
    return config


def stand_ins(schemas: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Schemas that reject everything, for each that is referred to and not at hand."""
    found: dict[str, dict[str, Any]] = {}
    for uri, schema in schemas.items():
        for ref in references(schema):
            address, fragment = urldefrag(urljoin(uri, ref))
            if address in schemas or "json-schema.org" in address:
                continue
            here: Any = found.setdefault(address, {"$id": address, "not": {}})
            *parents, last = [unquote(part) for part in fragment.split("/")]
            for part in parents[1:]:
                here = here.setdefault(part, {})
            if last:
                here[last] = {"not": {}}
    return found


def references(schema: Any) -> Iterator[str]:
    """Yield every ``$ref`` in a schema."""
    if isinstance(schema, dict):
        if isinstance(ref := schema.get("$ref"), str):
            yield ref
        schema = list(schema.values())
    if isinstance(schema, list):
        for part in schema:
            yield from references(part)


if __name__ == "__main__":
    sys.exit(main())
