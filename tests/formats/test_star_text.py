from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import starfile
from hypothesis import given, settings
from hypothesis import strategies as st

from cryospin.errors import InputError
from cryospin.formats.star_text import parse_star, quoted, split, star_file

TABLE = """
# made by hand   # twice

data_general   # of the whole file

_rlnTitle    "two words"
_rlnCount   3
# between
_rlnNothing ''

data_

loop_
_name
_value
a 1

b 2

# version 30001

data_particles

loop_ 
_rlnImageName #1 
_rlnGroupName #2
  # among the labels
_rlnDefocusU #3 
  000001@a.mrcs "two words"   10000.0 
# among the rows
\t2@a.mrcs\t''\t20000.00

3@b.mrcs "#7" -3e4   # after the values
4@b.mrcs it's nan
 
data_last

loop_
_x
"""  # noqa: W291, W293
VARIANTS = {
    "plain": TABLE.encode(),
    "CRLF": TABLE.replace("\n", "\r\n").encode(),
    "BOM": b"\xef\xbb\xbf" + TABLE.encode(),
    "BOM at the first block": b"\xef\xbb\xbf" + TABLE[TABLE.index("data_general") :].encode(),
    "no newline at the end": TABLE.rstrip().encode(),
    "mixed newlines": TABLE.replace("\n", "\r\n", 25).encode(),
    "not UTF-8": TABLE.replace("by hand", "by h\udce4nd").encode("utf-8", "surrogateescape"),
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def path(request, tmp_path) -> Path:
    (tmp_path / "t.star").write_bytes(request.param)
    return tmp_path / "t.star"


@pytest.fixture
def star(tmp_path):
    (tmp_path / "t.star").write_text(TABLE)
    return parse_star(tmp_path / "t.star")


def text_of(star, tmp_path) -> str:
    star.write(tmp_path / "out.star")
    return (tmp_path / "out.star").read_bytes().decode()


def test_blocks_of_any_kind_are_found(path):
    star = parse_star(path)
    assert [b.name for b in star.blocks] == ["general", "", "particles", "last"]
    assert [b.looped for b in star.blocks] == [False, True, True, True]
    assert [len(b) for b in star.blocks] == [1, 2, 4, 0]
    general, nameless, particles, _ = star.blocks
    assert star.columns(general, ["rlnTitle", "rlnNothing"]) == {"rlnTitle": ["two words"], "rlnNothing": [""]}
    assert star.columns(nameless, nameless.labels) == {"name": ["a", "b"], "value": ["1", "2"]}
    assert star.columns(particles, ["rlnDefocusU", "rlnGone", "rlnGroupName"]) == {
        "rlnDefocusU": ["10000.0", "20000.00", "-3e4", "nan"],
        "rlnGroupName": ["two words", "", "#7", "it's"],
    }


def test_blocks_are_picked_by_the_first_name_that_fits(star):
    assert star.block("particles", "general").name == "general"
    assert star.block("micrographs") is None
    assert "rlnDefocusU" in star.block("particles")
    assert "rlnDefocusV" not in star.block("particles")


def test_what_is_not_changed_is_written_back_byte_for_byte(path):
    before = path.read_bytes()
    parse_star(path).write(path)
    assert path.read_bytes() == before


def test_only_the_table_that_is_changed_differs(star, tmp_path):
    particles = star.block("particles")
    angles = [f"{v:.6f}" for v in (1, -22.5, 170, 0)]
    new = star.replaced(
        particles, {"rlnDefocusU": ["1", "2", "3", "4"], "rlnAngleRot": angles, "rlnNote": ["", "#", "a b", "c"]}
    )
    head, tail = TABLE.index("_rlnImageName"), TABLE.index(" \ndata_last")
    text = text_of(new, tmp_path)
    assert text[:head] == TABLE[:head]
    assert text.endswith(TABLE[tail:])
    assert text[head : -len(TABLE[tail:])] == (
        "_rlnImageName #1\n_rlnGroupName #2\n_rlnDefocusU #3\n_rlnAngleRot #4\n_rlnNote #5\n"
        "  # among the labels\n"
        '000001@a.mrcs "two words"            1     1.000000           ""\n'
        "# among the rows\n"
        '2@a.mrcs\t""\t           2\t  -22.500000\t         "#"\n'
        "\n"
        '3@b.mrcs "#7"            3   170.000000        "a b" # after the values\n'
        "4@b.mrcs it's            4     0.000000            c\n"
    )


def test_a_table_that_was_changed_reads_back(path):
    star = parse_star(path)
    columns = {"rlnDefocusU": ["1", "2", "3", "4"], "rlnNote": ["", "#", "a b", 'a "b" c']}
    star.replaced(star.block("particles"), columns).write(path)
    again = parse_star(path)
    assert [b.name for b in again.blocks] == ["general", "", "particles", "last"]
    block = again.block("particles")
    assert block.labels == ("rlnImageName", "rlnGroupName", "rlnDefocusU", "rlnNote")
    assert again.columns(block, tuple(columns)) == columns
    assert again.columns(block, ["rlnGroupName"])["rlnGroupName"] == ["two words", "", "#7", "it's"]


def test_new_lines_end_as_the_old_ones_do(tmp_path):
    (tmp_path / "t.star").write_bytes(VARIANTS["CRLF"])
    star = parse_star(tmp_path / "t.star")
    text = text_of(star.replaced(star.block("particles"), {"rlnNew": list("abcd")}), tmp_path)
    assert text.count("\n") == text.count("\r\n") == TABLE.count("\n") + 1


def test_rows_that_are_kept_stay_in_the_files_order(star):
    some = star.replaced(star.block("particles"), {"rlnDefocusU": ["7", "8"]}, keep=np.array([1, 3]))
    block = some.block("particles")
    assert some.columns(block, block.labels) == {
        "rlnImageName": ["2@a.mrcs", "4@b.mrcs"],
        "rlnGroupName": ["", "it's"],
        "rlnDefocusU": ["7", "8"],
    }
    assert "# among the rows" in some.lines
    assert some.block("last").labels == ("x",)


def test_values_follow_their_rows_in_whatever_order_rows_are_named(star):
    some = star.replaced(star.block("particles"), {"rlnDefocusU": ["third", "first"]}, keep=np.array([2, 0]))
    assert some.columns(some.block("particles"), ["rlnDefocusU"])["rlnDefocusU"] == ["first", "third"]


def test_no_rows_can_be_kept(star):
    none = star.replaced(star.block("particles"), {"rlnNew": []}, keep=np.array([], int))
    assert len(none.block("particles")) == 0
    assert none.block("particles").labels[-1] == "rlnNew"


def test_a_list_of_pairs_that_gains_a_column_becomes_a_table(star):
    new = star.replaced(star.block("general"), {"rlnCount": ["4"], "rlnMore": ["x y"]})
    block = new.block("general")
    assert block.looped
    assert new.columns(block, block.labels) == {
        "rlnTitle": ["two words"],
        "rlnCount": ["4"],
        "rlnNothing": [""],
        "rlnMore": ["x y"],
    }
    assert [b.name for b in new.blocks] == [b.name for b in star.blocks]
    assert "# between" in new.lines


def test_rows_may_start_like_a_block(tmp_path):
    path = tmp_path / "t.star"
    path.write_text("data_particles\nloop_\n_rlnMicrographName\n_rlnDefocusU\ndata_1/m.mrc 1\ndata_2/m.mrc 2\n")
    star = parse_star(path)
    assert [len(b) for b in star.blocks] == [2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("3@b.mrcs x", "line 33: the row has 2 values, the particles block 3 columns"),
        ("3@b.mrcs two words 3", "line 33: the row has 4 values, the particles block 3 columns"),
        ('3@b.mrcs "two words 3', "line 33: the row has 4 values, the particles block 3 columns"),
    ],
)
def test_a_row_with_the_wrong_number_of_values_is_named(tmp_path, row, message):
    path = tmp_path / "t.star"
    path.write_text(TABLE.replace('3@b.mrcs "#7" -3e4   # after the values', row))
    star = parse_star(path)
    for use in (
        lambda: star.columns(star.block("particles"), ["rlnImageName"]),
        lambda: star.replaced(star.block("particles"), {"rlnNew": list("abcd")}),
    ):
        with pytest.raises(InputError, match=message) as error:
            use()
        assert str(error.value).startswith(f"{path}: ")
        assert "stand in quotes" in error.value.remedy


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("_rlnGroupName #2", "_rlnDefocusU", "the particles block has the column rlnDefocusU twice. Remove one"),
        ("_name\n_value", "_name\n_name", "the nameless block has the column name twice"),
    ],
)
def test_a_broken_header_is_named(tmp_path, old, new, message):
    path = tmp_path / "t.star"
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(InputError, match=message):
        parse_star(path)


