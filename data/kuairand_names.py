"""What KuaiRand's log tells of an event, by name."""

DEFAULT_TASKS = ("long_view", "finish_view", "like", "follow", "click")
# Labels that are numbers: the play time in seconds. Known after the play alone: a label, and never an input.
NUMBERS = ("watch_s",)

# Outcome -> the log's column; a finished view is a play as long as the video.
OUTCOME_COLUMNS = {
    "long_view": "long_view",
    "finish_view": "play_time_ms",
    "like": "is_like",
    "follow": "is_follow",
    "click": "is_click",
    "comment": "is_comment",
    "forward": "is_forward",
    "hate": "is_hate",
    "profile_enter": "is_profile_enter",
}
