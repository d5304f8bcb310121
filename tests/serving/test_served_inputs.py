"""What a request holds, of the declaration of the features."""

from coldrank.models.features import Feature, FeatureSet, Table
from coldrank.serving.inputs import Served, served_inputs

FEATURES = FeatureSet(
    [
        Feature(name="user", role="user", kind="id", table="user", default=-3),
        Feature(name="item", role="item", kind="id", table="item"),
        Feature(name="tags", role="item", kind="id", table="user", many=True),
        Feature(name="gap", role="context", kind="bucket", edges=(1.0,), dim=2),
        Feature(name="seen", role="sequence", kind="id", table="item", sequence="past", length=5),
        Feature(name="likes", role="sequence", kind="signals", columns=("like",), dim=2, sequence="past", length=5),
    ],
    [Table(name="user", rows=8, dim=4), Table(name="item", rows=9, dim=4, mapping="identity")],
)


def test_inputs_are_those_of_the_features_and_the_counts_that_none_reads() -> None:
    found = served_inputs(FEATURES, ("item", "tags", "item_views"), ("item_views", "user", "user_views"))
    assert found == (
        Served(name="user", dtype="int", per="request", default=-3),
        Served(name="item", dtype="int", per="candidate", default=0, low=0, high=8),
        Served(name="tags", dtype="int", per="candidate", is_list=True),
        Served(name="gap", dtype="float", per="request"),
        Served(name="seen", dtype="int", per="request", is_list=True, low=0, high=8, length=5, sequence="past"),
        Served(name="like", dtype="int", per="request", is_list=True, low=-1, high=1, length=5, sequence="past"),
        Served(name="item_views", dtype="int", per="candidate", default=0),
        Served(name="user_views", dtype="int", per="request", default=0),
    )
    assert served_inputs(FEATURES, ()) == tuple(
        Served(**{n: getattr(i, n) for n in i.__dataclass_fields__} | {"per": "request"}) for i in found[:6]
    )
