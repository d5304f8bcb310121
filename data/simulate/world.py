"""The users, videos and preferences of a simulated short-video service.

Legend: U users, V videos, K taste dimensions, R rectified units, H = K + R hidden units, S scores.
The scores are the logits of click, long_view given click, finish given long_view, like and follow, in this order.
Every latent is a function of (seed, id); nothing here grows with the length of the log.
"""

from dataclasses import dataclass

import numpy as np

from coldrank.data.simulate.random import F32, I64, U64, child_keys, normals, stream_keys, uniforms

TASTE = 8
RECTIFIED = 16
HIDDEN = TASTE + RECTIFIED
SCORES = 5

USER_STREAM, VIDEO_STREAM, AUTHOR_STREAM, TAG_STREAM, CATEGORY_STREAM, WEIGHT_STREAM = range(1, 7)

# Aggregates of KuaiRand-Pure. Duration: quantiles of duration_ms over the events of the standard log of 4/25-5/05, in
# seconds.
DURATION_QUANTILES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
DURATION_SECONDS = (5.0, 9.26, 12.7, 25.9, 70.9, 156.4, 259.1, 309.7, 481.9, 600.0)
TAGS = 46  # distinct tags of the video file
SECOND_TAG_SHARE = 0.24  # share of videos with more than one tag
AUTHORS_PER_VIDEO = 0.86  # 6,510 authors of 7,583 videos
UPLOAD_TYPE_SHARES = (0.386, 0.319, 0.121, 0.116, 0.058)  # LongImport, Web, ShortImport, Kmovie, the others
# Number of values of onehot_feat 1, 2, 7, 9 and 10 of the user file: the features that show a part of the user's taste.
CATEGORY_FEATURES, CATEGORY_SIZES = (1, 2, 7, 9, 10), (7, 50, 118, 7, 5)

VISIBLE_TASTE = 0.4  # share of the taste's variance that the user file shows; the rest is only in behaviour
CATALOGUE_DAYS = 30  # a video is shown from the day of its upload and for this many days in all
EVENTS_PER_VIDEO = 120  # 1.0 million events of 7,583 videos in both logs
# Standard deviations of the parts of each score, set so that the best AUC is near .80 for long_view and .90 for like.
USER_SD = (0.65, 0.45, 0.50, 1.30, 1.30)
VIDEO_SD = (0.65, 0.45, 0.50, 0.70, 0.90)
PRODUCT_SD = (0.75, 0.45, 0.40, 0.80, 0.80)
RECTIFIED_SD = (0.75, 0.45, 0.40, 0.80, 0.80)
PRESENT_AT_START = 0.25  # share of users who are there when the log starts; the others come evenly over its days
SHARED_WEIGHT = 0.6  # share of the variance of each hidden unit's weights that all five scores have in common


@dataclass(frozen=True, kw_only=True, slots=True)
class Newness:
    """How new users are different, and for how long."""

    gate_strength: float = 1.0
    """How far their gates lie from 1 at the first view; 0: not at all. Above 1 the units that fade flip their sign."""
    main_strength: float = 0.0
    """How far their scores rest on the video rather than on themselves: at the first view the user's own part counts
    1 - `main_strength` times, the video's 1 + `main_strength` times."""
    avc_scale: float = 10.0
    """Views in which newness falls by e: it is exp(-AVC / `avc_scale`)."""
    stay_days: float = 30.0
    """Mean days from a user's first to his last. The shorter, the more events are of new users."""

    def of(self, avc: I64) -> F32:
        """Newness, float32 [n]: 1 for a first view, near 0 for a regular user. avc: int64 [n]."""
        return np.exp(avc.astype(np.float32) / np.float32(-self.avc_scale))


@dataclass(frozen=True, slots=True)
class World:
    """What all users and videos share."""

    seed: int
    """Seeds every draw."""
    days: int
    """Days of the log."""
    videos_per_day: int
    """Videos uploaded on each day."""
    user_in: F32
    """First layer over the user's taste, float32 [K, R]."""
    video_in: F32
    """First layer over the video's factors, float32 [K, R]."""
    out: F32
    """Weights of the hidden units, float32 [H, S]."""
    gate_slope: F32
    """How the gates open for new users, float32 [H].

    The gate of unit h is 1 + gate_slope[h] * newness: up to a strength of 1 in [0, 2], as C * sigmoid(.) of Eq. 11 with
    C = 2.
    """
    newness: Newness
    """How new users are different."""

    @property
    def videos(self) -> int:
        """All videos: those of the log's days and of the CATALOGUE_DAYS before, whose ids come first."""
        return self.videos_per_day * (self.days + CATALOGUE_DAYS)


