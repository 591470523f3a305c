"""What `submit` does with the results before anything is in the queue, and what it refuses."""

from __future__ import annotations

import orjson
import pytest

import s1batch
from s1batch.errors import ConflictError, LockedError, UsageError
from s1batch.execution import RunOptions
from s1batch.jobfile import load_job
from s1batch.plan_store import PlanStore
from s1batch.results.compaction import compact
from s1batch.results.layout import Layout
from s1batch.slurm.readying import check_results, make_ready
from s1batch.slurm.spec import SubmissionSpec
from s1batch.slurm.submitting import SubmitOptions, _with_nodes
from s1batch.stopping import Stop
from tests.slurm.fake import FakeSlurm, task
from tests.slurm.prepared import prepared, submitted
from tests.slurm.specs import spec


@pytest.fixture
def said() -> list[str]:
    return []


def made_ready(job, said, slurm=None, **options):
    make_ready(load_job(job), SubmitOptions(shards=8, **options), slurm or FakeSlurm(), said.append, Stop())


def test_the_plan_can_be_made_before_anything_is_submitted(job, said):
    made_ready(job, said, plan=True)
    assert said == ["planned 16 chunks in 8 parts, 16 of them to be asked"]
    assert PlanStore(job.parent / "out").parts() == 8
    assert prepared(job, FakeSlurm(), shards=20).spec.arrays[0].shards == tuple(range(8)), "empty shards are left out"


def test_new_files_join_the_plan_once_and_only_their_shards_are_submitted(job, said):
    s1batch.run(job)
    names = job.parent / "names.csv"
    (job.parent / "more.csv").write_text("name\nm16\nm17\nm18\n")
    assert prepared(job, FakeSlurm()) is None
    job.write_text(job.read_text().replace("path: names.csv", "path: '*.csv'"))
    with pytest.raises(ConflictError, match="source"):
        check_results(load_job(job), job.parent / "out", said.append)
    job.write_text(job.read_text().replace("path: '*.csv'", "path: names.csv"))
    names.write_text(names.read_text() + "m16\nm17\nm18\n")
    made_ready(job, said, extend=True)
    assert "added to the plan" in said[-1]
    assert prepared(job, FakeSlurm(), extend=True).spec.extended
    made_ready(job, said, extend=True)
    assert said[-1] == "no chunk is missing from the plan"


def test_rows_that_are_asked_again_are_set_free_once(job, said, monkeypatch):
    monkeypatch.setenv("MENDED", str(job.parent / "mended"))
    job.write_text(job.read_text().replace("tests.answers:echo", "tests.slurm.answers:mended"))
    s1batch.run(job)
    assert prepared(job, FakeSlurm()) is None
    made_ready(job, said, retry=("failed",))
    assert said == ["16 rows will be asked again"]
    assert s1batch.open_results(job.parent / "out").scan().collect().height == 0
    made = prepared(job, FakeSlurm(), retry=("failed",))
    assert made.spec.retried == ("failed",)
    assert "--retry" not in made.arrays[0], "tasks that start again would ask again and again"
    (job.parent / "mended").touch()
    assert s1batch.run(job).summary.outcomes == {"ok": 16}
    made_ready(job, said, retry=("failed",))
    assert said[-1] == "no row has such an outcome"


def test_rows_in_files_of_many_parts_are_set_free_as_well(job, said, monkeypatch):
    monkeypatch.setenv("MENDED", str(job.parent / "mended"))
    job.write_text(job.read_text().replace("tests.answers:echo", "tests.slurm.answers:mended"))
    s1batch.run(job)
    assert compact(job.parent / "out").after == 1
    made_ready(job, said, retry=("failed",))
    assert said == ["16 rows will be asked again"]


def test_nothing_is_changed_under_a_submission_that_may_still_run(job, said):
    slurm = FakeSlurm()
    submitted(job, slurm)
    slurm.in_queue = [task("100", 0, "RUNNING")]
    with pytest.raises(LockedError, match="not over yet"):
        made_ready(job, said, slurm, retry=("unparsed",))


def test_results_of_another_job_are_refused_with_the_fields_that_differ(job, said):
    s1batch.run(job, options=RunOptions(limit=1))
    check_results(load_job(job), job.parent / "out", said.append)
    other = load_job(job, ["job.prompt=Is {{ name }} a plant?"])
    with pytest.raises(ConflictError, match=r"job\.prompt: 'Is \{\{ name \}\} a mineral\?' there"):
        check_results(other, job.parent / "out", said.append)
    assert said == []


def test_an_endpoint_need_not_answer_where_a_job_is_submitted(job, said):
    """What only it could tell is not compared; everything else is."""
    s1batch.run(job, options=RunOptions(limit=1))
    run = Layout(job.parent / "out").run
    plain = orjson.loads(run.read_bytes())
    for name in [name for name in plain["answers"] if name.startswith(("engine.", "model."))]:
        del plain["answers"][name]
    run.write_bytes(orjson.dumps(plain))
    text = job.read_text().replace("kind: replay", "kind: http")
    job.write_text(text.replace("function: tests.answers:echo", "urls: ['http://127.0.0.1:9/v1']"))
    with pytest.raises(ConflictError) as refused:
        check_results(load_job(job), job.parent / "out", said.append)
    assert "model." not in str(refused.value)
    assert "engine.model" not in str(refused.value)


def test_a_folder_without_results_is_not_looked_at(job, said):
    check_results(load_job(job), job.parent / "out", said.append)
    assert not (job.parent / "out").exists()


def test_a_specification_of_before_is_read():
    plain = spec().plain()
    for name in ("scheduler", "workers", "extended", "retried"):
        del plain[name]
    assert SubmissionSpec.from_plain(plain, "here") == spec()


@pytest.mark.parametrize(
    ("nodes", "asked", "given"), [(2, None, "2"), (2, "2", "2"), (1, None, None), ("auto", "4", "4"), (None, "3", "3")]
)
def test_tasks_have_the_nodes_that_their_engine_spans(nodes, asked, given, job):
    flags = {} if asked is None else {"nodes": asked}
    assert _with_nodes(flags, spanning(job, nodes)).get("nodes") == given


def test_another_number_of_nodes_than_the_engine_spans_is_refused(job):
    with pytest.raises(UsageError, match=r"--sbatch nodes=3: the job's engine spans 2 \(engine.nodes\)"):
        _with_nodes({"nodes": "3"}, spanning(job, 2))


def spanning(job, nodes):
    """Return a job whose engine spans nodes."""

    class Engine:
        def __init__(self) -> None:
            self.nodes = nodes

    class Spec:
        engine = Engine()

    class Loaded:
        spec = Spec()

    return Loaded()
