"""Workflows and forms of the hosted service, as far as they can be checked without it."""

import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest

from sklearn_fordes import __version__

yaml = pytest.importorskip("yaml")  # Optuna, Dask and Ray bring it.

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / ".github"
if not SERVICE.exists():
    pytest.skip("The workflows are not here.", allow_module_level=True)

WORKFLOWS = sorted((SERVICE / "workflows").glob("*.yml"))
CHOOSER = SERVICE / "ISSUE_TEMPLATE" / "config.yml"
FORMS = sorted(set(CHOOSER.parent.glob("*.yml")) - {CHOOSER})
WRITTEN = [*WORKFLOWS, *FORMS, CHOOSER, *SERVICE.glob("*.md")]

A_VERSION = re.compile(r"[\w.-]+/[\w./-]+@(v\d+(\.\d+)*|release/v\d+|[0-9a-f]{40})")
A_FILE = re.compile(r"(?<![\w./*-])(?:[\w-]+/)*[\w.-]+\.(?:py|txt|toml|md|cff|yml)(?![\w.])")
OWN_PAGE = re.compile(r"github\.com/sklearn-fordes/sklearn-fordes/(?:blob|tree)/main/([\w./-]+)")


needs_bash = pytest.mark.skipif(os.name == "nt", reason="This system may have no bash.")


