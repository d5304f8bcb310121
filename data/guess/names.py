"""What names of columns say. `words("userId")` is ("user", "id"): by underscores, other signs, and capital letters."""

import re

USER = (
    *("user", "users", "uid", "userid", "member", "customer", "visitor", "visitorid", "viewer", "reviewer", "reader"),
    *("listener", "player", "buyer", "shopper", "client", "subscriber", "account", "person", "profile", "device"),
    *("cookie", "session", "sessionid"),
)
ITEM = (
    *("item", "items", "itemid", "iid", "product", "sku", "asin", "video", "movie", "film", "clip", "article", "news"),
    *("song", "track", "book", "game", "app", "photo", "post", "listing", "job", "recipe", "course", "document"),
    *("content", "hotel", "poi", "business", "restaurant", "show", "episode", "creative", "banner", "ad", "advert"),
    *("artist", "campaign"),
)
TIME = {"time", "timestamp", "ts", "datetime", "date", "day", "epoch", "when", "created", "at", "hour", "unixtime"}
# Of outcomes that are 0 or 1.
FLAG = {
    *("click", "clicked", "clicks", "like", "liked", "likes", "buy", "bought", "purchase", "purchased", "order"),
    *("ordered", "convert", "converted", "conversion", "follow", "followed", "share", "shared", "comment", "commented"),
    *("finish", "finished", "complete", "completed", "skip", "skipped", "hate", "dislike", "disliked", "save", "saved"),
    *(
        "cart",
        "install",
        "installed",
        "watched",
        "played",
        "label",
        "target",
        "y",
        "open",
        "opened",
        "reply",
        "replied",
    ),
    *("forward", "favorite", "favourite", "booked", "subscribed", "relevant", "accepted", "success", "reward"),
    *("view", "viewed"),
}
# Beside them.
DONE = {"is", "has", "was", "did", "flag"}
# Two texts that mean 1 and 0, and those of them that mean 1.
YES = {"yes", "y", "t"}
YES_NO = ({"yes", "no"}, {"y", "n"}, {"t", "f"})
# Of outcomes that are numbers: no input either.
NUMBER = {
    *("watch", "watched", "dwell", "listen", "listened", "play", "played", "spent", "revenue", "profit", "gmv", "stay"),
}
# Of what others made of an event later.
AFTER = {"helpful", "unhelpful", "upvote", "upvotes", "downvote", "downvotes", "vote", "votes"}
RATING = {"rating", "ratings", "rate", "rated", "stars", "score", "grade", "overall", "vote", "votes", "evaluation"}
WEIGHT = {"weight", "weights", "ipw", "propensity", "importance"}
EVENT = {"event", "action", "behavior", "behaviour", "interaction"}
# Values of a column of events that say that the item was merely shown.
SHOWN = {"view", "impression", "show", "shown", "seen", "exposure", "pv", "display", "expose"}
BIRTH = {"upload", "uploaded", "publish", "published", "release", "released", "created", "launch", "birth", "added"}
# Of numbers that may be of the whole log, the future included.
TOTAL = {
    *("avg", "average", "mean", "total", "count", "counts", "popularity", "sales", "ctr", "rate", "rank", "trending"),
}
# Of numbers that name something.
CODE = {"id", "ids", "code", "hash", "type", "category", "cat", "class", "zip", "zipcode", "genre", "tag", "brand"}
_KEY = {"id", "ids", "key", "no", "code", "hash", "uuid", "guid", "pk"}


def words(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", name)
    return tuple(re.findall(r"[a-z]+|[0-9]+", apart.lower()))


def rank(name: str, wanted: tuple[str, ...]) -> int | None:
    """How well a name fits an id of `wanted`, lower is better; None: it does not. `user_id`, `user` and `userId` do,
    `final_video_id` less well, `user_age` not."""
    given = words(name)
    plain = [w for w in given if w not in _KEY]
    if len(plain) == 1 and plain[0] in wanted:
        return wanted.index(plain[0])
    with_key = len(plain) < len(given)
    late = [w for w in plain if w in wanted]
    return 100 + wanted.index(late[-1]) if with_key and late and plain[-1] == late[-1] else None


def plain_name(name: str, prefix: str = "") -> str:
    """A name of a LogSpec: small letters, digits and underscores, without a prefix such as `item`."""
    apart = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    found = re.sub(r"[^a-z0-9]+", "_", apart).strip("_")
    found = found.removeprefix(f"{prefix}_") if prefix else found
    return found if found[:1].isalpha() else f"c_{found}".rstrip("_")
