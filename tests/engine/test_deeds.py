"""What AUDIT makes of facts: nobody's order is left out, whatever kind of fact tells it."""

from __future__ import annotations

from cronflowd.engine import access_facts as af
from cronflowd.engine import facts as f
from cronflowd.engine import rules
from cronflowd.engine.encoding import KINDS

# What a checkpoint tells again, and what is a deed itself.
_NO_NEWS = {f.BulkCarried, f.ChangeCarried, f.RunCarried, f.FlowCarried, af.Refused, af.Deed}


def test_every_fact_that_names_somebody_is_told() -> None:
    """A verb whose facts were forgotten here would change things unseen."""
    named = {kind for kind in KINDS if "who" in kind.__struct_fields__ and not issubclass(kind, f.Asked)}
    assert named - _NO_NEWS == set(rules._VERBS)
    for kind, (_, ref) in rules._VERBS.items():
        assert ref in kind.__struct_fields__
