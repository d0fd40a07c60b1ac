"""The checks against brute force, and the paper's tables against what is known of them."""

from decimal import Decimal
from pathlib import Path

import pytest
from safebasin.errors import InputError
from safebasin.results.audit import (
    NUMBERS,
    Number,
    audit_pairs,
    differing,
    published,
    reachable,
    read_numbers,
    repeated,
    times,
)
from safebasin.results.statistics import mcnemar_exact
from scipy.stats import fisher_exact

PAPER = [number for path in published() for number in read_numbers(path)]


def number(row: str, value: str, unit: str = "percent_prompts", column: str = "HRR", **more: str) -> Number:
    return Number("t", "g", row, column, Decimal(value), unit, **more)


@pytest.mark.parametrize("n", [7, 40, 200])
@pytest.mark.parametrize("decimals", [0, 1])
def test_a_rate_is_reachable_if_some_count_is_printed_so(n: int, decimals: int) -> None:
    step = Decimal(1).scaleb(-decimals)
    printed: dict[Decimal, list[int]] = {}
    for k in range(n + 1):
        exact = Decimal(100 * k) / n
        for value in {exact.quantize(step, way) for way in ("ROUND_HALF_UP", "ROUND_HALF_DOWN")}:
            printed.setdefault(value, []).append(k)
    for i in range(100 * 10**decimals + 1):
        value = (i * step).quantize(step)
        assert reachable(value, n) == printed.get(value, [])


def test_rows_that_agree_are_found_and_others_are_not() -> None:
    def row(name: str, *values: str) -> list[Number]:
        return [number(name, value, "percent", column) for column, value in zip("abcd", values, strict=False)]

    rows = [*row("x", "1.0", "2.0", "3.0", "4.0"), *row("y", "1", "2.0", "3.0", "9.0"), *row("z", "1.0", "2.0", "8.0")]
    assert repeated(rows) == [("t/g/x", "t/g/y", ["a", "b", "c"])]


def test_times_allow_for_rounding() -> None:
    def found(total: str, part: str, often: int = 3) -> bool:
        parts = number("p", part, "seconds", part_of="t/g/all/HRR")._replace(times=Decimal(often))
        return bool(times([number("all", total, "minutes"), parts]))

    assert not found("20.0", "400")
    assert not found("20.0", "401")  # 400.5 * 3 s = 20.025 min, and 20.0 may be 20.05
    assert found("20.0", "402")
    assert not found("20.0", "402", often=2)


def test_names_must_be_there() -> None:
    with pytest.raises(InputError, match="names 't/g/no/HRR', which is in no table"):
        times([number("p", "1", "seconds", part_of="t/g/no/HRR")])
    with pytest.raises(InputError, match="is in 'GB', no time"):
        times([number("a", "1", "GB"), number("p", "1", "seconds", part_of="t/g/a/HRR")])
    with pytest.raises(InputError, match="in no table"):
        differing([number("p", "1", same_as="x")])


def test_differences_have_fishers_p_and_the_least_of_mcnemar() -> None:
    (pair,) = audit_pairs([number("a", "8.1"), number("b", "3.0"), number("c", "3.0", "nats")], 382)
    assert pair.p == fisher_exact([[31, 351], [11, 371]]).pvalue
    assert pair.p_least == mcnemar_exact([True] * 20, [False] * 20)


def test_bad_files_are_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(InputError, match="cannot read"):
        read_numbers(path)
    path.write_text("table,row\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns group, column, value, unit"):
        read_numbers(path)
    for value, said in (("3,0", "no CSV|line 2"), ("x", "line 2: 'x' is no number"), ("101", "101 is no percentage")):
        path.write_text(f'table,group,row,column,value,unit\nt,g,r,c,"{value}",percent_prompts\n')
        with pytest.raises(InputError, match=said):
            read_numbers(path)


def test_every_number_has_its_source_and_its_own_name() -> None:
    assert all(each.source for each in PAPER)
    assert len({each.name for each in PAPER}) == len(PAPER)


def test_the_papers_rates_mix_sets_of_prompts() -> None:
    rates = {each.value for each in PAPER if each.unit == "percent_prompts"}
    can = {n: {value for value in rates if reachable(value, n)} for n in NUMBERS}
    assert {Decimal(text) for text in ("78.4", "24.7", "21.4", "1.4")} <= rates - set.union(*can.values())
    sensitivity = {
        each.value for each in PAPER if each.table in ("table5", "table6") and each.unit == "percent_prompts"
    }
    assert sensitivity <= can[200]
    assert rates == {value for value in rates if reachable(value, 3 * 382)}  # as means of three runs they would fit
    for text in ("3.0", "25.5", "1.5", "2.0", "3.5", "4.0", "7.5", "24.5", "52.0", "42.0"):
        assert Decimal(text) not in can[382]


def test_the_papers_table_7_repeats_rows_of_others() -> None:
    found = {(one, other): set(columns) for one, other, columns in repeated(PAPER)}
    assert found["table2/Llama-3.1 8B/Ours", "table7/LLaMA-3.1 8B/Fine-tuned"] == {"TruthfulQA", "ToxiGen", "ARC-C"}
    full = found["table6/LLaMA-3.1 8B/+ Ours", "table7/LLaMA-3.1 8B/Ours"]
    assert full == {"TruthfulQA", "ToxiGen", "ARC-C", "BoolQ"}


def test_the_papers_times_do_not_add_up() -> None:
    ((total, most, least),) = times(PAPER)
    assert total.name == "table9/LLaMA-2 7B/Ours/Time"
    assert most == pytest.approx(18.55 * 60)
    assert least == 3 * (398.5 + 15.5)


def test_the_papers_text_differs_from_its_table_once() -> None:
    ((text, cell),) = differing(PAPER)
    assert (text.group, str(text.value), str(cell.value)) == ("Llama-2 7B", "1.2", "1.3")


def test_the_papers_differences_within_noise() -> None:
    p = {(pair.a.table, pair.a.group, pair.a.row, pair.b.row): pair.p for pair in audit_pairs(PAPER, 382)}
    assert p["table2", "Qwen 2.5 7B", "SaLoRA", "Ours"] == pytest.approx(0.16, abs=0.01)
    assert p["table2", "Llama-3.1 8B", "SaLoRA", "Ours"] == pytest.approx(0.004, abs=0.002)
    assert p["table2", "Llama-3.1 8B", "Base", "Ours"] > 0.05
    noise = [pair for pair in audit_pairs(PAPER, 200) if pair.a.table == "table5" and pair.p < 0.05]
    assert noise == []