def test_a_block_that_is_neither_list_nor_table_is_kept_unread(tmp_path):
    path = tmp_path / "t.star"
    path.write_text(TABLE.replace("_rlnCount   3", "rlnCount 3"))
    star = parse_star(path)
    assert next(b.labels for b in star.blocks if not b.looped) == ()
    star.write(tmp_path / "again.star")
    assert (tmp_path / "again.star").read_bytes() == path.read_bytes()


def test_a_label_without_its_value_is_named(tmp_path):
    path = tmp_path / "t.star"
    path.write_text(TABLE.replace("_rlnCount   3", "_rlnCount"))
    star = parse_star(path)
    with pytest.raises(InputError, match="line 7: _rlnCount has no value"):
        star.columns(star.block("general"), ["rlnCount"])


@pytest.mark.parametrize(
    "content",
    [b"", b"hello\n", b"\x00\xff\xfe\x80" * 50, TABLE.encode("utf-16"), b"metadata_of\nloop_\n", b"\x1f\x8b\x08\x00data_\n"],
)
def test_what_is_no_star_file_is_refused(tmp_path, content):
    path = tmp_path / "t.star"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"t\.star: not a STAR file: it has no data_ block\. Give a RELION particle table"):
        parse_star(path)


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"^gone\.star: no such file\. Check the path"):
        parse_star(Path("gone.star"))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        parse_star(tmp_path)


