"""The simulated users and videos in the columns of KuaiRand's user_features and video_features_basic."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from coldrank.data.simulate.random import normals, uniforms
from coldrank.data.simulate.world import CATEGORY_FEATURES, Users, Videos

# Names of KuaiRand's ranges and the smallest count of each range but the first.
FOLLOW_RANGES = (
    ("0", "(0,10]", "(10,50]", "(50,100]", "(100,150]", "(150,250]", "(250,500]", "500+"),
    (1, 11, 51, 101, 151, 251, 501),
)
FANS_RANGES = (
    ("0", "[1,10)", "[10,100)", "[100,1k)", "[1k,5k)", "[5k,1w)", "[1w,10w)", "[10w,100w)"),
    (1, 10, 100, 1_000, 5_000, 10_000, 100_000),
)
FRIEND_RANGES = (("0", "[1,5)", "[5,30)", "[30,60)", "[60,120)", "[120,250)", "250+"), (1, 5, 30, 60, 120, 250))
REGISTER_RANGES = (
    ("-7", "8-14", "15-30", "31-60", "61-90", "91-180", "181-365", "366-730", "730+"),
    (8, 15, 31, 61, 91, 181, 366, 731),
)
# Shares of the user file: low 1%, middle 8%, high 23%, full 68% of a standard normal activity.
DEGREES = (("low_active", "middle_active", "high_active", "full_active"), (-2.3, -1.34, -0.47))
UPLOAD_TYPES = ("LongImport", "Web", "ShortImport", "Kmovie", "LongPicture")
# Number of values of the onehot_feat columns that tell nothing of the user's taste.
IDLE_CATEGORIES = {0: 2, 3: 1471, 4: 16, 5: 34, 6: 3, 8: 454, 11: 3, 12: 2, 13: 2, 14: 2, 15: 2, 16: 2, 17: 2}


def user_table(users: Users, days: int) -> pl.DataFrame:
    """The users in the columns of user_features, U rows.

    Taste shows in onehot_feat 1, 2, 7, 9, 10 and in the follow count, activity in the degree.
    """
    z = normals(users.keys, 3, first_slot=64)
    u = uniforms(users.keys, 2 + len(IDLE_CATEGORIES), first_slot=80)
    registered = np.where(users.first_day < 0, days + 1188 * np.exp(0.8 * z[:, 2]), days - users.first_day)
    columns: dict[str, np.ndarray] = {
        "user_id": users.ids,
        "user_active_degree": _ranges(users.activity, DEGREES),
        "is_lowactive_period": np.zeros_like(users.ids),
        "is_live_streamer": np.where(u[0] < 0.226, 1, -124),
        "is_video_author": (u[1] < 0.816).astype(np.int64),
    }
    # Medians of the user file: 155 followed, 48 fans, 16 friends, 1,188 days.
    for name, values, ranges in (
        ("follow_user_num", 155 * np.exp(1.3 * users.sociability), FOLLOW_RANGES),
        ("fans_user_num", 49 * np.exp(1.8 * z[:, 0]) - 1, FANS_RANGES),
        ("friend_user_num", 17 * np.exp(1.7 * z[:, 1]) - 1, FRIEND_RANGES),
        ("register_days", registered, REGISTER_RANGES),
    ):
        columns[name] = np.maximum(values, 0).astype(np.int64)
        columns[f"{name}_range"] = _ranges(columns[name], ranges)
    idle = {number: (u[2 + i] ** 2 * size).astype(np.int64) for i, (number, size) in enumerate(IDLE_CATEGORIES.items())}
    telling = {number: users.categories[:, i] for i, number in enumerate(CATEGORY_FEATURES)}
    columns |= {f"onehot_feat{number}": values for number, values in sorted((idle | telling).items())}
    return pl.DataFrame(columns)


def video_table(videos: Videos, first_day: date) -> pl.DataFrame:
    """The videos in the columns of video_features_basic, V rows; tags joined by commas, upload_dt as YYYY-MM-DD."""
    u = uniforms(videos.keys, 3, first_slot=64)
    days = {int(day): (first_day + timedelta(days=int(day))).isoformat() for day in np.unique(videos.upload_day)}
    two = np.where(videos.second_tag > 0, np.char.add(",", videos.second_tag.astype(str)), "")
    wide = u[0] < 0.2
    count = len(videos.ids)
    return pl.DataFrame(
        {
            "video_id": videos.ids,
            "author_id": videos.author,
            "video_type": np.where(u[1] < 0.01, "AD", "NORMAL"),
            "upload_dt": [days[int(day)] for day in videos.upload_day],
            "upload_type": np.array(UPLOAD_TYPES)[videos.upload_type],
            "visible_status": np.zeros(count),
            "video_duration": videos.duration_ms.astype(np.float64),
            "server_width": np.where(wide, 1280.0, 720.0),
            "server_height": np.where(wide, 720.0, 1280.0),
            "music_id": (u[2] * 1e9).astype(np.int64),
            "music_type": np.full(count, 9.0),
            "tag": np.char.add(videos.tag.astype(str), two),
        }
    )


def _ranges(values: np.ndarray, ranges: tuple[tuple[str, ...], tuple[float, ...]]) -> np.ndarray:
    names, edges = ranges
    return np.array(names)[np.searchsorted(edges, values, side="right")]
