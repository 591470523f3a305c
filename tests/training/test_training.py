"""A training from a configuration: it learns, resumes bit for bit, caches features, and its checkpoints serve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from s1batch.cli import main
from s1batch.engine.reference.checkpoint import load_model
from s1batch.engine.reference.identity import NANO, model_folder
from s1batch.engine.reference.training.loop import STATE
from s1batch.engine.reference.vocabulary import nano_config
from s1batch.errors import UsageError
from s1batch.training.configuration import CachedWindows, DataSpec, TrainingSpec, WindowShape, read_training
from s1batch.training.features import FeatureStore
from s1batch.training.training import LOG, train


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a model that is even smaller than nano."""
    nano = nano_config()
    fope = replace(nano.text.fope, num_inv_freq=8)
    config = replace(
        nano,
        text=replace(nano.text, num_hidden_layers=1, hidden_size=32, moe_intermediate_size=8, head_dim=16, fope=fope),
        series=replace(
            nano.series, d_model=32, encoder_layers=1, ts_adapt_out_dim=32, ts_hidden_dim=32, out_hidden_size=32
        ),
        vision=None,
    )
    path = tmp_path_factory.mktemp("small") / "config.json"
    path.write_text(json.dumps(config.to_document()))
    return path


def spec(small: Path, **fields: object) -> TrainingSpec:
    data = fields.pop("data", DataSpec(shapes=(WindowShape(length_s=8.0),)))
    return TrainingSpec.model_validate(
        {
            "config": small,
            "data": data,
            "steps": 6,
            "batch": 4,
            "live_units": 8,
            "warmup": 2,
            "save_every": 3,
            "report_every": 2,
            "stored": "float32",
            **fields,
        }
    )


@pytest.mark.slow
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(small, tmp_path):
    """Also where a checkpoint holds the mean of the last steps' weights."""
    half = spec(small, averaged=0.5)
    steps: list[dict[str, torch.Tensor]] = []

    def keep(line: str) -> None:
        if line.startswith(("step 5", "step 6")):  # what the step before has saved
            steps.append(torch.load(tmp_path / "whole" / STATE, weights_only=True)["model"])

    whole = train(half.model_copy(update={"save_every": 1, "report_every": 1}), tmp_path / "whole", keep)
    steps.append(torch.load(tmp_path / "whole" / STATE, weights_only=True)["model"])
    told: list[str] = []

    class Stopped(Exception):
        """Stands for a kill between two steps."""

    def stop(line: str) -> None:
        told.append(line)
        if line.startswith("step 5"):
            raise Stopped

    part = half.model_copy(update={"save_every": 4, "report_every": 1})
    with pytest.raises(Stopped):
        train(part, tmp_path / "cut", stop)
    resumed = train(part, tmp_path / "cut", told.append)
    assert "going on behind step 4" in told
    one, two = (load_model(folder).state_dict() for folder in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name, mean in one.items():
        torch.testing.assert_close(mean, sum(each[name] for each in steps) / 3, rtol=1e-4, atol=1e-6)
    with pytest.raises(UsageError, match="another specification"):
        train(half.model_copy(update={"seed": 5}), tmp_path / "cut")


@pytest.mark.slow
def test_losses_fall(small, tmp_path):
    train(spec(small, steps=24, batch=8, report_every=8, learning_rate=3e-3, save_every=24), tmp_path / "out")
    losses = [json.loads(line) for line in (tmp_path / "out" / LOG).read_text().splitlines()]
    assert losses[-1]["text"] < 0.7 * losses[0]["text"]
    assert losses[-1]["pointer"] < losses[0]["pointer"]


@pytest.mark.slow
def test_features_are_computed_once_and_the_patch_stage_stays(small, tmp_path, labelled_folder):
    start = train(spec(small), tmp_path / "start")
    caches = (
        CachedWindows(path=tmp_path / "made.pt", windows=64, seed=1),
        CachedWindows(path=tmp_path / "recorded.pt", windows=32, seed=2, recorded=1.0, share=0.5),
    )
    data = DataSpec(shapes=(WindowShape(length_s=8.0),), recordings=labelled_folder, without_stations=("XX.AAA",))
    second = spec(small, start=str(start), cached=caches, data=data)
    end = train(second, tmp_path / "end")
    before, after = load_model(start).state_dict(), load_model(end).state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not any("encoder_embed" in name for name in moved)
    names = torch.load(tmp_path / "recorded.pt", weights_only=True)["stations"]
    assert "XX.AAA" in names
    store = FeatureStore(tmp_path / "recorded.pt", without={"XX.AAA"})
    assert len(store) == sum(name != "XX.AAA" for name in names)
    changed = second.model_copy(update={"cached": (caches[0].model_copy(update={"seed": 9}), caches[1])})
    with pytest.raises(UsageError, match="other windows"):
        train(changed, tmp_path / "other")


@pytest.mark.slow
def test_a_trained_checkpoint_is_scored_by_the_command_beside_classical_pickers(small, tmp_path, labelled_folder):
    checkpoint = train(spec(small, steps=1, save_every=1), tmp_path / "model")
    assert (tmp_path / "model" / STATE).exists()
    scores = tmp_path / "scores.json"
    command = ["model", "evaluate", str(labelled_folder), "--model", str(checkpoint), "--length", "20"]
    result = CliRunner().invoke(main, [*command, "--windows", "1", "--json", str(scores)])
    assert result.exit_code == 0, result.output
    for name in (checkpoint.name, "ar_pick", "sta_lta", "S = P +"):
        assert f"| {name}" in result.output or name in result.output
    found = json.loads(scores.read_text())
    assert (found["windows"], found["noise_windows"]) == (12, 6)
    result = CliRunner().invoke(main, [*command, "--no-baselines", "--descriptions", "--json", str(scores)])
    assert "earthquake or not" in result.output
    described = json.loads(scores.read_text())["described"]
    assert [each["windows"] for each in described] == [18]
    result = CliRunner().invoke(main, [*command, "--folds", "2"])
    assert result.exit_code == 2
    assert "as many --model" in result.output


def test_a_configuration_file_says_where_it_is_wrong(tmp_path):
    path = tmp_path / "training.yaml"
    path.write_text("steps: 10\ndata: {shapes: [{rate_hz: -1}]}\n")
    with pytest.raises(UsageError, match=r"data\.shapes\.0\.rate_hz"):
        read_training(path)
    path.write_text("steps: 10\ndata: {recordings: labelled}\n")
    assert read_training(path).data.recordings == tmp_path / "labelled"


def test_nano_itself_can_be_trained_on(tmp_path):
    assert read_training(_write(tmp_path, "start: nano\nsteps: 1\n")).start == NANO
    assert model_folder(NANO, Path()).is_dir()


def _write(folder: Path, text: str) -> Path:
    path = folder / "training.yaml"
    path.write_text(text)
    return path
