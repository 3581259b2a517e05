"""Data: sources, cleaning, the catalog of a day, users, calendar, splits. Frames in, typed tables out; no model here."""