def test_starfile_reads_the_same(tmp_path):
    path = tmp_path / "t.star"
    path.write_text(
        "# comment\n\ndata_general\n\n_rlnTitle  'two words'\n_rlnCount 3\n\ndata_\n\nloop_\n_a\n_b #2\n x 1\n\n y 2\n\n"
        "# version 50001\n\ndata_particles\n\nloop_ \n_rlnImageName #1 \n_rlnGroupName #2\n_rlnOddZernike #3 \n"
        '\t1@a.mrcs\t"two words"   [0.1,-2e-3] \n000002@a.mrcs "#7" [0] \n 3@b.mrcs \'x y z\' []\n \n'
    )
    ours, theirs = parse_star(path), starfile.read(path, always_dict=True)
    assert [b.name for b in ours.blocks] == list(theirs)
    for block, other in zip(ours.blocks, theirs.values(), strict=True):
        columns = ours.columns(block, block.labels)
        assert list(columns) == list(other)
        for label, values in columns.items():
            want = other[label] if block.looped else [other[label]]
            assert values == [str(v) for v in want], label


def test_a_new_file_is_read_by_starfile(tmp_path):
    columns = {"rlnImageName": ["1@a.mrcs", "2@a b.mrcs"], "rlnDefocusU": [1.5, -2], "rlnGroup": ["#1", "x"]}
    star = star_file(tmp_path / "t.star", {"optics": {"rlnOpticsGroup": range(1, 3)}, "particles": columns}, "version 30001")
    star.write(star.path)
    assert star.path.read_text().startswith("# version 30001\n\ndata_optics\n")
    theirs = starfile.read(star.path, always_dict=True)
    assert {name: list(table.columns) for name, table in theirs.items()} == {
        "optics": ["rlnOpticsGroup"],
        "particles": list(columns),
    }
    for label, values in columns.items():
        assert theirs["particles"][label].tolist() == values
    again = parse_star(star.path)
    assert [b.name for b in again.blocks] == [b.name for b in star.blocks]
    assert again.lines == star.lines


def test_values_in_quotes_are_taken_out():
    assert split("""a "b c" 'd "e" f' "" '' it's "x"y '#z'""") == ["a", "b c", 'd "e" f', "", "", "it's", '"x"y', "#z"]


@given(st.text(alphabet="ab'\"# \t", max_size=20))
@settings(max_examples=300, deadline=None)
def test_values_survive_being_written_whatever_they_are(line):
    values = split(line)
    assert split(" ".join(quoted(v) for v in values)) == values


def test_a_failed_write_leaves_no_trace(star, tmp_path, monkeypatch):
    before = set(tmp_path.iterdir())

    def fail(path, _):
        path.write_text("half a ta")
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="disk full"):
        star.replaced(star.block("particles"), {"rlnNew": list("abcd")}).write(star.path)
    assert star.path.read_text() == TABLE
    assert set(tmp_path.iterdir()) == before


def test_remarks_at_the_end_of_rows_stay_there(tmp_path):
    path = tmp_path / "t.star"
    path.write_text('data_\nloop_\n_rlnA #1\n_rlnB #2\n1 2 # the first\n3 "# no remark"\n')
    star = parse_star(path)
    (block,) = star.blocks
    assert star.columns(block, ["rlnB"]) == {"rlnB": ["2", "# no remark"]}
    rows = star.replaced(block, {"rlnA": ["5", "6"]}).lines[-3:-1]
    assert [r.split() for r in rows] == [["5", "2", "#", "the", "first"], ["6", '"#', "no", 'remark"']]


def test_a_remark_does_not_fill_up_a_row(tmp_path):
    path = tmp_path / "t.star"
    path.write_text("data_\nloop_\n_rlnA #1\n_rlnB #2\n1 # two\n")
    star = parse_star(path)
    with pytest.raises(InputError, match="the row has 1 values"):
        star.columns(star.blocks[0], ["rlnA"])
