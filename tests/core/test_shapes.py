"""What looks like a credential is cut out of what is logged; all else stays."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core.shapes import SHAPES, shapes_in, without_shapes

# Put together here, so that nobody who looks for credentials finds them in this file.
EXAMPLES = {
    "anthropic-key": "sk-" + "ant-api03-" + "x" * 40,
    "github-token": "gh" + "p_" + "A" * 36,
    "github-fine-grained-token": "github" + "_pat_" + "B" * 82,
    "aws-key": "AKIA" + "IOSFODNN7EXAMPLE" + ":" + "w" * 40,
    "slack-token": "xox" + "b-1234567890-abcdefghij",
    "stripe-key": "sk" + "_live_" + "c" * 24,
    "google-key": "AI" + "za" + "d" * 35,
    "private-key": "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIE" + "e" * 60 + "\n-----END RSA PRIVATE KEY-----",
    "jwt": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJ" + "zdWIiOiJtZSJ9.c2lnbmF0dXJl",
    "npm-token": "npm" + "_" + "f" * 36,
}


@pytest.mark.parametrize("shape", EXAMPLES)
def test_each_shape_is_cut_out(shape: str) -> None:
    text = f"before {EXAMPLES[shape]} after"
    assert without_shapes(text) == f"before [redacted {shape}] after"
    assert shapes_in(text) == (shape,)


def test_a_secret_of_aws_goes_with_its_name_beside_it() -> None:
    assert without_shapes(f"AWS_SECRET_ACCESS_KEY={'k' * 40};") == "AWS_SECRET_ACCESS_KEY=[redacted aws-secret];"


def test_a_password_in_an_address_is_cut_out() -> None:
    assert without_shapes("git clone https://me:pass@host/x") == "git clone https://[redacted basic-auth]@host/x"
    assert without_shapes("see https://host:80/a@b and a://b") == "see https://host:80/a@b and a://b"


@pytest.mark.parametrize("shape", EXAMPLES)
def test_json_stays_json(shape: str) -> None:
    said = without_shapes(json.dumps({"a": EXAMPLES[shape], "b": EXAMPLES[shape]}))
    assert json.loads(said) == {"a": f"[redacted {shape}]", "b": f"[redacted {shape}]"}
    broken = json.dumps({"a": "-----BEGIN PRIVATE KEY-----", "b": "://me", "c": ":x@"})
    json.loads(without_shapes(broken))


@given(st.text())
def test_other_text_stays_as_it_is(text: str) -> None:
    if not shapes_in(text):
        assert without_shapes(text) == text


def test_no_text_takes_long() -> None:
    for text in ("eyJ" * 30_000, "://" * 30_000, "AKIA" * 30_000, "-----BEGIN PRIVATE KEY-----" * 3_000, "xox" * 30_000):
        without_shapes(text)


def test_every_shape_has_a_name_of_its_own() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)
