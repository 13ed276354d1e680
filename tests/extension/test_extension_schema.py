"""The JSON schema: what it accepts, and for what reason it rejects each wrong form."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from stac_latent.extension import SCHEMA_URI
from stac_latent.extension.measured import BEST
from stac_latent.validation import OfflineValidator, latent_schema

EXAMPLES = Path(__file__).parent / "documents"
NAMES = ["item", "item-derived", "collection", "item-embedding", "item-codec"]
VALIDATOR = OfflineValidator()
SPACE = "sha256:" + "0" * 64


def example(name):
    return json.loads((EXAMPLES / f"{name}.json").read_text())


def reject(document):
    return [(p.path, p.keyword, p.message) for p in VALIDATOR.problems(document, SCHEMA_URI)]


def put(*path):
    """Mutation that sets the value at a path."""
    *keys, last, value = path

    def mutate(document):
        for key in keys:
            document = document[key]
        document[last] = value

    return mutate


def drop(*path):
    """Mutation that removes what is at a path."""
    *keys, last = path

    def mutate(document):
        for key in keys:
            document = document[key]
        del document[last]

    return mutate


def latent(field, value):
    return put("assets", "latent", field, value)


def without(field):
    return drop("assets", "latent", field)


def both(*mutations):
    def mutate(document):
        for one in mutations:
            one(document)

    return mutate


def unmeasured(document):
    """Mutation that takes the measurements out of the properties, which are those of codec assets."""
    for name in BEST:
        document["properties"].pop(name, None)


A = "assets/latent"
REQUIRED = [
    *(
        f"latent:{n}"
        for n in ("space", "granularity", "dimensions", "shape", "dim_order", "dtype", "quantization")
    ),
    *(f"latent:{n}" for n in ("stride", "padding", "determinism", "bits_per_pixel", "max_error", "psnr")),
    "proj:shape",
    "proj:transform",
]
# name: (example, mutation, path, keyword, part of the message)
INVALID = {
    **{
        f"a codec asset without {field}": (
            "item",
            without(field),
            A,
            "required",
            f"'{field}' is a required property",
        )
        for field in REQUIRED
    },
    "role latent without kind": (
        "item",
        both(without("latent:kind"), unmeasured),
        A,
        "required",
        "'latent:kind' is a required property",
    ),
    "a tensor described without kind": (
        "item",
        both(without("latent:kind"), latent("roles", ["data"]), unmeasured),
        A,
        "dependencies",
        "'latent:kind' is a dependency of 'latent:granularity'",
    ),
    "kind without role": (
        "item",
        latent("roles", ["data"]),
        f"{A}/roles",
        "contains",
        'expected {"const": "latent"}',
    ),
    "kind without roles": ("item", without("roles"), A, "required", "'roles' is a required property"),
    "unknown kind": (
        "item",
        both(latent("latent:kind", "model"), unmeasured),
        f"{A}/latent:kind",
        "enum",
        "'model' is not one of",
    ),
    "kind in the properties": (
        "item",
        put("properties", "latent:kind", "codec"),
        "properties",
        "additionalProperties",
        "latent:kind",
    ),
    "space in the properties": (
        "item",
        put("properties", "latent:space", SPACE),
        "properties",
        "additionalProperties",
        "latent:space",
    ),
    "unknown field in the properties": (
        "item",
        put("properties", "latent:nonsense", 1),
        "properties",
        "additionalProperties",
        "latent:nonsense",
    ),
    "unknown field on an asset": (
        "item",
        latent("latent:scale", 1),
        A,
        "additionalProperties",
        "'latent:scale' does not match",
    ),
    "unknown field on a raw asset": (
        "item",
        put("assets", "red", "latent:of", "red"),
        "assets/red",
        "additionalProperties",
        "'latent:of' does not match",
    ),
    "unknown field on a link": (
        "item",
        put("links", 1, "latent:codec", "x"),
        "links/1",
        "additionalProperties",
        "'latent:codec' does not match",
    ),
    "field at the top level": (
        "item",
        put("latent:kind", "codec"),
        "",
        "pattern",
        "'latent:kind' does not match",
    ),
    "field on a band": (
        "item",
        put("assets", "latent", "bands", 0, "latent:kind", "codec"),
        f"{A}/bands/0",
        "pattern",
        "'latent:kind' does not match",
    ),
    "spaces on an asset": (
        "item",
        latent("latent:spaces", [SPACE]),
        A,
        "additionalProperties",
        "'latent:spaces' does not match",
    ),
    "no spaces in the properties": (
        "item-embedding",
        drop("properties", "latent:spaces"),
        "properties",
        "required",
        "'latent:spaces' is a required property",
    ),
    "no kinds in the properties": (
        "item-embedding",
        drop("properties", "latent:kinds"),
        "properties",
        "required",
        "'latent:kinds' is a required property",
    ),
    "spaces without kinds where there is no latent asset": (
        "item-codec",
        drop("properties", "latent:kinds"),
        "properties",
        "dependencies",
        "'latent:kinds' is a dependency of 'latent:spaces'",
    ),
    "kinds without codec": (
        "item",
        put("properties", "latent:kinds", ["embedding"]),
        "properties/latent:kinds",
        "contains",
        'expected {"const": "codec"}',
    ),
    "kinds without embedding": (
        "item-embedding",
        put("properties", "latent:kinds", ["codec"]),
        "properties/latent:kinds",
        "contains",
        'expected {"const": "embedding"}',
    ),
    "empty spaces": (
        "item-embedding",
        put("properties", "latent:spaces", []),
        "properties/latent:spaces",
        "minItems",
        "",
    ),
    "spaces twice": (
        "item",
        put("properties", "latent:spaces", [SPACE, SPACE]),
        "properties/latent:spaces",
        "uniqueItems",
        "non-unique",
    ),
    "a space that is a string": (
        "item",
        put("properties", "latent:spaces", SPACE),
        "properties/latent:spaces",
        "type",
        "is not of type 'array'",
    ),
    "a space that is a name": (
        "item",
        latent("latent:space", "klt-v1"),
        f"{A}/latent:space",
        "pattern",
        "'klt-v1' does not match",
    ),
    "a space in capitals": (
        "item",
        latent("latent:space", "sha256:" + "A" * 64),
        f"{A}/latent:space",
        "pattern",
        "does not match",
    ),
    "a short space": (
        "item",
        latent("latent:space", "sha256:" + "0" * 63),
        f"{A}/latent:space",
        "pattern",
        "does not match",
    ),
    "no decoder link": (
        "item",
        put("links", []),
        "links",
        "contains",
        '{"rel": {"const": "latent:decoder"}}',
    ),
    "decoder link without space": (
        "item",
        drop("links", 1, "latent:space"),
        "links/1",
        "required",
        "'latent:space' is a required property",
    ),
    "decoder link without checksum": (
        "item",
        drop("links", 1, "file:checksum"),
        "links/1",
        "required",
        "'file:checksum' is a required property",
    ),
    "decoder link without size": (
        "item",
        drop("links", 1, "file:size"),
        "links/1",
        "required",
        "'file:size' is a required property",
    ),
    "decoder link with a plain sha256": (
        "item",
        put("links", 1, "file:checksum", "0" * 64),
        "links/1/file:checksum",
        "pattern",
        "does not match",
    ),
    "encoder link without space": (
        "item-embedding",
        put(
            "links",
            [
                {
                    "rel": "latent:encoder",
                    "href": "./e.json",
                    "file:checksum": "1220" + "0" * 64,
                    "file:size": 9,
                }
            ],
        ),
        "links/0",
        "required",
        "'latent:space' is a required property",
    ),
    "granularity of another vocabulary": (
        "item",
        latent("latent:granularity", "image"),
        f"{A}/latent:granularity",
        "enum",
        "'image' is not one of",
    ),
    "no dimensions": (
        "item",
        latent("latent:dimensions", 0),
        f"{A}/latent:dimensions",
        "minimum",
        "less than",
    ),
    "half a dimension": (
        "item",
        latent("latent:dimensions", 1.5),
        f"{A}/latent:dimensions",
        "type",
        "is not of type 'integer'",
    ),
    "one stride": ("item", latent("latent:stride", [8]), f"{A}/latent:stride", "minItems", "too short"),
    "stride as a number": (
        "item",
        latent("latent:stride", 8),
        f"{A}/latent:stride",
        "type",
        "is not of type 'array'",
    ),
    "negative chip": (
        "item",
        both(latent("latent:chip_index", -1), latent("latent:required_features", ["chips"])),
        f"{A}/latent:chip_index",
        "minimum",
        "less than",
    ),
    "chip by name": (
        "item",
        both(latent("latent:chip_index", "s0"), latent("latent:required_features", ["chips"])),
        f"{A}/latent:chip_index",
        "type",
        "integer",
    ),
    **{
        f"{field} that no list of features has": (
            "item",
            latent(field, value),
            A,
            "required",
            "'latent:required_features' is a required property",
        )
        for field, value in (("latent:chip_index", 3),)
    },
    "a feature whose field is not there": (
        "item",
        latent("latent:required_features", ["difference"]),
        f"{A}/latent:required_features",
        "not",
        "difference",
    ),
    "a halo of another type": (
        "item",
        latent("latent:halo", None),
        f"{A}/latent:halo",
        "type",
        "None is not of type 'array'",
    ),
    "no CRS anywhere": (
        "item",
        both(
            *(drop("properties", n) for n in ("proj:code",) if n in example("item")["properties"]),
            *(without(n) for n in ("proj:code",) if n in example("item")["assets"]["latent"]),
        ),
        "properties",
        "required",
        "'proj:code' is a required property",
    ),
    **{
        f"symbols in the role {role}": (
            "item",
            latent("roles", ["latent", role]),
            f"{A}/roles",
            "not",
            role,
        )
        for role in ("data", "visual")
    },
    "residuals without a bound": (
        "item",
        both(
            latent("latent:residual", "stac-latent-residual-1"),
            latent("latent:required_features", ["residual"]),
        ),
        A,
        "required",
        "'latent:error_bound' is a required property",
    ),
    "residuals of some chunks without their bound": (
        "item",
        both(
            latent("latent:residual", "r-1-sparse"),
            latent("latent:required_features", ["residual", "sparse_fallback"]),
        ),
        A,
        "required",
        "'latent:fallback_bound' is a required property",
    ),
    "bounds without their kinds": (
        "item",
        latent("latent:error_bounds", [1]),
        A,
        "dependencies",
        "'latent:error_bound_kinds' is a dependency of 'latent:error_bounds'",
    ),
    "checks without values": (
        "item",
        latent("latent:checks", ["psnr>=40:warn"]),
        A,
        "dependencies",
        "'latent:check_values' is a dependency of 'latent:checks'",
    ),
    "a PSNR beyond the scale": ("item", latent("latent:psnr", 999), f"{A}/latent:psnr", "maximum", ""),
    "measurements of no codec": (
        "item-embedding",
        put("properties", "latent:psnr", 40.0),
        "assets",
        "not",
        "",
    ),
    "a feature that nobody knows": (
        "item",
        latent("latent:required_features", ["hologram"]),
        f"{A}/latent:required_features/0",
        "enum",
        "'hologram' is not one of ['difference', 'residual', 'encryption', 'sparse_fallback', 'chips']",
    ),
    "sparse residuals that no list has": (
        "item",
        both(
            latent("latent:residual", "r-1-sparse"),
            latent("latent:fallback_bound", 0),
            latent("latent:fallback_tiles", 1),
            latent("latent:required_features", ["residual"]),
        ),
        f"{A}/latent:required_features",
        "contains",
        "sparse_fallback",
    ),
    "zero stride": ("item", latent("latent:stride", [8, 0]), f"{A}/latent:stride/1", "minimum", "less than"),
    "three halos": ("item", latent("latent:halo", [1, 1, 1]), f"{A}/latent:halo", "maxItems", "too long"),
    "negative halo": ("item", latent("latent:halo", [-1, 0]), f"{A}/latent:halo/0", "minimum", "less than"),
    "null stride": (
        "item",
        latent("latent:stride", None),
        f"{A}/latent:stride",
        "type",
        "is not of type 'array'",
    ),
    "two paddings": (
        "item",
        latent("latent:padding", [6, 6]),
        f"{A}/latent:padding",
        "minItems",
        "too short",
    ),
    "negative padding": (
        "item",
        latent("latent:padding", [0, 0, 0, -1]),
        f"{A}/latent:padding/3",
        "minimum",
        "less than",
    ),
    "empty shape": ("item", latent("latent:shape", []), f"{A}/latent:shape", "minItems", ""),
    "dimension twice": (
        "item",
        latent("latent:dim_order", ["y", "y", "x"]),
        f"{A}/latent:dim_order",
        "uniqueItems",
        "non-unique",
    ),
    "unknown dtype": (
        "item",
        latent("latent:dtype", "double"),
        f"{A}/latent:dtype",
        "enum",
        "'double' is not one of",
    ),
    "unknown quantization": (
        "item",
        latent("latent:quantization", "int8"),
        f"{A}/latent:quantization",
        "enum",
        "'int8' is not one of",
    ),
    "linear without scale": (
        "item",
        without("latent:quantization_scale"),
        A,
        "required",
        "'latent:quantization_scale' is a required property",
    ),
    "power without scale": (
        "item-embedding",
        drop("assets", "embedding", "latent:quantization_scale"),
        "assets/embedding",
        "required",
        "'latent:quantization_scale' is a required property",
    ),
    "power without power": (
        "item-embedding",
        drop("assets", "embedding", "latent:quantization_power"),
        "assets/embedding",
        "required",
        "'latent:quantization_power' is a required property",
    ),
    "a power for linear": (
        "item",
        latent("latent:quantization_power", 2),
        f"{A}/latent:quantization_power",
        "not",
        "2 should not be valid",
    ),
    "scale as a number": (
        "item",
        latent("latent:quantization_scale", 12.5),
        f"{A}/latent:quantization_scale",
        "type",
        "is not of type 'array'",
    ),
    "negative scale": (
        "item",
        latent("latent:quantization_scale", [-1]),
        f"{A}/latent:quantization_scale/0",
        "minimum",
        "less than",
    ),
    "none with a scale": (
        "item",
        both(latent("latent:quantization", "none"), without("latent:quantization_offset")),
        f"{A}/latent:quantization_scale",
        "not",
        "should not be valid",
    ),
    "round with an offset": (
        "item",
        both(latent("latent:quantization", "round"), without("latent:quantization_scale")),
        f"{A}/latent:quantization_offset",
        "not",
        "should not be valid",
    ),
    "per_vector without scale_asset": (
        "item",
        latent("latent:quantization", "per_vector"),
        A,
        "required",
        "'latent:scale_asset' is a required property",
    ),
    "a scale_asset for linear": (
        "item",
        latent("latent:scale_asset", "scales"),
        f"{A}/latent:scale_asset",
        "not",
        "should not be valid",
    ),
    "unknown determinism": (
        "item",
        latent("latent:determinism", "mostly"),
        f"{A}/latent:determinism",
        "enum",
        "'mostly' is not one of",
    ),
    "platform without software": (
        "item",
        latent("latent:determinism", "platform"),
        "properties",
        "required",
        "'processing:software' is a required property",
    ),
    "rate as text": (
        "item",
        latent("latent:bits_per_pixel", "0.3"),
        f"{A}/latent:bits_per_pixel",
        "type",
        "is not of type 'number'",
    ),
    "no rate": (
        "item",
        put("properties", "latent:bits_per_pixel", 0),
        "properties/latent:bits_per_pixel",
        "exclusiveMinimum",
        "less than or equal to",
    ),
    "psnr per band": (
        "item",
        put("properties", "latent:psnr", [40, 41]),
        "properties/latent:psnr",
        "type",
        "is not of type 'number'",
    ),
    "negative error": (
        "item",
        latent("latent:max_error", -1),
        f"{A}/latent:max_error",
        "minimum",
        "less than",
    ),
    "angle over 180": ("item", latent("latent:sam", 181), f"{A}/latent:sam", "maximum", "greater than"),
    "not declared": ("item", put("stac_extensions", []), "stac_extensions", "contains", SCHEMA_URI),
    "another version": (
        "item",
        put("stac_extensions", [SCHEMA_URI.replace("v0.1.0", "v0.2.0")]),
        "stac_extensions",
        "contains",
        SCHEMA_URI,
    ),
    "a catalog": ("collection", put("type", "Catalog"), "type", "enum", "'Catalog' is not one of"),
    "collection without summaries": (
        "collection",
        drop("summaries"),
        "",
        "required",
        "'summaries' is a required property",
    ),
    "summaries without spaces": (
        "collection",
        drop("summaries", "latent:spaces"),
        "summaries",
        "required",
        "'latent:spaces' is a required property",
    ),
    "summaries without kinds": (
        "collection",
        drop("summaries", "latent:kinds"),
        "summaries",
        "required",
        "'latent:kinds' is a required property",
    ),
    "summary of a field of assets": (
        "collection",
        put("summaries", "latent:kind", ["codec"]),
        "summaries",
        "additionalProperties",
        "'latent:kind' does not match",
    ),
    "half a range": (
        "collection",
        put("summaries", "latent:psnr", {"minimum": 30}),
        "summaries/latent:psnr",
        "required",
        "'maximum' is a required property",
    ),
    "unknown field in item_assets": (
        "collection",
        put("item_assets", "latent", "latent:model", "x"),
        "item_assets/latent",
        "additionalProperties",
        "'latent:model' does not match",
    ),
    "kind without role in item_assets": (
        "collection",
        put("item_assets", "latent", "roles", ["data"]),
        "item_assets/latent/roles",
        "contains",
        'expected {"const": "latent"}',
    ),
    "field at the top level of a collection": (
        "collection",
        put("latent:spaces", [SPACE]),
        "",
        "pattern",
        "'latent:spaces' does not match",
    ),
    "unknown field on a codec Item": (
        "item-codec",
        put("assets", "weights", "latent:weights", True),
        "assets/weights",
        "additionalProperties",
        "'latent:weights' does not match",
    ),
}


def test_the_schema_is_draft_07_with_its_own_address():
    schema = json.loads(latent_schema().read_text())
    Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert schema["$id"] == SCHEMA_URI + "#"


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_valid(name):
    assert reject(example(name)) == []


def test_there_is_no_example_that_is_not_tested():
    assert {p.stem for p in EXAMPLES.iterdir()} == set(NAMES)


@pytest.mark.parametrize("case", INVALID)
def test_rejects(case):
    name, mutate, path, keyword, message = INVALID[case]
    document = example(name)
    mutate(document)
    found = reject(document)
    assert {p for p, *_ in found} == {path}
    assert any(k == keyword and message in m for _, k, m in found), found


VALID = {
    "halo absent": ("item", without("latent:halo")),
    "lossless has no psnr": ("item", both(without("latent:psnr"), latent("latent:max_error", 0))),
    "platform with software on the asset": (
        "item",
        both(latent("latent:determinism", "platform"), latent("processing:software", {"torch": "2.13.0"})),
    ),
    "platform with software in the properties": ("item-derived", latent("latent:determinism", "platform")),
    "none without scale": (
        "item",
        both(
            latent("latent:quantization", "none"),
            without("latent:quantization_scale"),
            without("latent:quantization_offset"),
        ),
    ),
    "per_vector": (
        "item-embedding",
        both(
            put("assets", "embedding", "latent:quantization", "per_vector"),
            put("assets", "embedding", "latent:scale_asset", "scales"),
            drop("assets", "embedding", "latent:quantization_power"),
            put("assets", "scales", {"href": "./s.npy", "roles": ["latent:scales"], "latent:space": SPACE}),
        ),
    ),
    "an Item that has lost its latents": (
        "item",
        both(drop("assets", "latent"), put("links", []), unmeasured),
    ),
    "a Collection without item_assets": ("collection", drop("item_assets")),
    "summaries as lists": ("collection", put("summaries", "latent:psnr", [40.5, 41])),
}


@pytest.mark.parametrize("case", VALID)
def test_accepts(case):
    name, mutate = VALID[case]
    document = example(name)
    mutate(document)
    assert reject(document) == []


def table(title):
    """Names of the fields in a table of the README."""
    readme = (latent_schema().parents[1] / "README.md").read_text()
    section = readme.split(f"### {title}\n")[1].split("\n#")[0]
    return {line.split("|")[1].strip() for line in section.splitlines() if line.startswith("| latent:")}


def test_every_field_of_an_asset_is_in_one_part():
    found = json.loads(latent_schema().read_text())["definitions"]
    parts = [name for part in ("core", "store", "quality") for name in found[part]["properties"]]
    assert len(parts) == len(set(parts))
    assert set(parts) == KNOWN - {"bands"}
    assert len(found["core"]["properties"]) <= 25


@pytest.mark.parametrize(
    ("title", "definition"),
    [
        ("Item Properties", "item_properties"),
        ("Assets: core", "core"),
        ("Assets: store profile", "store"),
        ("Assets: quality", "quality"),
        ("Links", "link"),
    ],
)
def test_the_readme_has_the_fields_of_the_schema(title, definition):
    found = json.loads(latent_schema().read_text())["definitions"][definition]
    fields = found if "properties" in found else found["allOf"][0]
    assert table(title) == {name for name in fields["properties"] if name.startswith("latent:")}


words = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
KNOWN = set(json.loads(latent_schema().read_text())["definitions"]["asset_fields"]["properties"])
json_values = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=3)
)


@given(word=words, value=json_values)
def test_any_unknown_name_is_rejected_and_any_other_prefix_is_not(word, value):
    document = example("item")
    document["assets"]["latent"][f"other:{word}"] = value
    assert reject(document) == []
    if f"latent:{word}" not in KNOWN:
        document["assets"]["latent"][f"latent:{word}"] = value
        assert [k for _, k, _ in reject(document)] == ["additionalProperties"]


@given(field=st.sampled_from(sorted(KNOWN - {"bands"})), value=st.dictionaries(words, st.integers()))
def test_no_field_is_an_object(field, value):
    document = example("item")
    document["assets"]["latent"][field] = value
    assert (f"{A}/{field}", {}) in [(p, {}) for p, *_ in reject(document)]


digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)


@given(spaces=st.lists(digests, min_size=1, max_size=5, unique=True))
def test_any_digest_is_a_space(spaces):
    document = example("item")
    document["properties"]["latent:spaces"] = spaces
    document["assets"]["latent"]["latent:space"] = spaces[0]
    assert reject(document) == []


@given(st.text(max_size=80).filter(lambda t: len(t) != 71))
def test_nothing_else_is_a_space(text):
    document = copy.deepcopy(example("item"))
    document["assets"]["latent"]["latent:space"] = text
    assert ("assets/latent/latent:space", "pattern") in [(p, k) for p, k, _ in reject(document)]