def read(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def triggers(workflow):
    return workflow[True]  # YAML 1.1 reads the key "on" as a truth value.


def jobs():
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield path.name, name, job


def steps():
    return [step for *_, job in jobs() for step in job["steps"]]


def values_of_matrix(job, name):
    return job.get("strategy", {}).get("matrix", {}).get(name, [])


def test_there_are_workflows_and_forms():
    assert {path.stem for path in WORKFLOWS} == {"docs", "release", "tests"}
    assert {path.stem for path in FORMS} == {"bug_report", "feature_request", "question"}


def test_all_python_versions_that_we_name_are_tested_on_all_systems():
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    found = [re.fullmatch(r".* :: (3\.\d+)", one) for one in project["classifiers"]]
    named = {match[1] for match in found if match}
    assert named
    job = read(SERVICE / "workflows" / "tests.yml")["jobs"]["newest"]
    tested = values_of_matrix(job, "python")
    assert named <= set(tested)
    assert f">={tested[0]}" == project["requires-python"]
    systems = {one.split("-")[0] for one in values_of_matrix(job, "os")}
    assert systems == {"ubuntu", "macos", "windows"}


def targets_called():
    for *_, job in jobs():
        for step in job["steps"]:
            for words in re.findall(r"^\s*make (.+)$", step.get("run", ""), re.MULTILINE):
                if words == '"$TARGET"':
                    assert step["env"]["TARGET"] == "${{ matrix.target }}"
                    yield from values_of_matrix(job, "target")
                else:
                    yield from words.split()


def test_make_knows_the_targets():
    called = set(targets_called())
    assert {"lint", "typecheck", "test", "test-oldest", "docs", "dist"} <= called
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    patterns = [one.split() for one in re.findall(r"^([^\s:#=][^:=\n]*):(?!=)", makefile, re.M)]
    known = [
        re.compile(re.escape(one).replace("%", "(.+)")) for several in patterns for one in several
    ]
    assert not {one for one in called if not any(rule.fullmatch(one) for rule in known)}


def test_what_make_installs_is_an_extra():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = set(tomllib.load(file)["project"]["optional-dependencies"])
    called = " ".join(targets_called()) + " ".join(step.get("run", "") for step in steps())
    named = set(re.findall(r"\.venv/([\w-]+)\.stamp|\[([\w-]+)\]", called))
    assert {one or other for one, other in named} <= extras


def test_files_that_workflows_name_exist():
    runs = [step["run"] for step in steps() if "run" in step]
    # The release unpacks the source distribution, which has the files of this folder.
    named = {one.removeprefix("unpacked/") for run in runs for one in A_FILE.findall(run)}
    assert {"constraints.txt", "sklearn_fordes/__init__.py", "tests/test_site.py"} <= named
    excluded = [one.get("exclude-paths", []) for one in read(SERVICE / "dependabot.yml")["updates"]]
    named |= {one for several in excluded for one in several}
    named |= {one for path in WRITTEN for one in OWN_PAGE.findall(path.read_text(encoding="utf-8"))}
    assert not {one for one in named if not (ROOT / one).exists()}


def test_links_are_checked_in_a_folder_that_sphinx_can_build():
    (folder,) = {
        found[1]
        for step in steps()
        if (found := re.search(r"sphinx-build .*linkcheck.* ([\w/]+) build/", step.get("run", "")))
    }
    assert (ROOT / folder / "conf.py").exists()


FAKE_SERVICE = """#!/bin/sh
if [ "$2" = list ]; then cat releases/tags; else cat "releases/$3.tar.gz"; fi
"""


def page(text):
    return {"index.html": text, "404.html": text, "_static/versions.json": "[]"}


def put(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def assemble(folder, tags, *, without=()):
    """Run the step that puts the sites of all versions together, with a service that has these."""
    put(folder / "bin", {"gh": FAKE_SERVICE})
    (folder / "bin" / "gh").chmod(0o755)
    put(folder / "build" / "site", page("main"))
    (folder / "docs" / "_static").mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "_static" / "versions.json", folder / "docs" / "_static")
    put(folder / "releases", {"tags": "".join(f"{tag}\n" for tag in tags)})
    for tag in set(tags) - set(without):
        put(folder / "of" / tag, page(tag))
        with tarfile.open(folder / "releases" / f"{tag}.tar.gz", "w:gz") as archive:
            archive.add(folder / "of" / tag, "site")
    (step,) = [one for one in steps() if one.get("name") == "Sites of all versions"]
    assert step["shell"] == "bash"  # The service runs it with these options.
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={**os.environ, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )


@needs_bash
@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ([], {"dev": "main", "stable": "main"}),
        (["v0.2.0"], {"dev": "main", "0.2": "v0.2.0", "stable": "v0.2.0"}),
        (
            ["v0.9.0", "v0.10.0", "v0.2.10", "v0.2.9"],
            {
                "dev": "main",
                "0.2": "v0.2.10",
                "0.9": "v0.9.0",
                "0.10": "v0.10.0",
                "stable": "v0.10.0",
            },
        ),
    ],
    ids=["no release", "one release", "several releases"],
)
def test_each_version_has_its_site(tmp_path, tags, found):
    done = assemble(tmp_path, tags)
    assert done.returncode == 0, done.stderr
    (pages,) = {
        tmp_path / step["with"]["path"]
        for step in steps()
        if step.get("uses", "").startswith("actions/upload-pages-artifact@")
    }
    sites = {path.name: path for path in pages.iterdir() if path.is_dir()}
    assert {name: (path / "index.html").read_text() for name, path in sites.items()} == found
    newest = (ROOT / "docs" / "_static" / "versions.json").read_text(encoding="utf-8")
    for path in sites.values():
        assert (path / "_static" / "versions.json").read_text(encoding="utf-8") == newest
    assert "url=stable/" in (pages / "index.html").read_text()
    assert (pages / "404.html").read_text() == found["stable"]


@needs_bash
def test_no_site_is_lost_because_a_release_has_none(tmp_path):
    done = assemble(tmp_path, ["v0.2.0", "v0.3.0"], without=["v0.2.0"])
    assert done.returncode == 1
    assert "::error::The release v0.2.0 lacks site.tar.gz" in done.stdout


def test_the_site_is_where_make_puts_it():
    assert " docs build/site\n" in (ROOT / "Makefile").read_text(encoding="utf-8")
    runs = "\n".join(step["run"] for step in steps() if "run" in step)
    assert "cp -r build/site build/pages/dev\n" in runs
    assert "tar czf site.tar.gz -C build site\n" in runs


def test_a_release_starts_a_workflow_that_exists():
    (run,) = [one["run"] for one in steps() if "gh workflow run" in one.get("run", "")]
    (started,) = [read(path) for path in WORKFLOWS if f" {read(path)['name']} " in run]
    assert "workflow_dispatch" in triggers(started)


