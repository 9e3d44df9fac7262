"""The server behind the page: who is answered, what is answered, and what it never does."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import quote

import pytest
from openapi_spec_validator import validate

from isoloss.errors import BadRequest
from isoloss.report.server.guard import check_token, is_loopback
from isoloss.report.server.launch import serve
from isoloss.report.server.runs import Runs
from isoloss.store import Store
from isoloss.store.limited_sql import ask, check
from isoloss.studies.comparison.comparing import compare
from readme import ROOT
from report import stores
from report.serving import client, command, served, until

TOKEN = "a-word-that-nobody-guesses"
RUN = "/runs/trained"


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return stores.trained(tmp_path_factory.mktemp("kept") / "trained").path


@pytest.fixture(scope="module")
def address(kept, tmp_path_factory):
    hostile = stores.hostile(tmp_path_factory.mktemp("hostile") / "..hostile & <b>")
    with served(kept, hostile.path) as where:
        yield where


@pytest.fixture
def web(address):
    with client(address) as one:
        yield one


# ---- what is answered


def test_the_description_is_valid_and_lists_every_address(web):
    described = web.get("/openapi.json").json()
    validate(described)
    words = ["status", "page-data", "checkpoints", "measurements", "failures", "figures", "compare",
             "sql", "words", "figures/{figure}"]  # fmt: skip
    assert set(described["paths"]) == {
        "/", "/docs", "/api/runs", "/runs/{run}/", *(f"/runs/{{run}}/api/{w}" for w in words),
    }  # fmt: skip
    assert all(set(methods) == {"get"} for methods in described["paths"].values())
    listed = web.get("/docs").text
    assert all(path in listed for path in described["paths"])


def test_rows_are_those_of_the_store_a_part_at_a_time(web, kept):
    table = Store(kept).measurements().collect()
    got = []
    while len(got) < table.height:
        part = web.get(f"{RUN}/api/measurements", params={"limit": 50, "offset": len(got)}).json()
        assert part["total"] == table.height and 0 < len(part["rows"]) <= 50
        got += part["rows"]
    for name in ("family", "model", "step", "probe", "subject", "metric", "value", "stderr", "n"):
        assert [row[name] for row in got] == table[name].to_list()
    assert {row["checkpoint"] for row in got} == {
        f"{model}@{step}" for model in ("small", "large") for step in (10, 100, 1000)
    }
    where = {"run": "small", "step": 100, "metric": "accuracy", "subject": "piqa"}
    few = web.get(f"{RUN}/api/measurements", params=where).json()
    assert [(row["num_fewshot"], row["value"]) for row in few["rows"]] == [(0, 0.57), (5, 0.61)]


def test_checkpoints_failures_and_figures_are_those_of_the_page(web):
    rows = web.get(f"{RUN}/api/checkpoints").json()["rows"]
    assert [row["name"] for row in rows][:2] == ["large@10", "large@100"]
    assert [row["name"] for row in rows if row["is_flagged"]] == ["large@1000"]
    (failure,) = web.get(f"{RUN}/api/failures").json()["rows"]
    assert failure["remedy"] == "export it again"
    listed = web.get(f"{RUN}/api/figures").json()
    assert [one["title"] for one in listed["figures"] if one["id"].startswith("series")] == [
        "coin", "hidden_state of language", "piqa", "piqa",
    ]  # fmt: skip
    drawn = web.get(f"{RUN}/api/figures/series-2", params={"x": "step", "metric": "brier_sum"})
    points = {point["checkpoint"]: point for point in drawn.json()["rows"]}
    assert points["small@100"] == {
        "checkpoint": "small@100", "run": "small", "x": 100.0, "y": 0.49,
        "stderr": pytest.approx(0.01), "is_flagged": False, "is_unfinished": True,
    }  # fmt: skip
    curve = web.get(f"{RUN}/api/figures/curve-0").json()
    assert len(curve["rows"]) == 6 and curve["x"].startswith("training tokens")


def test_page_data_is_what_the_page_embeds_and_comes_once(web):
    answer = web.get(f"{RUN}/api/page-data")
    html = web.get(f"{RUN}/").text
    assert answer.json() == stores.embedded(html)
    version = answer.headers["etag"]
    assert web.get(f"{RUN}/api/status").json()["page"] == version.strip('"')
    again = web.get(f"{RUN}/api/page-data", headers={"if-none-match": version})
    assert (again.status_code, again.content) == (304, b"")
    words = web.get(f"{RUN}/api/words").text
    assert html.startswith(words) and "vegaEmbed" not in words and len(words) < 200_000


def test_two_checkpoints_are_compared_as_the_command_does(web, kept):
    found = compare(Store(kept), "small@10", "large@100")
    got = web.get(f"{RUN}/api/compare", params={"a": "small@10", "b": "large@100"}).json()
    tasks = {(row["task"], row["setting"]): row for row in got["rows"]}
    for one in found.tasks:
        row = tasks[one.task, one.setting]
        assert (row["difference"], row["low"], row["high"], row["n"]) == (
            one.difference.difference, one.difference.low, one.difference.high, one.difference.n
        )  # fmt: skip
    assert tasks["coin", found.tasks[0].setting]["verdict"] == "undetermined"
    assert tasks["piqa", "num_fewshot 0"]["verdict"] == "b is higher"


# ---- what cannot be answered


@pytest.mark.parametrize(
    ("path", "status", "what"),
    [
        ("/runs/nobody/", 404, "no run of this name"),
        ("/runs/..%2f..%2fetc/api/status", 404, "Not Found"),
        ("/runs/%2e%2e/api/status", 404, ""),
        ("/nowhere", 404, "Not Found"),
        (f"{RUN}/api/figures/series-99", 404, "no figure"),
        (f"{RUN}/api/figures/series-0?x=moon", 422, "no checkpoint has a place"),
        (f"{RUN}/api/checkpoints?limit=0", 422, "greater than or equal to 1"),
        (f"{RUN}/api/measurements?step=abc", 422, "valid integer"),
        (f"{RUN}/api/compare?a=small@10", 422, "query.b"),
        (f"{RUN}/api/compare?a=small@10&b=small@11", 404, "no checkpoint at this step"),
        (f"{RUN}/api/compare?a=small@10&b=small@10", 422, "same weights"),
        (f"{RUN}/api/sql?query=DROP+TABLE+cells", 422, "only SELECT"),
        (f"{RUN}/api/sql?query=SELECT+nothing+FROM+cells", 422, "cannot be answered"),
    ],
)
def test_a_wrong_request_is_told_in_four_parts(web, path, status, what):
    answer = web.get(path)
    told = answer.json()
    assert answer.status_code == status and what in told["what"]
    assert set(told) == {"error", "what", "asked", "nearest", "remedy"} and told["remedy"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_get_is_answered(web, method):
    answer = web.request(method, f"{RUN}/api/status")
    assert answer.status_code == 405 and answer.json()["remedy"]
    assert "access-control-allow-origin" not in answer.headers


# ---- queries


def test_a_query_gives_rows_up_to_its_limit(web):
    words = {"query": "SELECT step, value FROM measurements WHERE metric = 'brier_sum'", "limit": 4}
    got = web.get(f"{RUN}/api/sql", params=words).json()
    assert len(got["rows"]) == 4 and got["is_cut"] and set(got["rows"][0]) == {"step", "value"}
    odd = web.get(f"{RUN}/api/sql", params={"query": "SELECT LN(-1.0) AS nothing"}).json()
    assert odd == {"rows": [{"nothing": None}], "is_cut": False}


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM READ_PARQUET ('x')",
        'SELECT * FROM "read_json"(\'/etc/passwd\')',
        "WITH a AS (SELECT * FROM read_ndjson('x')) SELECT * FROM a",
        "SELECT /* */ 1 UNION SELECT * FROM/**/read_ipc('x')",
        "SHOW TABLES", "DELETE FROM cells", "CREATE TABLE t AS SELECT 1", "EXPLAIN SELECT 1", "",
        "SELECT 1" + " " * 30_000,
    ],
)  # fmt: skip
def test_no_query_reads_a_file_or_is_anything_but_a_select(statement):
    with pytest.raises(BadRequest):
        check(statement)


def test_two_statements_are_refused(kept):
    with pytest.raises(BadRequest, match="only one"):
        ask(kept, "SELECT 1; SELECT 2", most=1)


def test_a_query_that_takes_too_long_is_ended(kept):
    joins = ", ".join(f"measurements m{i}" for i in range(7))
    started = time.monotonic()
    with pytest.raises(BadRequest, match="was ended"):
        ask(kept, f"SELECT count(*) AS n FROM {joins}", most=1, seconds=3)
    assert time.monotonic() - started < 30


# ---- who is answered


def test_every_answer_keeps_other_sites_out(web):
    for path in ("/", "/docs", f"{RUN}/", f"{RUN}/api/status", "/nowhere", "/openapi.json"):
        headers = web.get(path, headers={"origin": "https://evil.example"}).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["referrer-policy"] == "no-referrer"
        assert not any(name.startswith("access-control") for name in headers)


@pytest.mark.parametrize(
    ("host", "status"),
    [("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example:80", 421),
     ("", 421), ("localhost", 200), ("LOCALHOST:8417", 200), ("127.0.0.1:1", 200),
     ("[::1]:9", 200)],
)  # fmt: skip
def test_a_name_bound_to_this_machine_from_outside_is_refused(web, host, status):
    answer = web.get(f"{RUN}/api/status", headers={"host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("site", "mode", "to", "status"),
    [("cross-site", "no-cors", "image", 403), ("cross-site", "cors", "empty", 403),
     ("same-site", "cors", "empty", 403), ("cross-site", "navigate", "iframe", 403),
     ("cross-site", "navigate", "document", 200), ("same-origin", "cors", "empty", 200),
     ("none", "navigate", "document", 200)],
)  # fmt: skip
def test_a_page_of_another_site_may_link_here_and_no_more(web, site, mode, to, status):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": to}
    assert web.get(f"{RUN}/api/status", headers=headers).status_code == status


def test_with_a_token_nobody_is_answered_without_it(kept, capfd):
    html = {"accept": "text/html"}
    with served(kept, token=TOKEN) as where, client(where) as web:
        for path in ("/", f"{RUN}/", f"{RUN}/api/status", "/openapi.json", "/nowhere"):
            assert web.get(path).status_code == 401
            for word in ("x", TOKEN[:-1], TOKEN + "x", "\u00e9"):
                bearer = {"authorization": f"Bearer {word}".encode()}
                assert web.get(path, headers=bearer).status_code == 401
                assert web.get(path, params={"token": word}).status_code == 401
                web.cookies.clear()
        denied = web.get("/", headers=html)
        assert denied.status_code == 401 and "password" in denied.text
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert web.get(f"{RUN}/api/status", headers=bearer).status_code == 200

        first = web.get(f"{RUN}/?token={TOKEN}&x=1%202", headers=html)
        assert first.status_code == 303 and first.headers["location"] == f"{RUN}/?x=1+2"
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and TOKEN not in cookie
        assert web.get(f"{RUN}/").status_code == 200  # by the cookie
        port = where.rpartition(":")[2]
        web.cookies.jar.clear()
        forged = {"cookie": f"isoloss-{port}={TOKEN}"}
        assert web.get(f"{RUN}/", headers=forged).status_code == 401
        away = web.get(f"{where}//evil.example/?token={TOKEN}")
        assert away.headers["location"].startswith("/evil.example")
    assert TOKEN not in "".join(capfd.readouterr())


def test_a_token_that_can_be_guessed_is_refused():
    for word in ("", "short", "fifteen-letters", "long enough but with spaces", "\u00e9" * 20):
        with pytest.raises(BadRequest, match="guessed"):
            check_token(word)
    assert check_token(TOKEN) == TOKEN


def test_loopback_is_known():
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.org", ""):
        assert not is_loopback(host)


# ---- several runs


def test_several_runs_stand_side_by_side_under_names_of_their_own(kept, tmp_path):
    for folder in ("a/run", "b/run", "c/ru n <i>"):
        shutil.copytree(kept, tmp_path / folder)
    runs = Runs([tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "c"])
    names = list(runs.all())
    assert names[:2] == ["run", "run-2"] and len(names) == 3
    assert all(quote(name, safe="") == name for name in names)
    with served(tmp_path / "a", tmp_path / "b", tmp_path / "c") as where, client(where) as web:
        listed = web.get("/").text
        assert "ru n &lt;i&gt;" in listed and "<i>" not in listed
        for name in names:
            assert f'href="/runs/{name}/"' in listed
            assert web.get(f"/runs/{name}/api/status").json()["cells"] == 36
        shutil.copytree(kept, tmp_path / "c" / "late")  # a run that begins later
        assert "late" in [run["run"] for run in web.get("/api/runs").json()["runs"]]


def test_one_run_alone_is_shown_at_once(kept):
    with served(kept) as where, client(where) as web:
        assert web.get("/").headers["location"] == f"{RUN}/"
        assert web.get("/runs/trained").status_code in (307, 308)


def test_a_run_of_another_process_is_seen_while_it_goes_on(kept, studio, tmp_path):
    shutil.copytree(kept, tmp_path / "runs" / "trained")
    words = ["run", studio / "study.toml", "--out", tmp_path / "runs" / "new", "--quiet"]
    with served(tmp_path / "runs") as where, client(where) as web:
        seen = []
        with subprocess.Popen([sys.executable, "-m", "isoloss.cli", *map(str, words)]) as process:
            while process.poll() is None:
                seen += [one for one in web.get("/api/runs").json()["runs"] if one["run"] == "new"]
        assert process.returncode == 0
        running = [one for one in seen if one["state"] == "running"]
        assert running and all(one["total"] == 24 for one in running if one["done"] is not None)
        assert running[-1]["processes"][0]["process"] == process.pid
        done = until(
            lambda: next((one for one in web.get("/api/runs").json()["runs"]
                          if one["run"] == "new" and one["cells"] == 24 + 4), None)
        )  # fmt: skip
        assert (done["state"], done["failed"], done["pending"]) == ("idle", 0, None)
        assert done["tokens_per_second"] > 0


# ---- stores that are damaged, half-written, gone


def test_a_store_that_is_damaged_keeps_its_last_page_and_tells_why(kept, tmp_path):
    store = shutil.copytree(kept, tmp_path / "trained")
    with served(store) as where, client(where) as web:
        before = web.get(f"{RUN}/").text
        table = store / "checkpoints.parquet"
        whole = table.read_bytes()
        table.write_bytes(whole[: len(whole) // 2])
        (store / "measurements" / "task_score" / ("0" * 32 + ".parquet")).write_bytes(b"PAR1 half")

        def told():
            return web.get(f"{RUN}/api/status").json()["problem"]

        problem = until(told)
        assert problem["error"] == "BadStore" and problem["remedy"]
        assert web.get(f"{RUN}/").text == before
        assert web.get(f"{RUN}/api/failures").status_code in (200, 503)
        table.write_bytes(whole)
        (store / "measurements" / "task_score" / ("0" * 32 + ".parquet")).unlink()
        until(lambda: told() is None)
        shutil.rmtree(store)
        until(told)
        assert web.get(f"{RUN}/").text == before


def test_a_store_that_was_never_readable_is_waited_for(kept, tmp_path):
    store = shutil.copytree(kept, tmp_path / "trained")
    table = store / "checkpoints.parquet"
    whole = table.read_bytes()
    table.write_bytes(b"")
    with served(store) as where, client(where) as web:
        waiting = web.get(f"{RUN}/")
        assert waiting.status_code == 503 and "cannot be shown yet" in waiting.text
        assert web.get(f"{RUN}/api/page-data").json()["error"] == "BadStore"
        table.write_bytes(whole)
        until(lambda: web.get(f"{RUN}/").status_code == 200)


def test_a_folder_without_a_store_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadRequest, match="there is no store"):
            Runs([folder])


def test_the_laws_come_when_they_were_asked_and_the_page_with_them(kept):
    with served(kept, laws=True) as where, client(where) as web:
        assert web.get(f"{RUN}/api/status").json()["laws"] in (
            "waiting",
            "being asked",
            "up to date",
        )
        until(lambda: web.get(f"{RUN}/api/status").json()["laws"] == "up to date", seconds=120)
        until(lambda: 'id="explained"' in web.get(f"{RUN}/api/words").text)


# ---- the command


def test_the_command_tells_its_address_and_ends_with_ctrl_c(kept):
    with command(kept, "--port", 0, "--no-laws") as process:
        line = process.stdout.readline()
        where = line.split(" at ")[1].split()[0]
        with client(where) as web:
            assert web.get("/runs/trained/api/status").json()["cells"] == 36
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out, errors) == (0, "", "stopped\n")


def test_elsewhere_a_token_is_made_and_told_once(kept):
    with command(kept, "--host", "0.0.0.0", "--port", 0, "--no-laws") as process:
        out, told = process.stdout.readline(), process.stderr.readline()
        port = out.split(" at ")[1].split()[0].strip("/").rpartition(":")[2]
        word = told.strip().partition("?token=")[2]
        assert len(word) >= 40 and word not in out
        with client(f"http://127.0.0.1:{port}") as web:
            assert web.get("/").status_code == 401
            assert web.get("/runs/trained/api/status", params={"token": word}).status_code == 303
            web.get("/nowhere", params={"token": word})
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        assert word not in out + errors
    assert not any(
        word.encode() in file.read_bytes() for file in kept.rglob("*.*") if file.is_file()
    )


def test_a_port_that_is_taken_names_the_next_free_one(kept):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadRequest, match="another program listens") as error:
            serve(Runs([kept]), port=port)
        assert int(error.value.nearest.split()[1]) > port
        assert f"--port {port}" in error.value.asked


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 99999), ("127.0.0.1", -1), ("203.0.113.1", 0), ("no host", 0)]
)
def test_an_address_that_cannot_be_had_is_one_clear_error(kept, host, port):
    with pytest.raises(BadRequest) as error:
        serve(Runs([kept]), host=host, port=port, token=TOKEN)
    assert error.value.remedy


def test_a_token_out_of_a_file_and_wrong_words(kept, tmp_path):
    file = tmp_path / "token.txt"
    file.write_text(f"{TOKEN}\n")
    with command(kept, "--token-file", file, "--port", 0, "--no-laws") as process:
        where = process.stdout.readline().split(" at ")[1].split()[0]
        with client(where) as web:
            assert web.get("/").status_code == 401
            bearer = {"authorization": f"Bearer {TOKEN}"}
            assert web.get("/api/runs", headers=bearer).status_code == 200
    with command(kept, "--token", "short", "--port", 0) as process:
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 2 and "guessed" in errors and "try:" in errors


def test_nothing_is_written_into_a_store_that_is_served(kept, tmp_path):
    store = shutil.copytree(kept, tmp_path / "trained")
    before = {file: file.stat().st_mtime_ns for file in store.rglob("*")}
    for file in store.rglob("*"):
        os.chmod(file, 0o555 if file.is_dir() else 0o444)
    with served(store) as where, client(where) as web:
        for path in ("", "api/status", "api/page-data", "api/measurements", "api/failures"):
            assert web.get(f"{RUN}/{path}").status_code == 200
        assert web.get(f"{RUN}/api/compare?a=small@10&b=large@100").status_code == 200
        assert web.get(f"{RUN}/api/sql?query=SELECT+1+AS+a").json()["rows"] == [{"a": 1}]
    assert {file: file.stat().st_mtime_ns for file in store.rglob("*")} == before


# ---- the documentation


def test_the_programs_of_the_documentation_run(kept, tmp_path):
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    asks, serves = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    shutil.copytree(kept, tmp_path / "RUN")
    with served(tmp_path / "RUN") as where:
        told = subprocess.run(
            [sys.executable, "-c", asks.replace("http://127.0.0.1:8417", where)],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    assert told.stdout == "RUN idle 36 None\n"
    with subprocess.Popen(
        [sys.executable, "-uc", serves], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        with client(process.stdout.readline().strip()) as web:
            assert web.get("/api/runs").json()["runs"][0]["cells"] == 36
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def test_every_address_and_option_stands_in_the_documentation(web):
    text = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
    for path in web.get("/openapi.json").json()["paths"]:
        if path not in ("/", "/runs/{run}/", "/runs/{run}/api/words"):
            assert path.replace("{run}", "RUN").replace("{figure}", "ID") in text, path
