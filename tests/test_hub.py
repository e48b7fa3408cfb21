"""Models of the hub, from a server on this machine that answers as the hub does: every byte once, every file hashed,
the token to the hub alone, and one line for what cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, serve
from published_fixture import write_hf

from cgpt.data import checkpoint_files, download, hub
from cgpt.errors import UserError
from cgpt.spec import Checkpoint, PublishedModel

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
ROW = PublishedModel("theirs", Checkpoint(hub="some/model", revision=COMMIT))
THEIR_CLIENT = """
import sys
from huggingface_hub import HfApi, hf_hub_download
address, folder, commit = sys.argv[1:]
listed = HfApi(endpoint=address).model_info("some/model", revision="main", files_metadata=True)
assert listed.sha == commit and all(file.size and file.blob_id for file in listed.siblings)
for file in listed.siblings:
    hf_hub_download("some/model", file.rfilename, revision=commit, endpoint=address, local_dir=folder)
"""
TOKEN_OF_A_LOGIN = "from cgpt.data import hub; print(hub._token())"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    return write_hf(tmp_path_factory.mktemp("written") / "hf", ["sea land hill", "river cat dog"])


@pytest.fixture
def theirs(written: Path, tmp_path: Path, monkeypatch) -> Path:
    """A folder as transformers has it, beside an empty cache, no mirror, and nobody who is logged in."""
    monkeypatch.setenv("CGPT_CACHE", str(tmp_path / "cache"))
    for name in ("CGPT_DATA_MIRROR", hub.TOKEN, hub.OFFLINE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.setattr(download, "RETRY_WAIT_S", 0.0)
    return shutil.copytree(written, tmp_path / "theirs")


@pytest.fixture
def server(theirs: Path, monkeypatch) -> Iterator[Hub]:
    with serve(Hub({"some/model": (COMMIT, theirs)})) as running:
        monkeypatch.setenv(hub.ENDPOINT, running.address)
        yield running


def fetch(row: PublishedModel = ROW) -> Path:
    checkpoint_files.fetch_config(row, Path())
    return checkpoint_files.fetch_checkpoint(row, Path())


def problem(row: PublishedModel = ROW) -> str:
    """The one line that fetching ends in."""
    with pytest.raises(UserError) as caught:
        fetch(row)
    (line,) = caught.value.problems
    assert ": models.theirs.checkpoint" in line
    return line


def same(folder: Path, theirs: Path) -> bool:
    names = checkpoint_files.needed(path.name for path in theirs.iterdir())
    assert "model.safetensors" in names and "tokenizer.json" in names
    return all((folder / name).read_bytes() == (theirs / name).read_bytes() for name in names)


def environment(**variables: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("HF_")} | variables


def test_the_servers_answers_are_those_that_the_hubs_own_client_reads(server, theirs, tmp_path):
    done = subprocess.run([sys.executable, "-c", THEIR_CLIENT, server.address, str(tmp_path / "out"), COMMIT],
                          env=environment(HF_TOKEN=TOKEN, HF_HOME=str(tmp_path), HF_HUB_DISABLE_TELEMETRY="1"),
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert same(tmp_path / "out", theirs)
    assert {each.authorization for each in server.of("hub")} == {f"Bearer {TOKEN}"}
    assert {each.authorization for each in server.of("second")} == {None}


def test_the_token_is_shown_to_the_hub_and_not_to_the_host_that_it_leads_to(server, theirs, monkeypatch):
    monkeypatch.setenv(hub.TOKEN, f" {TOKEN}\n")
    assert same(fetch(), theirs)
    assert {each.authorization for each in server.of("hub")} == {f"Bearer {TOKEN}"}
    assert [each.authorization for each in server.of("second")] == [None]


def test_the_token_wins_over_a_password_that_netrc_has_for_the_hub(server, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password of-git\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv(hub.TOKEN, TOKEN)
    fetch()
    assert {each.authorization for each in server.of("hub")} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("token", ["hf_a\nX-Other: 1", "hf_ä", "hf a"])
def test_what_is_no_token_is_one_line_that_does_not_show_it(server, monkeypatch, token):
    monkeypatch.setenv(hub.TOKEN, token)
    with pytest.raises(UserError) as caught:
        fetch()
    assert str(caught.value) == "environment: HF_TOKEN: holds a character that no token has; copy the token alone"
    assert not server.asked


def test_the_token_of_a_login_is_used_where_none_is_set(tmp_path):
    (tmp_path / "token").write_text("hf_of_a_login\n")
    for variables, token in (({}, "hf_of_a_login"), ({"HF_TOKEN": "hf_set"}, "hf_set")):
        done = subprocess.run([sys.executable, "-c", TOKEN_OF_A_LOGIN], capture_output=True, text=True,
                              env=environment(HF_HOME=str(tmp_path), **variables))  # fmt: skip
        assert done.stdout == f"{token}\n", done.stderr


def test_config_json_is_asked_for_first_and_alone_and_what_is_here_is_not_asked_for_again(server, theirs):
    checkpoint_files.fetch_config(ROW, Path())
    assert [each.path.rpartition("/")[2] for each in server.asked] == [f"{COMMIT}?blobs=true", "config.json"]
    assert same(fetch(), theirs) and len(server.of("hub", "/config.json")) == len(server.of("hub", "/api/")) == 1
    n_asked = len(server.asked)
    assert same(fetch(), theirs) and len(server.asked) == n_asked


def test_a_connection_that_breaks_off_again_and_again_costs_no_byte_twice(server, theirs, monkeypatch):
    monkeypatch.setattr(download, "BLOCK_BYTES", 1000)
    server.cuts += [1000, 3000, 1000, 2000, 1500]  # more often than a download that brings nothing is tried
    assert len(server.cuts) > download.TRIES and same(fetch(), theirs)
    sent = server.of("second", "model.safetensors")
    assert [each.range for each in sent] == [None, *(f"bytes={n}-" for n in (1000, 4000, 5000, 7000, 8500))]
    assert sum(each.sent for each in sent) == (theirs / "model.safetensors").stat().st_size


def test_what_a_stopped_fetch_has_is_kept_and_the_next_goes_on_after_it(server, theirs, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    server.cuts.append(5000)
    assert "/some/model/resolve/" in (line := problem()) and "cannot be reached" in line and "connect to the" in line
    assert same(fetch(), theirs)
    assert sum(each.sent for each in server.of("second")) == (theirs / "model.safetensors").stat().st_size


def test_a_file_that_came_whole_before_the_stop_is_not_sent_again(server, theirs):
    checkpoint_files.fetch_config(ROW, Path())
    part = Path(os.environ["CGPT_CACHE"]) / f"checkpoints/some/model/{COMMIT}/model.safetensors.part"
    part.write_bytes((theirs / "model.safetensors").read_bytes())
    assert same(fetch(), theirs) and sum(each.sent for each in server.of("second")) == 0


def test_what_is_kept_of_another_content_is_found_out_by_the_hash_and_fetched_anew_the_next_time(server, theirs):
    checkpoint_files.fetch_config(ROW, Path())
    part = Path(os.environ["CGPT_CACHE"]) / f"checkpoints/some/model/{COMMIT}/model.safetensors.part"
    part.write_bytes(b"another")
    assert "model.safetensors: its hash is" in problem()
    assert same(fetch(), theirs)


def test_a_host_that_gives_no_parts_is_read_from_the_beginning_in_the_same_answer(server, theirs):
    server.ignores_ranges, server.cuts = True, [5000]
    assert same(fetch(), theirs) and len(server.of("second")) == 2


def test_an_answer_of_trouble_loses_nothing_that_is_here(server, theirs, monkeypatch):
    monkeypatch.setattr(download, "TRIES", 1)
    checkpoint_files.fetch_config(ROW, Path())
    server.cuts.append(5000)
    problem()
    server.troubles = [(503, {})]
    assert "is refused (503 Service Unavailable)" in problem()
    assert same(fetch(), theirs) and server.of("second")[-1].range == "bytes=5000-"


@pytest.mark.parametrize("headers", [{"Retry-After": "7"}, {"RateLimit": '"resolvers";r=0;t=7'}], ids=str)
def test_a_server_that_asks_for_patience_gets_it_and_for_too_much_one_line(
    server, theirs, monkeypatch, capsys, headers
):
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    server.troubles = [(429, headers), (429, headers)]
    assert same(fetch(), theirs) and waits == [7.0, 7.0]
    assert capsys.readouterr().err.count("is refused (429 Too Many Requests); the next try is in 7 s\n") == 2
    monkeypatch.setattr(download, "LONGEST_WAIT_S", 6.0)
    monkeypatch.setenv("CGPT_CACHE", str(theirs.parent / "another"))
    server.troubles = [(429, headers)]
    assert "is refused (429 Too Many Requests); run it again in 7 s, or connect" in problem()


def test_a_server_in_trouble_is_asked_again_and_then_named(server, theirs, monkeypatch):
    server.troubles = [(502, {}), (503, {"Retry-After": "0"})]
    assert same(fetch(), theirs)
    monkeypatch.setenv("CGPT_CACHE", str(theirs.parent / "another"))
    server.troubles = download.TRIES * [(500, {})]
    assert "config.json is refused (500 Internal Server Error); connect to the network, or put its files" in problem()


def test_what_the_hub_does_not_give_is_one_line_that_says_why_and_what_to_do(server, monkeypatch):
    mirror = f"or put its files into some/model/{COMMIT} below the folder that CGPT_DATA_MIRROR names"
    server.closed["some/model"] = "GatedRepo"
    assert "some/model at 607a30d783df cannot be had (its owner gives it to those who accept the terms" in (
        line := problem()
    )
    assert f"accept them at {server.address}/some/model, and set HF_TOKEN to a token" in line and line.endswith(mirror)
    monkeypatch.setenv(hub.TOKEN, "hf_old")
    assert "(the hub does not know the token); set HF_TOKEN to another" in problem()
    monkeypatch.setenv(hub.TOKEN, TOKEN)
    absent = PublishedModel("theirs", Checkpoint(hub="some/absent", revision=COMMIT))
    assert "(there is no such model, or it is private); correct `hub:`, or set HF_TOKEN" in problem(absent)
    monkeypatch.delenv(hub.TOKEN)
    assert "(there is no such model, or it is private); correct `hub:`, or set HF_TOKEN" in problem(absent)
    other = PublishedModel("theirs", Checkpoint(hub="some/model", revision="f" * 40))
    assert "some/model at ffffffffffff cannot be had (it has no such commit); correct `revision:`" in problem(other)


def test_a_file_that_is_listed_and_not_there_is_named(server, theirs):
    checkpoint_files.fetch_config(ROW, Path())
    (theirs / "model.safetensors").unlink()
    assert "model.safetensors: some/model at 607a30d783df cannot be had (it has no such file)" in problem()


@pytest.mark.parametrize("status", [403, 418])
def test_a_refusal_that_has_no_code_of_the_hub_has_its_number_or_is_for_want_of_a_right(server, status):
    server.troubles = [(status, {})]
    assert ("(the token may not read it)" if status == 403 else "(418 I'm a Teapot)") in problem()


def test_a_model_that_was_renamed_is_had_under_its_old_name_with_the_token(server, theirs, monkeypatch):
    monkeypatch.setenv(hub.TOKEN, TOKEN)
    server.moved["model/old"] = "some/model"
    folder = fetch(PublishedModel("theirs", Checkpoint(hub="model/old", revision=COMMIT)))
    assert same(folder, theirs) and {each.authorization for each in server.of("hub")} == {f"Bearer {TOKEN}"}


def test_a_branch_is_resolved_to_its_commit_and_no_other_commit_is_taken_for_the_one_that_is_named(server):
    assert checkpoint_files.resolve_commit("some/model", "main", "pin") == COMMIT
    with pytest.raises(UserError, match="pin: some/model at v9 cannot be had .it has no such commit."):
        checkpoint_files.resolve_commit("some/model", "v9", "pin")
    commit, server.models = "main", {"some/model": ("e" * 40, server.models["some/model"][1])}
    row = PublishedModel("theirs", Checkpoint(hub="some/model", revision=commit))
    assert f"some/model at main is another commit there, {'e' * 40}" in problem(row)


@pytest.mark.parametrize(
    "address",
    ["http://hub.example", "ftp://127.0.0.1", "huggingface.co", "https://", "https://me:pw@hub.example", "http://["],
)
def test_no_address_but_a_safe_one_is_shown_a_token(theirs, monkeypatch, address):
    monkeypatch.setenv(hub.ENDPOINT, address)
    monkeypatch.setenv(hub.TOKEN, TOKEN)
    with pytest.raises(UserError, match="environment: HF_ENDPOINT: is no https address of a host; write one as https"):
        fetch()


def test_the_hubs_address_is_huggingface_co_or_that_of_the_environment(monkeypatch):
    for written, address in (
        ("", hub.HUB),
        ("https://hub.example/", "https://hub.example"),
        ("http://[::1]:8", "http://[::1]:8"),
    ):
        monkeypatch.setenv(hub.ENDPOINT, written)
        assert hub.hub_address() == address


def test_who_is_offline_is_not_connected_and_is_told_so(server, monkeypatch):
    monkeypatch.setenv(hub.OFFLINE, "1")
    assert "cannot be had (HF_HUB_OFFLINE is set); unset it, or put its files" in problem() and not server.asked


def test_an_answer_that_is_no_list_of_files_is_one_line(server, monkeypatch):
    monkeypatch.setattr(
        "hub_server.Handler._listing", staticmethod(lambda *each: b"<html>Sign in to this network</html>")
    )
    assert "does not answer as the hub does; see to HF_ENDPOINT and to what is between it and you" in problem()


def test_a_listing_that_does_not_end_is_given_up(server, monkeypatch):
    monkeypatch.setattr(hub, "LARGEST_LISTING", 100)
    assert "bytes, more than 100" in problem()