def test_the_switcher_leads_to_folders_of_the_pages():
    text = (ROOT / "docs" / "_static" / "versions.json").read_text(encoding="utf-8")
    for one in json.loads(text):
        is_newest = one.get("preferred", False)
        folder = "stable" if is_newest else ".".join(one["version"].split(".")[:2])
        assert one["url"] == f"https://sklearn-fordes.github.io/sklearn-fordes/{folder}/"
    assert [one["version"] for one in json.loads(text) if "." not in one["version"]] == ["dev"]
    assert sum(one.get("preferred", False) for one in json.loads(text)) == 1


def test_actions_have_a_version():
    used = {step["uses"] for step in steps() if "uses" in step}
    assert not {one for one in used if not A_VERSION.fullmatch(one)}
    # Different versions of one action are a forgotten update.
    assert len({one.split("@")[0] for one in used}) == len(used)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_nothing_but_what_its_jobs_ask_for(path):
    workflow = read(path)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in triggers(workflow)
    assert "cancel-in-progress" in workflow["concurrency"]
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job
        writes = {name for name, access in job["permissions"].items() if access == "write"}
        assert writes <= {"actions", "attestations", "contents", "id-token", "pages"}
        if writes:  # It runs no code of this repository.
            assert not any("checkout" in step.get("uses", "") for step in job["steps"])
            assert all(step.get("run", "gh ").startswith("gh ") for step in job["steps"])
    assert "secrets." not in path.read_text(encoding="utf-8")


def test_no_checkout_leaves_its_token():
    checkouts = [one for one in steps() if one.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(one["with"]["persist-credentials"] is False for one in checkouts)


def test_a_job_waits_for_jobs_that_exist():
    for path in WORKFLOWS:
        known = read(path)["jobs"]
        for job in known.values():
            needs = job.get("needs", [])
            assert {needs} <= set(known) if isinstance(needs, str) else set(needs) <= set(known)


def test_only_tested_files_with_a_provenance_are_uploaded():
    release = read(SERVICE / "workflows" / "release.yml")
    assert triggers(release) == {"push": {"tags": ["v*"]}}
    assert set(release["jobs"]["attest"]["needs"]) == {"build", "test"}
    assert set(release["jobs"]["publish"]["needs"]) == {"attest", "site"}


@needs_bash
@pytest.mark.parametrize(
    ("tag", "returned"),
    [(f"v{__version__}", 0), (__version__, 1), (f"v{__version__}0", 1), ("v", 1)],
)
def test_a_tag_that_is_not_the_version_ends_a_release(tag, returned):
    build = read(SERVICE / "workflows" / "release.yml")["jobs"]["build"]
    (check,) = [one["run"] for one in build["steps"] if one.get("name") == "The tag is the version"]
    done = subprocess.run(
        ["bash", "-e", "-c", check],
        cwd=ROOT,
        env={**os.environ, "GITHUB_REF_NAME": tag},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == returned, done.stderr
    assert ("::error::" in done.stdout) == bool(returned)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_the_service_requires(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    fields = [one for one in form["body"] if one["type"] != "markdown"]
    assert all(one["attributes"]["value"] for one in form["body"] if one["type"] == "markdown")
    assert all(one["attributes"]["label"] for one in fields)
    names = [one["id"] for one in fields]
    assert len(names) == len(set(names))
    assert any(one.get("validations", {}).get("required") for one in fields)
    for one in fields:
        assert one["type"] in {"checkboxes", "dropdown", "input", "textarea"}
        options = one["attributes"].get("options", [])
        assert bool(options) == (one["type"] in {"checkboxes", "dropdown"})
        assert len(set(map(str, options))) == len(options)


def test_whoever_opens_an_issue_chooses_a_form():
    config = read(CHOOSER)
    assert config["blank_issues_enabled"] is False
    assert all(set(one) == {"name", "url", "about"} for one in config["contact_links"])


def test_updates_are_looked_for_in_actions_and_libraries():
    updates = read(SERVICE / "dependabot.yml")
    assert updates["version"] == 2
    found = {one["package-ecosystem"]: one for one in updates["updates"]}
    assert set(found) == {"github-actions", "pip"}
    assert all(one["directory"] == "/" and one["schedule"]["interval"] for one in found.values())
    # The floors are ours to raise.
    assert "constraints-oldest.txt" in found["pip"]["exclude-paths"]