def build_world(seed: int, events: int, days: int, newness: Newness) -> World:
    """The world of a log of `events` events over `days` days."""
    videos_per_day = max(20, -(-events // (EVENTS_PER_VIDEO * (days + CATALOGUE_DAYS))))
    weights = normals(stream_keys(seed, WEIGHT_STREAM, np.arange(HIDDEN)), SCORES + 2 * TASTE + 1)
    shared, by_score = weights[:, SCORES : SCORES + 1], weights[:, :SCORES]
    out = np.float32(SHARED_WEIGHT**0.5) * shared + np.float32((1 - SHARED_WEIGHT) ** 0.5) * by_score
    for part, sds in ((slice(0, TASTE), PRODUCT_SD), (slice(TASTE, HIDDEN), RECTIFIED_SD)):
        out[part] *= np.asarray(sds, dtype=np.float32) / np.linalg.norm(out[part], axis=0)
    first_layer = weights[TASTE:, SCORES + 1 :].T / np.float32((2 * TASTE) ** 0.5)
    # Half of the units fade for new users and half grow so that their variance doubles: other features count, not more
    # noise.
    slope = np.where(np.arange(HIDDEN) % 2 == 0, -1.0, 2.0**0.5 - 1.0) * newness.gate_strength
    return World(
        seed=seed,
        days=days,
        videos_per_day=videos_per_day,
        user_in=np.ascontiguousarray(first_layer[:TASTE]),
        video_in=np.ascontiguousarray(first_layer[TASTE:]),
        out=out,
        gate_slope=slope.astype(np.float32),
        newness=newness,
    )


@dataclass(frozen=True, slots=True)
class Users:
    """A block of U users."""

    ids: I64
    """int64 [U]."""
    keys: U64
    """Keys of their draws, uint64 [U]."""
    categories: I64
    """What CATEGORY_SIZES counts, int64 [U, 5]."""
    sociability: F32
    """Shows in the follow count, float32 [U]."""
    activity: F32
    """Shows in the active degree, float32 [U]."""
    first_day: I64
    """The day on which they come, int64 [U]; -1: they are there when the log starts."""
    taste: F32
    """float32 [U, K]."""
    hidden: F32
    """Taste through the first layer, float32 [U, R]."""
    bias: F32
    """The user's part of each score, float32 [U, S]."""


def draw_users(world: World, ids: I64) -> Users:
    """The users of some ids, int64 [U]."""
    keys = stream_keys(world.seed, USER_STREAM, ids)
    *draws, arrival = uniforms(keys, len(CATEGORY_SIZES) + 1)
    first_day = np.floor((arrival - PRESENT_AT_START) / (1 - PRESENT_AT_START) * world.days).astype(np.int64)
    categories = np.stack(
        [(u * np.sqrt(u) * size).astype(np.int64) for u, size in zip(draws, CATEGORY_SIZES, strict=True)], 1
    )
    visible = np.zeros((len(ids), TASTE), dtype=np.float32)
    for column, size in enumerate(CATEGORY_SIZES):
        table = normals(stream_keys(world.seed, CATEGORY_STREAM, np.arange(size) + 1000 * column), TASTE)
        visible += table[categories[:, column]] / np.float32(len(CATEGORY_SIZES) ** 0.5)
    normal_draws = normals(keys, TASTE + SCORES + 3, first_slot=8)
    taste = np.float32(VISIBLE_TASTE**0.5) * visible + np.float32((1 - VISIBLE_TASTE) ** 0.5) * normal_draws[:, :TASTE]
    sociability, activity, general = (
        normal_draws[:, TASTE],
        normal_draws[:, TASTE + 1],
        normal_draws[:, TASTE + 2 : TASTE + 3],
    )
    mixed = 0.5 * general + 0.75 * normal_draws[:, TASTE + 3 :]
    mixed += 0.43 * sociability[:, None]
    bias = (mixed * np.asarray(USER_SD, dtype=np.float32)).astype(np.float32)
    return Users(
        ids=ids,
        keys=keys,
        categories=categories,
        sociability=sociability,
        activity=activity,
        first_day=np.maximum(first_day, -1),
        taste=taste,
        hidden=taste @ world.user_in,
        bias=bias,
    )


@dataclass(frozen=True, slots=True)
class Videos:
    """A block of V videos."""

    ids: I64
    """int64 [V]."""
    keys: U64
    """Keys of their draws, uint64 [V]."""
    author: I64
    """int64 [V]."""
    tag: I64
    """1 to TAGS, int64 [V]."""
    second_tag: I64
    """The same, int64 [V]; 0: none."""
    upload_type: I64
    """Index into UPLOAD_TYPE_SHARES, int64 [V]."""
    upload_day: I64
    """int64 [V]; negative: before the log."""
    duration_ms: I64
    """int64 [V]."""
    factors: F32
    """What the users' taste is for, float32 [V, K]."""
    hidden: F32
    """Factors through the first layer, float32 [V, R]."""
    bias: F32
    """The video's part of each score, float32 [V, S]."""


def draw_videos(world: World, ids: I64) -> Videos:
    """The videos of some ids, int64 [V].

    Factors and quality lie partly in tag, author and upload type, partly only in the id.
    """
    keys = stream_keys(world.seed, VIDEO_STREAM, ids)
    u = uniforms(keys, 6)
    author = (u[0] * np.sqrt(u[0]) * np.float32(max(1, int(AUTHORS_PER_VIDEO * world.videos)))).astype(np.int64)
    # The inverse of the distribution function of the density 1 / (rank + 3); rounding may reach its end.
    tag = np.minimum(3 * (np.float32(1 + TAGS / 3) ** u[1] - 1), TAGS - 1).astype(np.int64) + 1
    second_tag = np.where(u[2] < SECOND_TAG_SHARE, (u[3] * TAGS).astype(np.int64) + 1, 0)
    upload_type = np.searchsorted(np.cumsum(UPLOAD_TYPE_SHARES)[:-1], u[4])
    seconds = np.exp(np.interp(u[5], DURATION_QUANTILES, np.log(DURATION_SECONDS)))
    by_tag = normals(stream_keys(world.seed, TAG_STREAM, np.arange(TAGS + 1)), TASTE + 1)
    by_tag[0] = 0
    by_type = normals(stream_keys(world.seed, TAG_STREAM, np.arange(len(UPLOAD_TYPE_SHARES)) + 1000), 1)
    by_author = normals(stream_keys(world.seed, AUTHOR_STREAM, author), TASTE + 1)
    normal_draws = normals(keys, TASTE + 1 + SCORES, first_slot=8)
    content = 0.9 * by_tag[tag] + 0.4 * by_tag[second_tag]
    factors = (0.85 * content[:, :TASTE] + 0.35 * by_author[:, :TASTE] + 0.4 * normal_draws[:, :TASTE]).astype(
        np.float32
    )
    quality = (
        0.45 * content[:, TASTE]
        + 0.25 * by_type[upload_type, 0]
        + 0.4 * by_author[:, TASTE]
        + 0.7 * normal_draws[:, TASTE]
    )
    bias = (0.8 * quality[:, None] + 0.6 * normal_draws[:, TASTE + 1 :]) * np.asarray(VIDEO_SD, dtype=np.float32)
    upload_day = ids // world.videos_per_day - CATALOGUE_DAYS
    duration_ms = np.rint(1000 * seconds).astype(np.int64)
    return Videos(
        ids=ids,
        keys=keys,
        author=author,
        tag=tag,
        second_tag=second_tag,
        upload_type=upload_type,
        upload_day=upload_day,
        duration_ms=duration_ms,
        factors=factors,
        hidden=factors @ world.video_in,
        bias=bias.astype(np.float32),
    )


def shown_videos(world: World, day: I64, age_draw: F32, rank_draw: F32) -> I64:
    """The ids of the videos shown, int64 [n].

    Exposure falls with age and is Zipf's, of exponent 1, among a day's uploads.
    day: day of each event, int64 [n]. age_draw, rank_draw: uniform draws, float32 [n].
    """
    ages = np.arange(CATALOGUE_DAYS)
    weights = (ages + 1.0) ** -0.7 * np.exp(-ages / 15.0)
    age = np.searchsorted(np.cumsum(weights)[:-1] / weights.sum(), age_draw)
    per_day = world.videos_per_day
    # The inverse of the distribution function of the density 1 / (rank + 4) on [0, per_day).
    rank = np.minimum((4.0 * ((1.0 + per_day / 4.0) ** rank_draw - 1.0)).astype(np.int64), per_day - 1)
    first_of_day: I64 = (day - age + CATALOGUE_DAYS) * per_day
    # An affine map keeps the ids of a day from being sorted by popularity.
    step = next(k for k in range(per_day * 5 // 8, per_day * 5 // 8 + per_day) if np.gcd(k, per_day) == 1)
    ids: I64 = first_of_day + (rank * step + (first_of_day // per_day) * 7919) % per_day
    return ids


def event_keys(users: Users, user: I64, position: I64) -> U64:
    """The key of the position-th event of the user-th user, uint64 [n]. user, position: int64 [n]."""
    return child_keys(users.keys[user], position)
