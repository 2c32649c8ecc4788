"""What a worker keeps of the secrets in its orders: nothing."""

from __future__ import annotations

import pytest

from cronflowd.worker.executors.job import Ended, Job, format_done, parse_order
from cronflowd.worker.executors.output import Output
from tests.lib.out_lines import take_all

ORDER = '1 1 type=shell env.K="say \\"it\\"\\nagain" secret.k="say \\"it\\"\\nagain" :echo'


def written(cuts: list[bytes], limit: int = 1000) -> list[str]:
    """OUT lines of a job that writes so."""
    output = Output("1", limit)
    job = Job(parse_order(ORDER), output, 5.0)
    why = 'exit 1: say "it"\nagain'
    assert format_done("1 1", Ended(1, why), 0, job.order.mask) == 'DONE 1 1 1 why="exit 1: [secret:k]"\n'
    shown = []
    for cut in cuts:
        output.feed(1, cut)
        output.show(0.0)  # as after a second of silence
        shown.append(output.take(1000))
    output.remark('cannot reach say "it"\nagain')
    output.end()
    return [*shown, take_all(output)]


@pytest.mark.parametrize("cut", range(1, 15))
def test_none_is_in_what_may_be_written_to_a_file(cut: int) -> None:
    """The spool outlives a kill, in a directory that backups and other people may look into."""
    value = b'say "it"\nagain'
    texts = written([b"<" + value[:cut], value[cut:] + b">\n"])
    assert (
        "".join(texts).replace("\\\nOUT 1 1 ", "")
        == "OUT 1 1 <[secret:k]>\nOUT 1 0 cannot reach [secret:k]\n"
    )


def test_what_only_looks_like_its_beginning_comes_in_the_end() -> None:
    """A line that ends so must be whole when its job has ended."""
    assert written([b"I say"])[-1].startswith("OUT 1 1 say\\\n")
    assert written([b"I say"])[0] == "OUT 1 1 I \\\n"


def test_an_order_without_them_costs_nothing() -> None:
    """Only runs that have secrets pay for them."""
    assert parse_order("1 1 type=shell secret=x :echo").mask is None


def test_a_blank_that_is_none_is_part_of_a_value() -> None:
    """Only blanks and tabs stand between words; a password may hold U+00A0, and a variable always could."""
    order = parse_order("1 1 type=shell env.K=a\u00a0b\u2028c :echo")
    assert order.options == {"type": "shell", "env.K": "a\u00a0b\u2028c"}
