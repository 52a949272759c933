"""Promises of `lib.privacy`: no secret of an address and no name of a user or a machine gets where others see it."""

import re
from pathlib import Path

import pytest

from lib import privacy
from lib.data.source import SourceError
from lib.data.sources import open_source
from lib.params import ParameterError, Params
from lib.privacy import masked, public, with_secrets, without_secrets

SECRETS = ("s3cret", "0ddSign")
ADDRESSES = [
    "https://anna:s3cret-pw@host/x",
    "HTTPS://anna:s3cret%2Dpw@Host:8080/x",
    "https://s3cret-pw@host/x",
    "https://anna:s3cret-pw/0ddSign/+=@host/x",
    "https://anna:s3cret-pw@0ddSign@host/x@y",
    "https:/anna:s3cret-pw@host/x",
    "https://host/my images/ü?sv=1&sig=0ddSign/+=",
    "https://host/x?X-Amz-Signature=0ddSign/+=&X-Amz-Credential=s3cret-pw",
    "https://host/x?s3cret-pw",
    "https://host/x#access_token=s3cret-pw",
    "https://host/x;token=s3cret-pw",
    "s3://s3cret-pw:0ddSign/+=@bucket/x",
    "s3://bucket/x?versionId=s3cret-pw",
    "simplecache::https://anna:s3cret-pw@host/x.zip",
    "zip://*.parquet::https://anna:s3cret-pw@host/x.zip?token=0ddSign/+=",
]
PLAIN = [
    "",
    "/data/a?b=c@d:e",
    "data/x",
    r"C:\Users\a@b",
    "https://host:8080/a@b/c:d@e",
    "http://[::1]:8080/a@b",
    "file:///data/a:b@c",
    "s3://bucket/part-?.parquet",
    "hf://datasets/some/images@main/**/*.parquet",
    "abfs://container@account.dfs.core.windows.net/x",
]


@pytest.fixture(autouse=True)
def _forgets(monkeypatch):
    monkeypatch.setattr(privacy, "_whole", {})
    monkeypatch.setattr(privacy, "_secrets", set())


@pytest.mark.parametrize("address", ADDRESSES)
def test_settings_hold_an_address_without_its_secrets_and_only_this_process_the_rest(address):
    shown = without_secrets(address)
    assert "***" in shown
    assert not any(secret in shown for secret in (*SECRETS, "anna"))
    assert without_secrets(shown) == masked(shown) == shown
    assert with_secrets(shown) == address
    privacy._whole.clear()
    assert with_secrets(shown) == ""
    assert with_secrets(shown, "https://other/x?sig=1") == ""
    assert with_secrets(shown, address) == address


@pytest.mark.parametrize("address", PLAIN)
def test_an_address_without_secrets_stays_as_it_is(address):
    assert without_secrets(address) == masked(address) == with_secrets(address) == address


@pytest.mark.parametrize("address", [address for address in ADDRESSES if " " not in address])
@pytest.mark.parametrize(
    "text", ["401, url='{}'", '{{"url": "{}"}}', "({}): log in.", "a {}\n", "<td>{}</td>", "  at {}, line 3"]
)
def test_an_address_loses_its_secrets_in_any_text_whether_it_was_met_before_or_not(text, address):
    shown = masked(text.format(address))
    assert not any(secret in shown for secret in SECRETS)
    before, after = text.format("https://host/").split("https://host/")
    assert shown.startswith(before)
    assert shown.endswith(after) or after[0] in shown


def test_a_secret_that_was_met_is_masked_where_it_stands_alone_in_each_way_of_writing_it():
    without_secrets("https://anna:s3cret-pw@host/x?sig=0ddSign%2F%2B")
    for text in ("with url: /x?a=1&b=s3cret-pw (", "BasicAuth(password='s3cret-pw')", "0ddSign/+", "0ddSign%2F%2B"):
        assert not re.search("s3cret|0dd", masked(text))


def test_a_secret_that_is_an_ordinary_word_or_number_does_not_take_it_from_other_texts():
    without_secrets("https://normal:images@host/x?expires=3600&date=2024-05-01")
    assert masked("3600 normal images of 2024-05-01") == "3600 normal images of 2024-05-01"


def test_what_is_no_secret_in_an_address_stays_in_other_texts():
    without_secrets("s3://anna:s3cret-pw@bucket/part-?.parquet")
    assert masked("a.parquet of bucket") == "a.parquet of bucket"


def test_an_address_that_is_quoted_in_another_is_masked_too():
    assert masked("see next=https%3A%2F%2Fanna%3As3cret%40host%2Fx") == "see next=https%3A%2F%2F***@host%2Fx"


@pytest.mark.parametrize("name", ["data_dir", "keep_in", "run_dir", "seed", "data_dri", "methods"])
@pytest.mark.parametrize("address", [address for address in ADDRESSES if "://" in address])
def test_settings_show_no_secret_whether_they_are_taken_or_refused(name, address):
    try:
        shown = str(Params(source="stream", **{"data_dir": "x", name: address}).model_dump())
    except ParameterError as error:
        shown = str(error)
    assert "***" in shown
    assert not any(secret in shown for secret in (*SECRETS, "anna"))


def test_a_long_value_is_masked_before_it_is_shortened():
    with pytest.raises(ParameterError) as refusal:
        Params(data_dri=f"https://anna:{'s3cret-pw' * 100}@host/x")
    assert "s3cret" not in str(refusal.value)


def test_the_error_of_an_address_whose_secrets_are_nowhere_says_where_to_give_them(tmp_path, monkeypatch):
    monkeypatch.delenv("IMGAE_DX_DATA_DIR", raising=False)
    shown = Params(source="stream", data_dir="https://anna:***@host/x")
    with pytest.raises(SourceError, match=r"data_dir=https://\*\*\*@host/x lacks its secrets.* IMGAE_DX_DATA_DIR to"):
        open_source(shown, tmp_path)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in /project/runs/x, /project and /project/", "in runs/x, . and ."),
        ("/home/anna/x-rays/normal/1.png:", "~/x-rays/normal/1.png:"),
        ("it is /home/anna.", "it is ~."),
        ("File \x1b[32m/home/anna/a b/c.py\x1b[0m:3", "File \x1b[32m~/a b/c.py\x1b[0m:3"),
        ("/mnt/My Data/ü is odd", "…/ü is odd"),
        ("/tmp/imgae-x/lib/a.py:12", "…/a.py:12"),
        ("/home/ben/data/x and /home/ben", "…/x and …"),
        ("'/Users/ben'", "'…'"),
        (r"C:\Users\Ben Smith\x\y.png", "…/y.png"),
        (r"'C:\\Users\\Ben\\x.py'", "'…/x.py'"),
        ("file:///home/anna/x", "file://~/x"),
        (
            "normal/abnormal 1/2/3 </td></tr> https://a/home/anna/x",
            "normal/abnormal 1/2/3 </td></tr> https://a/home/anna/x",
        ),
        ("data:image/png;base64,/9j/4AA/x", "data:image/png;base64,/9j/4AA/x"),
        ("on gpu-box-7 and gpu-box-72", "on this machine and gpu-box-72"),
    ],
)
def test_what_others_see_has_no_absolute_path_and_no_name(monkeypatch, text, shown):
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setattr("socket.gethostname", lambda: "gpu-box-7")
    places = ["/mnt/My Data/ü", "runs/x"]
    assert public(text, Path("/project"), places) == shown
    assert public({"a": [text, 3, None]}, Path("/project"), places) == {"a": [shown, 3, None]}
