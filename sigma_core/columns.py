"""Every column name of every published table, once.

Nothing else in the project spells a column as a string literal. `*_id` is an external name (always a string),
`*_index` a dense integer position; one name never means both.
"""

from typing import Final

# --- events -------------------------------------------------------------------------------------
USER_ID: Final = "user_id"
ITEM_ID: Final = "item_id"
EVENT_TIME: Final = "event_time"  # naive timestamp of the source, microseconds
EVENT_DATE: Final = "event_date"  # the day partition the event belongs to
EVENT_TYPE: Final = "event_type"  # purchase | view | rating
SESSION_ID: Final = "session_id"  # basket, visit; null where the source has none
QUANTITY: Final = "quantity"  # units; > 0 after cleaning
PRICE: Final = "price"  # paid per unit, in the source's currency; null where unknown
QUERY_TEXT: Final = "query_text"  # what the user typed before the event; null where the source has none
SOURCE_ROW: Final = "source_row"  # row number in the source, for tracing a quarantined row back
REASON: Final = "reason"  # why a row was quarantined

# --- catalog ------------------------------------------------------------------------------------
TITLE: Final = "title"  # what a person is shown
TEXT: Final = "text"  # what the grounded encoder reads
LAUNCH_TEXT: Final = "launch_text"  # the first text ever seen of the item; its semantic ID comes from this
TEXT_GROUP: Final = "text_group"  # items with one shown title share it; a shown list collapses them
ITEM_TYPE: Final = "item_type"  # finest class (product type)
CATEGORY: Final = "category"  # middle class (product category, genre)
DEPARTMENT: Final = "department"  # coarsest class
BRAND: Final = "brand"
MAKER: Final = "maker"
SIZE: Final = "size"
PRICE_BAND: Final = "price_band"  # budget | mid | premium ...; frozen at refit or launch
LAUNCHED_ON: Final = "launched_on"  # day of the first sale; null when left-censored
IS_NEW: Final = "is_new"  # launched within the last `launch_days` days
IS_TAIL: Final = "is_tail"  # among the items that make the last 20 % of 56-day volume
NUM_BUYERS_56D: Final = "num_buyers_56d"
NUM_EVENTS_56D: Final = "num_events_56d"
NUM_EVENTS_28D: Final = "num_events_28d"  # the popularity of `docs`: event lines of the last 28 days
NUM_EVENTS_14D: Final = "num_events_14d"

# --- users --------------------------------------------------------------------------------------
PROFILE_TEXT: Final = "profile_text"  # the profile in words; empty when nothing is known
FIRST_SEEN: Final = "first_seen"
NUM_EVENTS: Final = "num_events"

# --- offers -------------------------------------------------------------------------------------
OFFER_ID: Final = "offer_id"  # a campaign, a mailing: something sent to users that is for some items
STARTS_ON: Final = "starts_on"
ENDS_ON: Final = "ends_on"  # the last day it holds

# --- relevance pairs ----------------------------------------------------------------------------
VIEW: Final = "view"  # collaborative | search | knowledge | visual
ANCHOR_TEXT: Final = "anchor_text"  # text of the anchor: an item text, a query, a holiday
ANCHOR_ITEM_ID: Final = "anchor_item_id"  # null where the anchor is no item
POSITIVE_ITEM_ID: Final = "positive_item_id"
WEIGHT: Final = "weight"
IS_PSEUDO: Final = "is_pseudo"  # True for a query made up from the catalog, not typed by anyone

# --- instruction examples -----------------------------------------------------------------------
CUT_DATE: Final = "cut_date"  # the last day an example's input may know
TARGET_END: Final = "target_end_date"  # last day of the target window
TASK: Final = "task"
WORDING: Final = "wording"  # index of the template's wording
SLOTS: Final = "slots"  # JSON of the values the wording names
FOCUS_TEXT: Final = "focus_text"  # what the request is about, in words ("soda", "Halloween"); empty = general
TARGETS: Final = "targets"  # list of item_id
RECENT_ITEMS: Final = "recent_items"  # newest first, list of item_id
RECENT_AGES: Final = "recent_ages"  # days before the cut, aligned
RECENT_COUNTS: Final = "recent_counts"  # number of event lines, aligned
RECENT_DECAYED: Final = "recent_decayed"  # count with the configured half-life, aligned
RECENT_DECAYED_FAST: Final = "recent_decayed_fast"  # count with a quarter of that half-life, aligned
FAVORITE_ITEMS: Final = "favorite_items"  # by decayed count, list of item_id
FAVORITE_COUNTS: Final = "favorite_counts"  # number of event lines, aligned
FAVORITE_AGES: Final = "favorite_ages"  # days since the last one, aligned
FAVORITE_DECAYED: Final = "favorite_decayed"  # count with the configured half-life, aligned; orders the list
FAVORITE_DECAYED_FAST: Final = "favorite_decayed_fast"  # count with a quarter of that half-life, aligned
PHRASE: Final = "phrase"  # a shopper's phrase ("taco night")
IS_HELD_OUT_PHRASE: Final = "is_held_out_phrase"  # True for a phrase that is never trained on
REQUEST_KEY: Final = "request_key"  # what tells a user's requests of one task apart; "" for a general request
USER_INDEX: Final = "user_index"  # position among sorted users; never published
ITEM_INDEX: Final = "item_index"  # position in the day's catalog; never published
IS_REPEAT: Final = "is_repeat"  # the user took the item before the cut
IS_TEXT_REPEAT: Final = "is_text_repeat"  # ... or an item of its text group
IS_CATEGORY_REPEAT: Final = "is_category_repeat"  # ... or an item of its category
Z_SCORE: Final = (
    "z_score"  # users of the target window over those of the weeks before, in standard deviations
)
OWNED_ITEMS: Final = "owned_items"  # every catalog item a user ever took, list of item_id

# --- tokens, indexes ----------------------------------------------------------------------------
PREFIX: Final = "prefix"  # list of codes, the part of the semantic ID that is used
CODES: Final = "codes"  # list of all codes
CODE_SOURCE: Final = "code_source"  # refit | launch
RANK: Final = "rank"
SCORE: Final = "score"
PREFIX_PROBABILITY: Final = "prefix_probability"
