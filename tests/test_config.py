"""Options come from flags, over a YAML file, over defaults; what is wrong with them is named and ends the program."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest

from recbase_hf.config import option, parse_arguments, part_of


@dataclass(frozen=True)
class Training:
    steps: int = option(10, help="how many")
    rate: float = option(1e-3, help="how fast, 100% of the time")

    def __post_init__(self):
        if self.steps < 0:
            raise ValueError(f"steps is {self.steps}, it must be at least 0")


@dataclass(frozen=True)
class Job(Training):
    output: str = option("runs/a", help="folder")
    freeze: bool = option(False, help="whether to freeze")
    shuffle: bool = option(True, help="whether to shuffle")
    widths: tuple[int, ...] = option((4, 2), help="of the layers")
    data_sets: tuple[str, ...] = option((), help="folders")
    size: str = option("tiny", help="of the model", choices=("tiny", "base"))
    revision: str | None = option(None, help="of the encoder")


@dataclass(frozen=True)
class Needy:
    model_name: str = option(help="a folder or a Hub id")
    k: int = option(3, help="how many")


@dataclass(frozen=True)
class Hungry:
    data: tuple[str, ...] = option(help="folders")


@pytest.fixture
def parse(tmp_path):
    """Parse flags and the text of a YAML file."""

    def of(flags=(), yaml=None, kind=Job):
        flags = list(flags)
        if yaml is not None:
            (tmp_path / "job.yaml").write_text(yaml, encoding="utf-8")
            flags += ["--config", str(tmp_path / "job.yaml")]
        return parse_arguments(kind, flags, program="job", description="")

    return of


@pytest.fixture
def complaint(parse, capsys):
    """What the program says before it ends with the exit status of a usage error."""

    def of(flags=(), yaml=None, kind=Job):
        with pytest.raises(SystemExit) as ended:
            parse(flags, yaml, kind)
        assert ended.value.code == 2
        return capsys.readouterr().err.removeprefix("job: ")

    return of


def test_without_anything_the_defaults_hold(parse):
    assert parse() == Job()


def test_flags_are_converted(parse):
    flags = "--steps 3 --rate 1e-4 --freeze --no-shuffle --widths 8 4 2 --data-sets a b --size base --revision v1"
    expected = Job(3, 1e-4, "runs/a", True, False, (8, 4, 2), ("a", "b"), "base", "v1")
    assert parse(flags.split()) == expected


def test_a_yaml_file_gives_what_the_flags_would(parse):
    yaml = """
        steps: 3
        rate: 1e-4  # a text to YAML, which wants a dot in numbers with an exponent
        freeze: true
        shuffle: no
        widths: [8, 4, 2]
        data_sets: [a, b]
        size: base
        revision: 1.0
    """
    expected = Job(3, 1e-4, "runs/a", True, False, (8, 4, 2), ("a", "b"), "base", "1.0")
    assert parse(yaml=yaml) == expected


def test_a_single_value_makes_a_tuple_of_one(parse):
    assert parse(yaml="data_sets: python-api/packages\nwidths: 5\n") == Job(
        data_sets=("python-api/packages",), widths=(5,)
    )
    assert parse(["--widths", "5"]).widths == (5,)


def test_flags_win_over_yaml_and_yaml_over_defaults(parse):
    yaml = "steps: 3\nfreeze: true\nwidths: [1]\nsize: base\n"
    found = parse(["--steps", "7", "--no-freeze", "--widths", "9", "8"], yaml)
    assert found == Job(steps=7, freeze=False, widths=(9, 8), size="base")


def test_an_empty_file_and_null_values_leave_the_defaults(parse):
    assert parse(yaml="") == Job()
    assert parse(yaml="steps: null\nrevision: ~\nfreeze:\n") == Job()


def test_an_empty_list_is_no_values_and_flags_win_over_it(parse):
    assert parse(yaml="widths: []\ndata_sets: []\n") == Job(widths=())
    assert parse(["--widths", "9"], "widths: []") == Job(widths=(9,))


def test_every_default_written_to_yaml_comes_back(parse):
    import yaml

    values = dataclasses.asdict(Job())
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    assert parse(yaml=yaml.safe_dump(values)) == Job()


def test_a_misspelt_name_gets_the_nearest_right_one(complaint):
    assert "unknown option --stepz; did you mean --steps?" in complaint(["--stepz", "3"])
    assert "unknown option --data_sets=a; did you mean --data-sets?" in complaint(["--data_sets=a"])
    message = complaint(yaml="frezze: true")
    assert "job.yaml: unknown option frezze; did you mean freeze?" in message
    assert "did you mean" not in complaint(yaml="q: 1")


def test_flags_may_not_be_abbreviated(complaint):
    assert "unknown option --step" in complaint(["--step", "3"])


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("steps: many", "job.yaml: argument --steps: invalid int value: 'many'"),
        ("steps: 1.5", "argument --steps: invalid int value: '1.5'"),
        ("steps: [1, 2]", "job.yaml: steps is the list [1, 2]; it takes one value"),
        ("revision: []", "job.yaml: revision is the list []; it takes one value"),
        ("rate: fast", "argument --rate: invalid float value: 'fast'"),
        ("freeze: maybe", "job.yaml: freeze is 'maybe'; it must be true or false"),
        ("size: huge", "job.yaml: argument --size: invalid choice: 'huge'"),
        ("widths: [4, x]", "argument --widths: invalid int value: 'x'"),
        ("- steps", "`name: value` lines"),
        ("steps: [1", "job.yaml: cannot be read"),
        ("config: other.yaml", "unknown option config"),
    ],
)
def test_bad_values_in_a_file_are_named(complaint, yaml, expected):
    assert expected in complaint(yaml=yaml)


def test_files_that_cannot_be_read_are_named(complaint, tmp_path):
    assert "absent.yaml: cannot be read" in complaint(["--config", str(tmp_path / "absent.yaml")])
    (tmp_path / "latin.yaml").write_bytes(b"output: caf\xe9\n")
    assert "latin.yaml: cannot be read" in complaint(["--config", str(tmp_path / "latin.yaml")])


def test_bad_flags_are_named(complaint):
    assert "argument --size: invalid choice" in complaint(["--size", "huge"])
    assert "expected at least one argument" in complaint(["--widths"])
    assert "steps is -1, it must be at least 0" in complaint(["--steps", "-1"])


def test_a_required_option_may_come_from_either_place(parse, complaint):
    assert parse(["--model-name", "a"], kind=Needy) == Needy("a")
    assert parse(yaml="model_name: a", kind=Needy) == Needy("a")
    assert "--model-name is needed: a folder or a Hub id" in complaint(kind=Needy)
    assert "--model-name is needed" in complaint(yaml="k: 4", kind=Needy)
    assert "--data is needed: folders" in complaint(yaml="data: []", kind=Hungry)


def test_help_shows_defaults_and_ends_well(parse, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for text in ("(default: 10)", "100% of the time", "--freeze, --no-freeze", "(default: 4 2)", "{tiny,base}"):
        assert text in shown


def test_a_part_of_the_options_can_be_taken_out():
    assert part_of(Job(steps=3, output="b"), Training) == Training(steps=3)
